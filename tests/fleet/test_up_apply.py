"""Steps done: in order, side by side, the first failure named; and the wait for the workers."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from fleet_world import OURS, TWO, UID, empty, facts, wanted

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import Advert, HeadStatus, WorkerStatus
from sweepfw.core.model import Worker
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet import images
from sweepfw.fleet.apply import Doing, StepError, apply
from sweepfw.fleet.plan import Copy, Make, Run, Step, plan
from sweepfw.fleet.up import wait_for_workers
from sweepfw.shell.local import LocalShell
from sweepfw.shell.shell import Result


class Engine:
    """A shell on a host with a docker that only remembers what it was asked. `fail`: words of a command that
    does not work, `failures` how often that is. What a build says then is `said`."""

    def __init__(self, fail: str = "nothing like this", image: bytes = b"", failures: int = 99) -> None:
        self.said = "ERROR: process no hunter2 today did not complete successfully: exit code: 1"
        self.failures = failures
        self.ran: list[list[str]] = []
        self.inputs: list[bytes] = []
        self.fail, self.image = fail, image
        self.loaded = b""

    def run(self, command: Cmd, input: bytes = b"", timeout: float | None = None, **_: Any) -> Result:
        argv = command.reveal()
        self.ran.append(argv)
        self.inputs.append(input)
        if self.fail in " ".join(argv):
            return Result(1, b"", b"first line\nError response from daemon: no\n")
        return Result(0, b"[]\n")

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        self.ran.append(["put", path])

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Callable[[bytes], object] | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        argv = command.reveal()
        self.ran.append(argv)
        if self.fail in " ".join(argv) and self.failures:
            self.failures -= 1
            for line in ("#5 RUN pip", "", self.said):
                if on_line:
                    on_line(line)
            return Result(1, b"", b"no space left on device\n")
        if stdin is not None:
            self.loaded = stdin.read()
        if stdout is not None and self.image:
            for start in range(0, len(self.image), 1 << 16):
                stdout(self.image[start : start + (1 << 16)])
        return Result(0)


def doing(engines: dict[str, Engine], told: list[tuple[str, str]] | None = None, **secrets: bytes) -> Doing:
    dockers = {name: facts().docker for name in engines}
    context = {"Dockerfile": b"FROM base"}

    def progress(step: Step, state: str, detail: str = "") -> None:
        if told is not None:
            told.append((step.id, state))

    return Doing(engines, dockers, "base:1", context, secrets, progress)  # type: ignore[arg-type]


def test_all_of_a_plan() -> None:
    engines, told = {"host1": Engine(image=b"x" * (9 << 20)), "host2": Engine()}, []
    steps = plan(wanted(empty()), empty(), OURS, UID)
    apply(steps, doing(engines, told))
    assert "detail" in {state for _, state in told}
    assert sorted(id for id, state in told if state == "done") == sorted(step.id for step in steps)
    assert engines["host2"].loaded == b"x" * (9 << 20)
    for step in steps:
        for before in step.after:
            assert told.index((before, "done")) < told.index((step.id, "begun"))


def test_a_container_is_made_filled_and_then_started() -> None:
    engine = Engine()
    [worker] = wanted(empty())["host2"].containers
    doing({"host2": engine}).do(Step("host2/worker", "host2", "start worker", Make(worker, replace=True)))
    verbs = [argv[1] for argv in engine.ran]
    assert verbs == ["stop", "rm", "create", "cp", "start"]
    assert all(argv[0] == "/usr/bin/docker" for argv in engine.ran)
    with tarfile.open(fileobj=io.BytesIO(engine.inputs[3])) as tar:
        assert "etc/sweepfw/settings.json" in tar.getnames()


def test_a_container_that_could_not_be_filled_is_not_started() -> None:
    engine = Engine(fail="docker cp")
    [worker] = wanted(empty())["host2"].containers
    with pytest.raises(StepError, match=r"^host2: start worker: Error response from daemon: no$") as raised:
        doing({"host2": engine}).do(
            Step("host2/worker", "host2", "start worker", Make(worker, replace=False))
        )
    assert raised.value.lines == ("first line",) and raised.value.exit_code == 1
    assert [argv[1] for argv in engine.ran] == ["create", "cp"]


def test_the_first_failure_is_named_and_nothing_that_needs_it_begins() -> None:
    engines, told = {"host1": Engine(fail="network create"), "host2": Engine()}, []
    with pytest.raises(StepError, match="host1: make network sweepfw-t-c0ffee-net: Error response"):
        apply(plan(wanted(empty()), empty(), OURS, UID), doing(engines, told))
    begun = {id for id, state in told if state == "begun"}
    assert ("host1/network", "failed") in told and not begun & {
        "host1/rabbitmq",
        "host1/head",
        "host1/worker",
    }


@pytest.mark.parametrize("conf", [b"hunter2", b"[global]\nindex-url = https://me:hunter2@host/simple\n"])
def test_a_build_that_fails_tells_its_lines_without_secrets(conf: bytes) -> None:
    engine, details = Engine(fail="build"), list[str]()
    steps = [step for step in plan(wanted(empty()), empty(), OURS, UID) if step.what.startswith("build")]
    doer = doing({"host1": engine}, pip=conf)
    doer.progress = lambda step, state, detail="": details.append(detail)
    with pytest.raises(StepError, match=r"host1: build image .*: the build failed") as raised:
        apply(steps, doer)
    assert raised.value.lines == (
        "#5 RUN pip",
        "ERROR: process no *** today did not complete successfully: exit code: 1",
    )
    assert raised.value.lines[-1] in details and not any("hunter2" in detail for detail in details)
    assert len(engine.ran) == 1


@pytest.mark.parametrize("failures", [2, 3])
def test_a_build_that_met_one_left_behind_is_begun_again(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `up` was killed, and its build goes on in the engine; twice more at most."""
    engine = Engine(fail="build", failures=failures)
    engine.said = "ERROR: failed to solve: Unavailable: error reading from server: EOF"
    monkeypatch.setattr("sweepfw.fleet.apply._PAUSE", 0)
    [step] = [step for step in plan(wanted(empty()), empty(), OURS, UID) if step.what.startswith("build")]
    doer = doing({"host1": engine}, pip=b"hunter2")
    if failures == 2:
        apply([step], doer)
        assert engine.loaded == images.build_input(doer.context, doer.secrets)  # all of it, from its start
    else:
        with pytest.raises(StepError, match="the build failed"):
            apply([step], doer)
    assert len(engine.ran) == 3


@pytest.mark.parametrize("where", ["host1", "host2"])
def test_a_copy_that_fails_on_either_side_ends(where: str) -> None:
    engines = {"host1": Engine(image=b"x" * (4 << 20)), "host2": Engine()}
    engines[where].fail = "load" if where == "host2" else "save"
    if where == "host1":  # then nothing came, and the image is not there
        engines["host2"].fail = "image inspect --format {{.Id}}"
    step = Step("host2/image", "host2", "copy image", Copy(OURS, "host1"))
    with pytest.raises(StepError, match="host2: copy image: it did not arrive") as raised:
        doing(engines).do(step)
    assert "no space left on device" in raised.value.lines


def test_an_image_that_an_engine_takes_only_whole_is_sent_whole(tmp_path: Path) -> None:
    """With real pipes between real commands: a docker that refuses what lacks layers."""
    layer = f"sha256:{'a' * 64}"
    docker = tmp_path / "docker"
    docker.write_text(f"""#!/bin/sh
cd {tmp_path}
case "$1 $2" in
"save sweepfw:1") tar -c blobs ;;
"load --quiet") gunzip >got; tar -tf got | grep -q aaaa || {{ echo "lacks a layer" >&2; exit 1; }} ;;
"image inspect") case "$*" in *Layers*) echo '["{layer}"]';; *) test -e got;; esac ;;
"images -q") echo 1 ;;
esac
""")
    docker.chmod(0o755)
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64)).write_bytes(b"layer" * 1000)
    (blobs / ("b" * 64)).write_bytes(b"config")
    shells = {name: LocalShell() for name in ("host1", "host2")}
    engine = facts().docker.__class__(str(docker), version="26.1.5")
    work = Doing(shells, dict.fromkeys(shells, engine), "", {}, {}, lambda *_: None)
    assert work._known_layers(Step("s", "host2", "", Copy("sweepfw:1", "host1")), "sweepfw:1", "host1") == [
        layer
    ]
    work.do(Step("s", "host2", "copy", Copy("sweepfw:1", "host1")))
    with tarfile.open(tmp_path / "got") as tar:
        assert f"blobs/sha256/{'a' * 64}" in tar.getnames()


def test_authorized_keys_are_changed_by_one_at_a_time() -> None:
    """Hosts may share a home. Other steps go side by side: these wait for one another."""
    inside, most, lock = 0, 0, threading.Lock()
    pause: Callable[[], object] = partial(time.sleep, 0.05)

    class Slow(Engine):
        def run(self, command: Cmd, input: bytes = b"", timeout: float | None = None, **_: Any) -> Result:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            pause()
            with lock:
                inside -= 1
            return Result(0)

    from sweepfw.fleet.plan import Key

    engines: dict[str, Engine] = {f"host{n}": Slow() for n in range(4)}
    steps = [Step(f"{name}/key", name, "key", Key(cmd("sh"))) for name in engines]
    apply(steps, doing(engines))
    assert most == 1
    steps = [Step(f"{name}/run", name, "run", Run((cmd("sh"),))) for name in engines]
    pause = threading.Barrier(len(engines), timeout=60).wait
    apply(steps, doing(engines))
    assert most == len(engines)


# -- the wait --------------------------------------------------------------------------------------------


def status(*hosts: str, broker: bool = True, dead: tuple[str, ...] = ()) -> HeadStatus:
    workers = tuple(
        WorkerStatus(Worker(host, "b00"), Advert(2, 2.0), host not in dead, 0.1) for host in (*hosts, *dead)
    )
    return HeadStatus("t", UID, "0.1", 1.0, broker, 0, 0, None, workers)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(
    answers: list[HeadStatus | SweepError], patience: float = 10
) -> tuple[HeadStatus, list[list[str]]]:
    clock, heard = Clock(), []

    def ask() -> HeadStatus:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, SweepError):
            raise answer
        return answer

    return wait_for_workers(ask, TWO.workers, patience, heard.append, clock, clock.sleep), heard


def test_until_every_worker_has_answered() -> None:
    silent = UnreachableError("the head is not up yet")
    answers = [
        silent,
        status(),
        status("host1"),
        status("host1", "host2", broker=False),
        status("host1", "host2"),
    ]
    found, heard = waited(answers)
    assert len(found.workers) == 2
    assert heard == [["host1", "host2"], ["host2"], []]
    assert waited([status("host1", "host2")])[1] == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (UnreachableError("t: no answer"), "t: no answer within 10 s"),
        (status("host1"), "no answer from the worker on host2 within 10 s"),
        (status("host1", dead=("host2",)), "no answer from the worker on host2"),
        (status("host1", "host2", broker=False), "no connection to its broker"),
    ],
)
def test_patience_ends(answer: HeadStatus | SweepError, words: str) -> None:
    with pytest.raises(UnreachableError, match=words) as raised:
        waited([answer])
    assert raised.value.exit_code == 4
