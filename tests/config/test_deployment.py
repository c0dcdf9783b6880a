"""config.yml: a place for every complaint, written so that it reads back equal, made from options."""

from __future__ import annotations

import re
import string
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.config.deployment import (
    differences,
    from_json,
    from_options,
    load_deployment,
    local_deployment,
    named_in,
    to_json,
    write_deployment,
)
from sweepfw.config.deployment_keys import BUILD_READERS, READERS
from sweepfw.config.hosts import HOST_READERS
from sweepfw.core.deployment import Build, Deployment, Host
from sweepfw.errors import SweepError

ROOT = Path(__file__).parents[2]
REFUSED = yaml.safe_load((ROOT / "tests/cases/config/refused.yml").read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: Path, text: str) -> Deployment:
    (folder / "config.yml").write_text(text)
    return load_deployment(folder / "config.yml")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: repr(case["config"]))
def test_refusals_say_where_and_what(case: dict[str, str], folder: Path) -> None:
    with pytest.raises(SweepError) as caught:
        read(folder, case["config"])
    said = str(caught.value)
    assert re.sub(r"^config\.yml(:1:1)?(?=: is empty)", "config.yml", said) == "config.yml" + case["says"]
    assert caught.value.exit_code == 2


def test_a_list_of_hosts_is_enough(folder: Path) -> None:
    deployment = read(folder, "hosts: [gpu1, ada@gpu2:2222, '[::1]:22', 10.0.0.7]")
    assert deployment.hosts == (
        Host("gpu1", "gpu1"),
        Host("gpu2", "gpu2", "ada", 2222),
        Host("1", "::1", None, 22),
        Host("10.0.0.7", "10.0.0.7"),
    )
    assert (deployment.name, deployment.head) == ("main", "gpu1")
    assert deployment.workers == ("gpu1", "gpu2", "1", "10.0.0.7")
    assert (deployment.lease, deployment.renew, deployment.build) == (300, 20, Build())


def test_a_mapping_says_more(folder: Path) -> None:
    deployment = read(
        folder,
        """
hosts:
  a: ada@10.0.0.7:22
  b: {address: x.example.org, user: eve, mounts: [/data, "/s:/t:ro", "/u:/v:rw"], gpus: none, slots: 2}
  c: {gpus: [GPU-12345678-aaaa]}
  d:
  local: {labels: [fast]}
head: local
workers: [a, b]
identity: keys/mine
""",
    )
    a, b, c, d, local = deployment.hosts
    assert a == Host("a", "10.0.0.7", "ada", 22)
    assert (b.target, b.user, b.gpus, b.slots) == ("x.example.org", "eve", (), 2)
    assert b.mounts == ("/data:/data", "/s:/t:ro", "/u:/v")
    assert c.gpus == ("GPU-12345678-aaaa",)
    assert d == Host("d", "d")
    assert local.local and local.labels == ("fast",)
    assert deployment.identity == str(folder / "keys/mine")


def test_local_needs_no_mention(folder: Path) -> None:
    deployment = read(folder, "hosts: [a]\nhead: local")
    assert deployment.hosts == (Host("a", "a"), Host("local", "local"))
    assert deployment.workers == ("a",)


def test_the_example_shows_every_key_with_a_sentence_and_is_read() -> None:
    path = ROOT / "config.example.yml"
    deployment = load_deployment(path)
    assert (deployment.name, deployment.head, deployment.lease) == ("lab", "gpu1", 300)
    shown = path.read_text().splitlines()
    for keys, indent in ((READERS, ""), (HOST_READERS, "    "), (BUILD_READERS, "  ")):
        for key in keys:
            at = [n for n, line in enumerate(shown) if line.startswith(f"{indent}{key}:")]
            assert at, f"{key} is not shown"
            assert shown[at[0] - 1].strip().startswith("#"), f"{key} has no sentence"
    data = yaml.safe_load(path.read_text())
    assert set(data) == set(READERS)
    assert set(data["hosts"]["gpu1"]) == set(HOST_READERS)
    assert set(data["build"]) == set(BUILD_READERS)


def test_every_setting_of_a_deployment_has_a_key_and_the_reverse() -> None:
    assert {field.name for field in fields(Deployment)} == set(READERS)
    ours = {"name", "target"}
    assert {field.name for field in fields(Host)} - ours == set(HOST_READERS) - {"address"}
    assert {field.name for field in fields(Build)} == set(BUILD_READERS)


def test_defaults_that_are_shown_are_the_real_ones() -> None:
    text = (ROOT / "config.example.yml").read_text()
    for default in (Build().base, Build().rabbitmq, "300 (5m)", "20", "~/.sweepfw", "main"):
        assert f"Default: {default}." in text


# -- writing ---------------------------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: name != "local"
)
paths = st.lists(
    st.text(string.ascii_letters + "._-", min_size=1).filter(lambda p: p not in {".", ".."}), min_size=1
).map(lambda parts: "/srv/" + "/".join(parts))
some_hosts = st.builds(
    Host,
    name=names,
    target=st.one_of(names, st.just("::1"), st.just("10.0.0.7")),
    user=st.none() | st.just("ada") | st.just("true") | st.just("0x1"),
    port=st.none() | st.integers(1, 65535),
    address_from_head=st.none() | st.just("10.0.0.7:22"),
    mounts=st.lists(paths.map(lambda path: f"{path}:{path}:ro"), max_size=2).map(tuple),
    gpus=st.none() | st.just(()) | st.just(("GPU-12345678-aaaa",)),
    slots=st.none() | st.integers(1, 99),
    labels=st.lists(names, max_size=2).map(tuple),
    image=st.none() | st.just("a/b:1"),
)


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    hosts = draw(st.lists(some_hosts, min_size=1, max_size=4, unique_by=lambda host: host.name))
    chosen = [host.name for host in hosts]
    return Deployment(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True)),
        hosts=tuple(hosts),
        head=draw(st.sampled_from(chosen)),
        workers=tuple(draw(st.lists(st.sampled_from(chosen), min_size=1, unique=True))),
        identity=draw(st.none() | paths | st.just(str(Path.home() / ".ssh/key"))),
        remote_dir=draw(st.sampled_from(["~/.sweepfw", "/data/x"])),
        build=draw(st.builds(Build, base=st.just("b:1"), ca_bundle=st.none() | paths)),
        lease=draw(st.sampled_from([300, 10, 86400.5])),
        renew=draw(st.sampled_from([3, 0.25])),
    )


@given(deployment=deployments())
def test_what_is_written_reads_back_equal(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("c") / "config.yml"
    write_deployment(deployment, path)
    assert load_deployment(path) == deployment, path.read_text()
    assert named_in(path) == deployment.name
    assert from_json(yaml.safe_load(yaml.safe_dump(_plain(to_json(deployment))))) == deployment


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def test_what_is_written_is_for_people(folder: Path) -> None:
    home = Path.home()
    hosts = (Host("gpu1", "gpu1"), Host("gpu2", "10.0.0.7", "ada", mounts=("/d:/d",)))
    write_deployment(
        Deployment("lab", hosts, "gpu1", ("gpu1", "gpu2"), identity=str(home / ".ssh/k")), folder / "c.yml"
    )
    assert "\n".join((folder / "c.yml").read_text().splitlines()[2:]) == (
        "name: lab\nhosts:\n  gpu1: {}\n  gpu2:\n    address: 10.0.0.7\n    user: ada\n    mounts: [/d:/d]\n"
        "head: gpu1\nworkers: [gpu1, gpu2]\nidentity: ~/.ssh/k\nremote_dir: ~/.sweepfw\nlease: 300\nrenew: 20"
    )


def test_a_file_that_is_not_there_names_nothing(folder: Path) -> None:
    assert named_in(folder / "config.yml") is None
    (folder / "config.yml").write_text("hosts: [a]")
    assert named_in(folder / "config.yml") == "main"
    with pytest.raises(SweepError, match="can't be written"):
        write_deployment(local_deployment(), folder / "nothing" / "config.yml")


# -- from options ------------------------------------------------------------------------------------------


def test_the_options_of_up(folder: Path) -> None:
    made = from_options("gpu1,ada@gpu2:2222", identity="k", remote_dir="/data/x", head="2", workers="1,gpu2")
    assert made == Deployment(
        "main",
        (Host("gpu1", "gpu1"), Host("gpu2", "gpu2", "ada", 2222)),
        "gpu2",
        ("gpu1", "gpu2"),
        identity=str(folder / "k"),
        remote_dir="/data/x",
    )
    plain = from_options("gpu1,gpu2")
    assert (plain.head, plain.workers) == ("gpu1", ("gpu1", "gpu2"))


def test_this_machine_as_head_or_worker() -> None:
    made = from_options("gpu1", head="local", workers="local,1")
    assert (made.head, made.workers) == ("local", ("local", "gpu1"))
    assert [host.name for host in made.hosts] == ["gpu1", "local"]
    assert from_options("gpu1", head="local").workers == ("gpu1",)
    assert local_deployment("mine") == Deployment("mine", (Host("local", "local"),), "local", ("local",))


def test_hosts_that_differ_by_their_ports() -> None:
    made = from_options("127.0.0.1:2201,127.0.0.1:2202")
    assert [host.name for host in made.hosts] == ["127.0.0.1-2201", "127.0.0.1-2202"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hosts": ""}, "-a: names no host"),
        ({"hosts": "a,a"}, "-a: names a twice"),
        ({"hosts": "a,,b"}, "'' is no host's name"),
        ({"hosts": "-oX=y"}, "is no host's name"),
        ({"hosts": "a", "head": "2"}, "-m 2: is no host; write local, or a number from 1 to 1 (a)"),
        ({"hosts": "a", "head": "0"}, "-m 0: is no host"),
        ({"hosts": "a", "workers": "1,a"}, "-w 1,a: names a host twice"),
        ({"hosts": "a", "workers": ""}, "-w : is no host"),
        ({"hosts": "a", "name": "No Good"}, "--name: 'No Good' can't be a deployment's name"),
        ({"hosts": "a", "remote_dir": "x"}, "-r: 'x' is no folder"),
        ({"hosts": None}, "no hosts are named; name them with -a"),
    ],
)
def test_options_that_are_wrong(options: dict[str, str], says: str) -> None:
    with pytest.raises(SweepError) as caught:
        from_options(**options)
    assert says in str(caught.value) and "\n" not in str(caught.value)


BASE = Deployment(
    "lab",
    (Host("a", "a", mounts=("/d:/d",)), Host("b", "b", "ada", 22), Host("c", "c")),
    "b",
    ("a", "b"),
    build=Build(base="mine:1"),
)


def test_options_over_a_configuration() -> None:
    assert from_options(None, base=BASE) == BASE
    assert from_options(None, workers="3", base=BASE) == replace(BASE, workers=("c",))
    assert from_options("a,b,c", base=BASE) == BASE
    made = from_options("eve@a,d", base=BASE)
    assert made.hosts == (replace(BASE.hosts[0], user="eve"), Host("d", "d"))
    assert (made.head, made.workers, made.build) == ("a", ("a", "d"), BASE.build)
    assert from_options("c", base=BASE).workers == ("c",)
    assert local_deployment(base=BASE).build == BASE.build


def test_what_a_change_would_drop() -> None:
    assert differences(BASE, BASE) == []
    new = from_options("a:23,c", workers="2", base=BASE)
    assert differences(BASE, new) == [
        "drops the host b",
        "moves the head from b to a, without its sweeps",
        "takes the worker from a",
        "reaches a at a:23, not at a",
    ]
    assert differences(BASE, replace(BASE, remote_dir="/x")) == [
        "moves its files on the hosts from ~/.sweepfw to /x"
    ]
