"""What is asked of a host, how its answer is read, and what is removed: without any host."""

from __future__ import annotations

import json
from secrets import token_hex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.errors import SweepError
from sweepfw.fleet import remains, teardown
from sweepfw.fleet.remains import Container, Remains
from sweepfw.shell.fake import FakeShell
from sweepfw.shell.local import LocalShell
from sweepfw.shell.shell import Result

UID = "0123456789abcdef"


def row(**fields: str) -> str:
    return json.dumps(fields)


def answer(mark: str, **sections: str) -> str:
    names = (
        "who machine key folder command docker containers volumes networks images used mounts disk gpus "
        "processes owners failed end"
    )
    return "".join(f"\n@@{mark} {name}\n{sections.get(name, '')}\n" for name in names.split())


WHOLE = answer(
    "m1",
    who="1000\n1000",
    machine="4f9a0c11d2e3",
    key="1",
    folder="/home/lab/.sweepfw/lab-012345-4f9a0c11",
    command="/usr/bin/docker",
    docker="26.1.5",
    containers=row(
        ID="cafe" * 16,
        Names="sweepfw-lab-012345-worker",
        Labels=f"sweepfw.config=1f,sweepfw.deployment={UID},sweepfw.role=worker",
        State="running",
        Status="Up 3 hours (unhealthy)",
        Image="sweepfw:1f",
    ),
    volumes=row(Name="sweepfw-lab-012345-worker") + "\n" + row(Name="sweepfw-lab-012345-head"),
    networks=row(Name="sweepfw-lab-012345-net"),
    images=row(Repository="sweepfw", Tag="1f")
    + "\n"
    + row(Repository="sweepfw", Tag="2a")
    + "\n"
    + row(Repository="sweepfw", Tag="<none>"),
    used=f"{UID} sweepfw:1f\nother sweepfw:2a\n postgres:16",
    mounts="/sweepfw-lab-012345-worker sweepfw-lab-012345-worker /var/lib/sweepfw",
    disk="/dev/vda 264212084 26726032 79664880 26% /var/lib/docker",
    gpus="0, GPU-aa, RTX 3090, 24576, 14\n1, GPU-bb, RTX 3090, 24576, 9000",
    processes="GPU-aa, 77, 5000\nGPU-bb, 78, 8000",
    owners=f"77 0::/system.slice/docker-{'cafe' * 16}.scope \n78 0::/user.slice ",
)


def test_an_answer_is_read() -> None:
    found = remains.read("m1", UID, WHOLE)
    assert (found.user, found.docker, found.key, found.disk_free) == (
        "1000:1000",
        "26.1.5",
        True,
        79664880 * 1024,
    )
    [worker] = found.containers
    assert (worker.role, worker.health, worker.broken) == ("worker", "unhealthy", True)
    assert found.state_volume("worker") == "sweepfw-lab-012345-worker"
    assert found.state_volume("head") == "sweepfw-lab-012345-head"  # its container is gone
    assert found.state_volume("flower") is None
    assert found.shared == {"sweepfw:2a", "postgres:16"}
    assert found.ours == {77}
    assert [gpu.pids for gpu in found.gpus] == [(77,), (78,)]
    assert found.anything
    assert not found.silent


def test_nothing_can_pretend_to_be_a_section() -> None:
    forged = WHOLE.replace("\n@@m1 owners", "\n@@m2 key\n0\n@@m2 end\n\n@@m1 owners")
    assert remains.read("m1", UID, forged) == remains.read("m1", UID, WHOLE)


def test_a_question_that_docker_did_not_answer_leaves_doubt() -> None:
    assert remains.read("m1", UID, WHOLE.replace("failed\n", "failed\n volume\n")).silent


@pytest.mark.parametrize("torn", ["", "Welcome!\n", WHOLE[: len(WHOLE) // 2], WHOLE.replace("m1", "m2")])
def test_half_an_answer_is_none(torn: str) -> None:
    with pytest.raises(SweepError, match="not whole"):
        remains.read("m1", UID, torn)


@given(st.integers(0, 40), st.text(max_size=30))
def test_odd_lines_in_it_are_no_failure(at: int, odd: str) -> None:
    lines = WHOLE.splitlines()
    lines.insert(1 + at % (len(lines) - 1), odd.replace("@", ""))
    found = remains.read("m1", UID, "\n".join(lines))
    assert len(found.containers) == 1


def test_the_question_is_answered_by_a_real_shell() -> None:
    uid = token_hex(16)  # which nothing on this machine has
    done = LocalShell().run(remains.question("m1", "lab", uid, "~/.sweepfw", gpus=True))
    found = remains.read("m1", uid, done.text)
    assert found.user.count(":") == 1
    assert not found.anything


def test_a_host_with_nothing_of_ours_needs_nothing() -> None:
    assert teardown.removal(Remains(docker="26", installed=True), UID) == []


def test_what_is_removed_and_in_which_order() -> None:
    steps = teardown.removal(remains.read("m1", UID, WHOLE), UID)
    assert [step.what for step in steps] == [
        "the line in authorized_keys",
        "containers",
        "networks",
        "volumes",
        "images",
        "the folder",
    ]
    said = [step.command.reveal() for step in steps]
    assert said[0][-2:] == [f"sweepfw:{UID}:4f9a0c11", ""]
    assert said[1] == ["docker", "rm", "-f", "-v", "sweepfw-lab-012345-worker"]
    assert said[2] == ["docker", "network", "rm", "sweepfw-lab-012345-net"]
    assert said[3] == ["docker", "volume", "rm", "sweepfw-lab-012345-worker", "sweepfw-lab-012345-head"]
    assert said[4] == ["docker", "image", "rm", "sweepfw:1f"]  # 2a is another deployment's
    assert said[5][-1] == "/home/lab/.sweepfw/lab-012345-4f9a0c11"


def test_what_can_not_be_removed_is_named_and_an_image_may_stay() -> None:
    found = Remains(docker="26", installed=True, networks=("n",), images=("sweepfw:1f",))
    shell = FakeShell({"docker network rm*": "", "docker image rm*": Result(1, b"", b"in use\n")})
    teardown.remove(shell, found, UID, "gpu1")
    shell = FakeShell({"docker network rm*": Result(1, b"", b"network n has active endpoints\n")})
    with pytest.raises(SweepError, match=r"gpu1: networks can't be removed \(network n has"):
        teardown.remove(shell, found, UID, "gpu1")


def test_a_silent_engine_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(SweepError, match="gpu1: Docker does not answer"):
        teardown.remove(FakeShell({}), Remains(installed=True), UID, "gpu1")


def test_only_containers_of_the_roles_that_run_are_stopped() -> None:
    containers = tuple(
        Container(f"c-{role}", role, state, "", "sweepfw:1f")
        for role, state in (("worker", "running"), ("head", "running"), ("flower", "exited"))
    )
    shell = FakeShell({"docker stop*": ""})
    found = Remains(docker="26", installed=True, containers=containers)
    teardown.stop(shell, found, "gpu1", ("worker",))
    teardown.stop(shell, found, "gpu1", ("flower", "head"))
    teardown.stop(shell, found, "gpu1", ("rabbitmq",))
    assert [words[4:] for words in shell.ran] == [("c-worker",), ("c-head",)]
