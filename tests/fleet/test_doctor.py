"""All that stands in the way, at once, each with what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_world import HOST1, HOST2, TWO, UID, facts

from sweepfw.core.deployment import LOCAL, Deployment, Host
from sweepfw.core.gpus import Gpu
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet.doctor import Case, Complaint, complaints
from sweepfw.fleet.facts import Container, Docker, Facts, Reach
from sweepfw.fleet.look import Seen, Way, way
from sweepfw.shell.host_keys import ChangedKeyError

WAYS = {"host2": Way("10.0.0.2", 22, "lab")}
SEEN = {"host2": Reach(True, ("ssh-ed25519 AAAA2",))}
GPUS = (Gpu(0, "GPU-1", "NVIDIA A100", 40 << 30, 0),)


def found(
    deployment: Deployment = TWO,
    first: Facts | SweepError | None = None,
    second: Facts | SweepError | None = None,
    *,
    reach: dict[str, Reach] = SEEN,
    ways: dict[str, Way] = WAYS,
    **case: object,
) -> list[Complaint]:
    looks = {"host1": first or facts(1), "host2": second or facts(2)}
    good = {name: each for name, each in looks.items() if isinstance(each, Facts)}
    bad = {name: each for name, each in looks.items() if isinstance(each, SweepError)}
    return complaints(Case(deployment, UID, Seen(good, bad, reach), ways, **case))  # type: ignore[arg-type]


def one(*arguments: object, **options: object) -> Complaint:
    [complaint] = found(*arguments, **options)  # type: ignore[arg-type]
    return complaint


def on_second(**changes: object) -> Complaint:
    return one(second=facts(2, **changes))


def test_nothing_to_complain_about() -> None:
    assert found() == []


def docker(**changes: object) -> Docker:
    return replace(facts().docker, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "what", "do"),
    [
        (Docker(), "not installed", "scripts/install_docker.sh 10.0.0.2"),
        (docker(error="permission denied while trying"), "user lab may not", "usermod -aG docker lab"),
        (docker(error="Cannot connect to the Docker daemon"), "does not answer", "start it"),
        (docker(podman=True), "Podman", "scripts/install_docker.sh 10.0.0.2"),
        (docker(rootless=True), "rootless", "docker context use default"),
        (docker(version="18.09.1"), "18.09.1 is too old", "20.10"),
        (docker(disk_free=2_000_000_000), "2.0 GB free", "make room"),
    ],
)
def test_docker(engine: Docker, what: str, do: str) -> None:
    complaint = on_second(docker=engine)
    assert complaint.host == "host2" and complaint.fatal
    assert what in complaint.what and do in complaint.do


def test_missing_buildx_matters_only_where_nobody_else_builds() -> None:
    lacking = docker(buildx=False)
    assert not on_second(docker=lacking).fatal
    both = found(first=facts(1, docker=lacking), second=facts(2, docker=lacking))
    assert [each.fatal for each in both] == [True, True]
    assert found(second=facts(2, docker=lacking), images={"host2": True}) == []
    alone = found(second=facts(2, docker=lacking, arch="aarch64"))
    assert any(each.fatal and "buildx" in each.what for each in alone)


def test_little_room_is_enough_for_a_host_that_has_the_image() -> None:
    engine = docker(disk_free=2_000_000_000)
    assert not one(second=facts(2, docker=engine), images={"host2": True}).fatal
    assert one(second=facts(2, docker=docker(disk_free=100_000_000)), images={"host2": True}).fatal


@pytest.mark.parametrize(
    ("changes", "what", "fatal"),
    [
        ({"memory": 1_500_000_000}, "1.5 GB of memory", False),
        ({"memory": 500_000_000}, "0.5 GB of memory", True),
        ({"offset": -7.2}, "7 s behind", False),
        ({"offset": 3600.0}, "3600 s ahead", False),
        ({"machine_id": ""}, "no /etc/machine-id", True),
        ({"disk_free": 1000}, "disk of /home/lab/.sweepfw is full", True),
        ({"over_quota": True}, "over quota", True),
        ({"missing_mounts": ("/data",)}, "no /data", True),
        ({"nvidia": 2}, "2 NVIDIA GPUs without a driver", False),
        ({"gpu_error": "Unable to determine the device handle"}, "Unable to determine", False),
        ({"gpus": GPUS}, "1 GPU, but containers don't get them", True),
        ({"host_keys": ()}, "host keys", True),
    ],
)
def test_hosts(changes: dict[str, object], what: str, fatal: bool) -> None:
    complaint = on_second(**changes)
    assert what in complaint.what and complaint.do and complaint.fatal is fatal


def test_what_is_worth_knowing_and_all_right() -> None:
    assert on_second(home_type="nfs4") == Complaint(
        "host2", "its home lies on a network (nfs4)", "", fatal=False, note=True
    )
    assert on_second(arch="aarch64").note


def test_gpus_that_the_configuration_names() -> None:
    named = replace(TWO, hosts=(HOST1, replace(HOST2, gpus=("GPU-9",))))
    runtime = docker(runtimes=("nvidia",))
    assert "no GPU GPU-9" in one(named, second=facts(2, gpus=GPUS, docker=runtime)).what
    without = replace(TWO, hosts=(HOST1, replace(HOST2, gpus=())))
    assert found(without, second=facts(2, gpus=GPUS, nvidia=1)) == []
    headless = replace(TWO, workers=("host2",))
    assert found(headless, first=facts(1, gpus=GPUS)) == []  # no worker, no GPUs needed


def test_unreachable() -> None:
    failure = UnreachableError("host2: no answer from 10.0.0.2, port 22, within 10 s; is it on?")
    complaint = one(second=failure)
    assert complaint == Complaint(
        "host2", "no answer from 10.0.0.2, port 22, within 10 s", "is it on?", unreachable=True, away=True
    )
    assert not one(second=SweepError("host2: odd; do this")).unreachable
    assert not one(second=ChangedKeyError("host2: ITS KEY HAS CHANGED")).away  # nobody goes on without it


@pytest.mark.parametrize(
    ("reach", "what"),
    [
        (Reach(False), "gets no answer from sshd at 10.0.0.2, port 22"),
        (Reach(True, ("ssh-ed25519 OTHER",)), "another machine answers"),
    ],
)
def test_from_the_head(reach: Reach, what: str) -> None:
    complaint = one(reach={"host2": reach})
    assert what in complaint.what and "address_from_head" in complaint.do and complaint.fatal


def test_a_head_without_ssh_keyscan_can_only_say_that_something_answers() -> None:
    assert found(reach={"host2": Reach(True)}) == []


def test_this_machine_as_a_worker_needs_an_address() -> None:
    local = replace(TWO, hosts=(HOST1, Host("host2", LOCAL)))
    assert "no address for this machine" in one(local, ways={}, reach={}).what
    assert found(replace(local, head="host2"), ways={"host1": WAYS["host2"]}, reach={}) == []


def test_one_machine_under_two_names() -> None:
    complaint = one(second=facts(1), reach={"host2": Reach(True)}, ways=WAYS)
    assert complaint.host == "host2" and "same machine-id as host1" in complaint.what and complaint.fatal


def test_other_deployments() -> None:
    rows = (Container("sweepfw-old-0badca-worker", "running", "Up", "0badca99", "worker", "", ""),)
    stranger = on_second(containers=rows)
    assert "deployment of others (old-0badca)" in stranger.what and stranger.note
    mine = one(second=facts(2, containers=rows), known={"0badca99": "old"})
    assert "deployment old" in mine.what and "--on old" in mine.do


def test_all_at_once_in_the_order_of_the_hosts() -> None:
    told = found(first=facts(1, docker=Docker(), offset=9.0), second=facts(2, memory=1, nvidia=1))
    assert [each.host for each in told] == ["host1", "host1", "host2", "host2"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, Way("10.0.0.2", 2222, "lab")),
        ("10.9.9.9", Way("10.9.9.9", 2222, "lab")),
        ("gpu2:22", Way("gpu2", 22, "lab")),
        ("ada@gpu2", Way("gpu2", 2222, "ada")),
        ("ada@[fe80::7]:24", Way("fe80::7", 24, "ada")),
        ("fe80::7", Way("fe80::7", 2222, "lab")),
    ],
)
def test_address_from_head(address: str | None, expected: Way) -> None:
    assert way(replace(HOST2, address_from_head=address), "10.0.0.2", 2222, "lab") == expected
