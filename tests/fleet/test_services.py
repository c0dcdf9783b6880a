"""What containers are given: rights, secrets, mounts, GPUs, the tunnel's lines."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fleet_world import HOST1, HOST2, TWO, UID, credentials, empty, facts, wanted, world

from sweepfw.core.command import Secret
from sweepfw.core.deployment import Deployment
from sweepfw.core.gpus import Gpu
from sweepfw.fleet.containers import Wanted
from sweepfw.fleet.credentials import Credentials
from sweepfw.fleet.services import password, wishes
from sweepfw.fleet.tunnel_lines import End

A100 = tuple(Gpu(n, f"GPU-0000000{n}", "NVIDIA A100", 40 << 30, 0) for n in range(2))


def containers(deployment: Deployment = TWO, **changes: object) -> dict[str, Wanted]:
    """By host and role."""
    made = wanted(empty(deployment), deployment, **changes)
    return {f"{host}/{each.role}": each for host, wish in made.items() for each in wish.containers}


def settings(container: Wanted) -> dict[str, Any]:
    [data] = [file.data for file in container.files if file.path == "/etc/sweepfw/settings.json"]
    assert data
    found: dict[str, Any] = json.loads(data)
    return found


def values(options: tuple[str, ...], name: str) -> list[str]:
    return [value for option, value in pairwise(options) if option == name]


def secrets(found: Credentials) -> list[str]:
    texts = [getattr(found, name) for name in found.__slots__]  # type: ignore[attr-defined]
    texts += [part for worker in found.workers.values() for part in (worker.token, worker.host_key.private)]
    texts += [found.outer.private, found.inner.private]
    return [each.reveal() for each in texts if isinstance(each, Secret)]


def test_who_runs_where() -> None:
    assert list(containers()) == [
        *("host1/rabbitmq", "host1/head", "host1/flower", "host1/tunnel", "host1/worker", "host2/worker")
    ]
    alone = replace(TWO, hosts=(HOST1,), workers=("host1",))
    assert "host1/tunnel" not in containers(alone)


def test_no_container_has_a_right_that_its_account_lacks() -> None:
    for container in containers().values():
        argv = container.create().reveal()
        assert values(container.options, "--user") == ["1000:1000"]
        assert values(container.options, "--cap-drop") == ["ALL"]
        assert "no-new-privileges" in values(container.options, "--security-opt")
        assert not {"--privileged", "--cap-add", "-p", "--publish", "-P", "--device"} & set(argv)
        assert not any("docker.sock" in word for word in argv)
        assert "host" not in values(container.options, "--network")
        assert values(container.options, "--log-opt") == ["max-size=10m", "max-file=3"]


def test_no_secret_is_in_a_command_or_a_label() -> None:
    found = credentials("host1", "host2")
    hidden = [*secrets(found), *(password(found, host) for host in ("host1", "host2"))]
    assert len(hidden) > 12
    made = wanted(empty())
    for container in [each for wish in made.values() for each in wish.containers]:
        for command in (container.create(), container.fill(), container.start()):
            assert not any(secret in word for word in command.reveal() for secret in hidden)
    assert not any(secret.encode() in wish.readme for wish in made.values() for secret in hidden)


def test_each_worker_gets_its_own_credentials_and_no_other() -> None:
    found, made = credentials("host1", "host2"), containers()
    for mine, other in (("host1", "host2"), ("host2", "host1")):
        packed = made[f"{mine}/worker"].archive()
        assert found.workers[mine].token.reveal().encode() in packed
        hidden = (found.workers[other].token, found.people, found.broker_head, found.broker_worker)
        hidden += (found.flower_password, found.certificate_key, found.outer.private, found.inner.private)
        assert not any(secret.reveal().encode() in packed for secret in hidden)
        assert password(found, other).encode() not in packed


def test_files_in_the_container_belong_to_whom_they_are_for() -> None:
    made = containers()
    with tarfile.open(fileobj=io.BytesIO(made["host2/worker"].archive())) as tar:
        members = {member.name: (member.mode, member.uid, member.gid) for member in tar}
    assert members["etc/sweepfw"] == (0o755, 0, 0)
    assert members["etc/sweepfw/settings.json"] == (0o640, 0, 1000)  # read by the worker, written by nobody
    assert members["etc/sweepfw/host_key"] == (0o600, 10022, 10022)  # not read by trials
    assert members["home/lab"] == (0o700, 1000, 1000)
    with tarfile.open(fileobj=io.BytesIO(made["host1/tunnel"].archive())) as tar:
        assert tar.getmember("etc/sweepfw/outer").mode == 0o400


def test_addresses() -> None:
    """A worker on the head's host uses the network's names; one elsewhere the tunnel's ends."""
    made = containers()
    near, away = settings(made["host1/worker"]), settings(made["host2/worker"])
    assert near["broker"].endswith("@rabbitmq:5672/sweepfw") and near["service"] == ["head", 7443]
    assert away["broker"].endswith("@127.0.0.1:5672/sweepfw") and away["service"] == ["127.0.0.1", 7443]
    assert settings(made["host1/head"])["workers"].keys() == {"host1", "host2"}
    assert list(settings(made["host1/tunnel"])["lines"]) == ["host2"]
    assert values(made["host1/head"].options, "--network-alias") == ["head"]


def test_only_what_a_change_concerns_is_made_anew() -> None:
    before = {name: each.config for name, each in containers().items()}

    def changed(deployment: Deployment = TWO, **more: object) -> set[str]:
        after = containers(deployment, **more)
        return {name for name, each in after.items() if before.get(name) != each.config}

    assert changed() == changed(replace(TWO, workers=("host2", "host1"), lease=300, renew=20)) == set()
    assert changed(replace(TWO, hosts=(HOST1, replace(HOST2, slots=3)))) == {"host2/worker"}
    assert changed(replace(TWO, hosts=(HOST1, replace(HOST2, mounts=("/data:/data:ro",))))) == {
        "host2/worker"
    }
    assert changed(replace(TWO, lease=60)) == {"host1/head"}
    assert changed(replace(TWO, renew=5)) == {"host1/head", "host1/worker", "host2/worker"}
    assert changed(replace(TWO, build=replace(TWO.build, rabbitmq="rabbitmq:4.1"))) == {"host1/rabbitmq"}
    assert changed(owner="other@laptop") == set()
    ours = {"host1/head", "host1/flower", "host1/tunnel", "host1/worker", "host2/worker"}
    assert changed(ours="sweepfw:ffffffffffff") == ours


def test_the_kernel_counts_memory_a_bit_differently_after_each_start() -> None:
    one, other = (
        {host: replace(each, memory=size) for host, each in empty().items()}
        for size in (67_400_000_000, 67_410_000_000)
    )
    configs = [
        [each.config for wish in wanted(found).values() for each in wish.containers] for found in (one, other)
    ]
    assert configs[0] == configs[1]
    [shm] = values(wanted(one)["host2"].containers[0].options, "--shm-size")
    assert int(shm) == 31 << 30


def worker(host: object = HOST2, **changes: object) -> Wanted:
    deployment = replace(TWO, hosts=(HOST1, host))
    found = {"host1": facts(1), "host2": facts(2, **changes)}
    [container] = wanted(found, deployment)["host2"].containers
    return container


def test_gpus() -> None:
    runtime = replace(facts().docker, runtimes=("nvidia", "runc"))
    made = worker(gpus=A100, docker=runtime)
    assert values(made.options, "--runtime") == ["nvidia"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in values(made.options, "--env")
    one = replace(HOST2, gpus=("GPU-00000001",))
    made = worker(one, gpus=A100, docker=runtime)
    assert "NVIDIA_VISIBLE_DEVICES=GPU-00000001" in values(made.options, "--env")
    assert settings(made)["gpus"] == ["GPU-00000001"]
    none = worker(replace(HOST2, gpus=()), gpus=A100, docker=runtime)
    assert not values(none.options, "--runtime") and settings(none)["gpus"] == []
    hook = worker(one, gpus=A100, toolkit=("nvidia-container-runtime-hook",))
    assert values(hook.options, "--gpus") == ['"device=GPU-00000001"']
    assert not values(worker(gpus=A100).options, "--gpus")  # doctor says so


def test_mounts() -> None:
    host = replace(HOST2, mounts=("/data:/data:ro", "~/sets:/sets", "/a,b:/c"))
    made = worker(host)
    binds = [each for each in values(made.options, "--mount") if "type=bind" in each]
    assert binds == [
        "type=bind,source=/data,target=/data,readonly",
        "type=bind,source=/home/lab/sets,target=/sets",
        'type=bind,"source=/a,b",target=/c',
    ]
    assert settings(made)["mounts"] == ["/data", "/sets", "/c"]
    assert "label=disable" in values(worker(host, selinux="Enforcing").options, "--security-opt")
    assert "label=disable" not in values(worker(selinux="Enforcing").options, "--security-opt")


@pytest.mark.parametrize(("target", "made"), [("/home/lab", False), ("/home", False), ("/home/lab/x", True)])
def test_a_home_that_is_mounted_is_not_touched(target: str, made: bool) -> None:
    container = worker(replace(HOST2, mounts=(f"/home/lab:{target}",)))
    assert ("/home/lab" in [file.path for file in container.files]) is made


def test_root_and_odd_accounts() -> None:
    made = worker(uid=0, gid=0, user="root", group="root", home="/root", groups=(0,))
    text = {file.path: file.data for file in made.files}
    passwd = (text["/etc/passwd"] or b"").decode().splitlines()
    assert [line for line in passwd if line.startswith("root:")] == ["root:x:0:0::/root:/bin/sh"]
    odd = worker(user="DOMAIN\\ada:x", group="domain users")
    passwd = ({file.path: file.data for file in odd.files}["/etc/passwd"] or b"").decode().splitlines()
    assert all(line.count(":") == 6 for line in passwd)


def test_pip_and_certificates_reach_the_worker_as_files() -> None:
    made = containers(pip_conf=b"[global]\nindex-url = https://u:p@index\n", ca_bundle=b"PEM")
    files = {file.path: file for file in made["host2/worker"].files}
    assert files["/etc/pip.conf"].mode == 0o640 and files["/etc/sweepfw/ca.pem"].data == b"PEM"
    assert "PIP_CERT=/etc/sweepfw/ca.pem" in values(made["host2/worker"].options, "--env")
    assert "/etc/pip.conf" not in {file.path for file in made["host1/head"].files}


def test_the_key_line_leads_to_the_inner_sshd_alone() -> None:
    made = wanted(empty())
    line = made["host2"].key
    public = credentials("host1", "host2").outer.public
    assert made["host1"].key == ""
    assert line == (
        'restrict,command="/usr/bin/docker exec -i -u 10022:10022 sweepfw-t-c0ffee-worker '
        f'/usr/sbin/sshd -i -f /etc/sweepfw/sshd_config" {public} sweepfw:{UID}:00000000'
    )


def test_the_tunnels_ssh_trusts_pinned_keys_only(tmp_path: Path) -> None:
    """As OpenSSH itself understands the arguments."""
    tunnel = containers()["host1/tunnel"]
    arguments = settings(tunnel)["lines"]["host2"]
    told = _options(["ssh", "-G", *arguments])
    outer = shlex.split(told["proxycommand"])
    assert outer[0] == "ssh" and outer[-2:] == ["--", "10.0.0.2"]
    for options in (told, _options([*outer[:1], "-G", *outer[1:]])):
        assert options["stricthostkeychecking"] in ("true", "yes")
        assert options["userknownhostsfile"] == "/etc/sweepfw/known_hosts"
        assert options["globalknownhostsfile"] == "/dev/null"
        assert options["batchmode"] == "yes" and options["identitiesonly"] == "yes"
        assert (options["serveraliveinterval"], options["serveralivecountmax"]) == ("5", "2")
    assert told["exitonforwardfailure"] == "yes" and told["user"] == "tunnel"
    known = {file.path: file.data for file in tunnel.files}["/etc/sweepfw/known_hosts"] or b""
    assert b"host2 ssh-ed25519 KEY-host2\n" in known
    assert known.count(b"worker.host2 ssh-ed25519 ") == 1 and b"worker.host1" not in known


def _options(argv: list[str]) -> dict[str, str]:
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_a_host_that_does_not_answer_keeps_its_line_and_its_accounts() -> None:
    """`--skip-unreachable`: when it comes back it needs no `up`; and nothing is started anew for it."""
    both = containers()
    one = wishes(TWO, world({"host1": facts(1)}))
    assert list(one) == ["host1"]
    assert {each.role: each.config for each in one["host1"].containers} == {
        each.role: each.config for name, each in both.items() if name.startswith("host1/")
    }


def test_names_that_only_the_heads_host_knows(tmp_path: Path) -> None:
    """The container takes the name where it knows it, else the address that the head's host has for it."""
    (tmp_path / "ssh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ssh").chmod(0o755)

    def called(address: str, ip: str) -> str:
        made = containers(ends={"host2": End(address, 2222, "lab", ("ssh-ed25519 K",), ip)})
        arguments = settings(made["host1/tunnel"])["lines"]["host2"]
        command = _options(["ssh", "-G", *arguments])["proxycommand"]
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-c", f"exec {command}"], env=environment, capture_output=True, text=True
        ).stdout

    assert called("localhost", "192.168.7.2").endswith(" -p 2222 -l lab -- localhost\n")
    assert called("gpu2.invalid", "192.168.7.2").endswith(" -p 2222 -l lab -- 192.168.7.2\n")
    assert called("10.0.0.2", "").endswith(" -p 2222 -l lab -- 10.0.0.2\n")
