"""What `infra status` makes of the answers: complaints, JSON, the picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sweepfw import __version__
from sweepfw.cli.infra_status import picture
from sweepfw.cli.terminal import Screen
from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import Advert, Deployment, HeadStatus, Host, WorkerStatus
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Worker
from sweepfw.errors import UnreachableError
from sweepfw.fleet.remains import Container, Remains
from sweepfw.fleet.status import HostStatus, Status, gather, roles, to_json
from sweepfw.shell.local import LocalShell

DEPLOYMENT = Deployment("lab", (Host("gpu1", "gpu1"), Host("gpu2", "gpu2")), "gpu1", ("gpu1", "gpu2"))


def remains(*roles: str, broken: str = "", free: int = 10**11, gpus: tuple[Gpu, ...] = ()) -> Remains:
    containers = tuple(
        Container(
            f"sweepfw-lab-012345-{role}",
            role,
            "exited" if role == broken else "running",
            "Exited (1)" if role == broken else "Up 3 hours (healthy)",
            "sweepfw:1f",
        )
        for role in roles
    )
    found = Remains("1000:1000", "m", True, "26.1.5", containers=containers)
    return found._replace(disk_free=free, gpus=gpus)


def worker(host: str, **changed: object) -> WorkerStatus:
    advert = Advert(2, 2.0, 8 * 10**9, version=__version__)
    found = WorkerStatus(Worker(host, "boot"), advert, True, 0.5, running=(("digits-1", 3, 1, "0"),))
    return replace(found, **changed)  # type: ignore[arg-type]


def head(**changed: object) -> HeadStatus:
    found = HeadStatus("lab", "0123456789ab", __version__, 1000.0, True, 7, 2, 10**10)
    return replace(found, **changed)  # type: ignore[arg-type]


def well() -> Status:
    hosts = (
        HostStatus(
            "gpu1", roles(DEPLOYMENT, "gpu1"), remains(*roles(DEPLOYMENT, "gpu1")), worker=worker("gpu1")
        ),
        HostStatus("gpu2", ("worker",), remains("worker"), worker=worker("gpu2")),
    )
    return Status(DEPLOYMENT, "0123456789ab", hosts, head())


def with_second(**changed: object) -> list[str]:
    found = well()
    second = replace(found.hosts[1], **changed)  # type: ignore[arg-type]
    return replace(found, hosts=(found.hosts[0], second)).complaints()


def test_who_should_run_what() -> None:
    assert roles(DEPLOYMENT, "gpu1") == ("rabbitmq", "head", "flower", "tunnel", "worker")
    assert roles(DEPLOYMENT, "gpu2") == ("worker",)
    assert "tunnel" not in roles(replace(DEPLOYMENT, workers=("gpu1",)), "gpu1")
    assert roles(replace(DEPLOYMENT, workers=("gpu2",)), "gpu1")[-1] == "tunnel"


def test_all_is_well() -> None:
    assert well().complaints() == []


def test_each_thing_that_is_wrong_is_a_line_that_says_what_to_do() -> None:
    assert with_second(remains=None, problem="gpu2: no route to host") == ["gpu2: no route to host"]
    assert with_second(remains=remains()) == [
        "gpu2: worker is not there; `sweepfw infra up` brings it up again"
    ]
    [line] = with_second(remains=remains("worker", broken="worker"))
    assert line == "gpu2: worker is exited; `sweepfw infra logs gpu2 worker` tells why"
    assert "0.1 GB free" in with_second(remains=remains("worker", free=10**8))[0]
    assert "has not announced itself" in with_second(worker=None)[0]
    assert "last heard of 61 s ago" in with_second(worker=worker("gpu2", alive=False, seen=61.0))[0]
    assert "drained" in with_second(worker=worker("gpu2", draining=True))[0]
    assert with_second(remains=Remains(installed=True)) == ["gpu2: Docker does not answer; start it there"]


def test_what_the_head_knows_is_told() -> None:
    found = replace(
        well(), head=head(broker=False, extra={"unmet": {"digits-2": "needs 4 GPUs"}}, version="0.0")
    )
    assert found.complaints() == [
        "the head has no connection to the broker; it tries again by itself",
        "digits-2: no host can run its trials: needs 4 GPUs",
        f"the head runs sweepfw 0.0, here is {__version__}; `sweepfw infra up` makes them the same",
    ]


def test_gpus_that_others_use_are_said_to_be() -> None:
    gpus = (
        Gpu(0, "GPU-a", "RTX", 24 << 30, 5 << 30, (77,)),
        Gpu(1, "GPU-b", "RTX", 24 << 30, 8 << 30, (78,)),
    )
    host = HostStatus("gpu2", ("worker",), remains("worker", gpus=gpus)._replace(ours=frozenset({77})))
    assert [taken for _, taken in host.gpus] == [None, "GPU 1 (RTX) is used by process 78"]


def test_json_is_whole_and_plain() -> None:
    told = json.loads(json.dumps(to_json(well())))
    assert told["head"]["queued"] == 7
    assert told["hosts"][1]["containers"][0]["health"] == "healthy"
    assert told["hosts"][1]["worker"]["running"] == [
        {"sweep": "digits-1", "trial": 3, "attempt": 1, "slot": "0"}
    ]
    assert to_json(replace(well(), head=None, problem="gpu1: no answer"))["head"] is None


def test_the_picture_shows_hosts_trials_and_what_is_wrong() -> None:
    found = well()
    silent = replace(found.hosts[1], remains=None, problem="gpu2: no route to host", worker=None)
    shown = "\n".join(picture(replace(found, hosts=(found.hosts[0], silent)), Screen(), 1060.0))
    assert "lab  head on gpu1, 2 hosts" in shown
    assert "2 running, 7 queued" in shown
    assert "5 running" in shown
    assert "can't be reached" in shown
    assert "digits-1/3" in shown
    assert shown.splitlines()[-1] == "! gpu2: no route to host"
    assert "the head does not answer" in "\n".join(picture(replace(found, head=None), Screen(), 0.0))


def test_nothing_that_does_not_answer_makes_it_fail(tmp_path: Path) -> None:
    state = DeploymentState(tmp_path, "0123456789ab", DEPLOYMENT)

    def unreachable(*_: object) -> LocalShell:
        raise UnreachableError("gpu: no route to host")

    @contextmanager
    def dead(_: DeploymentState) -> Iterator[None]:
        raise UnreachableError("gpu1: the head does not answer")
        yield

    found = gather(state, open=unreachable, connect=dead)  # type: ignore[arg-type]
    assert found.head is None
    assert found.complaints() == ["gpu1: the head does not answer", *["gpu: no route to host"] * 2]
    here = gather(state, open=lambda *_: LocalShell(), connect=dead)  # type: ignore[arg-type]
    assert all(host.remains is not None for host in here.hosts)
