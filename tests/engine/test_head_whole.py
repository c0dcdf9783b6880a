"""The head as its container starts it, with real workers on a real broker, and everything that may fail."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from broker_lab import UID, Broker, Line
from ports import free_port
from worker_lab import TOKENS, WorkerLab, make_certificate, until

from sweepfw import snapshot as snapshots
from sweepfw.core.broker import HEAD
from sweepfw.core.deployment import HeadSettings
from sweepfw.core.model import Draft, Spec, Sweep
from sweepfw.core.values import Number
from sweepfw.errors import SweepError
from sweepfw.ledger.client import Client, HttpDesk, HttpLedger
from sweepfw.snapshot import transfer

SERVICE = [sys.executable, "-m", "sweepfw.engine.service"]
# The same, with all the time that a slow machine needs to end in order.
PATIENT = """
import runpy, threading
timer = threading.Timer
threading.Timer = lambda seconds, *given: timer(20 * seconds, *given)
runpy.run_module("sweepfw.engine.service", run_name="__main__", alter_sys=True)
"""


class HeadProcess:
    """`python -m sweepfw.engine.service head`, reached through a line that can be cut."""

    def __init__(self, folder: Path, broker: Broker, *, lease: float = 300, renew: float = 1) -> None:
        self.folder, self.broker, self.renew = folder, broker, renew
        make_certificate(folder)
        self.port = free_port()
        self.line = Line(("127.0.0.1", self.port))
        self.settings = HeadSettings(
            deployment="lab",
            uid=UID,
            broker=broker.address(HEAD),
            certificate=str(folder / "certificate.pem"),
            key=str(folder / "key.pem"),
            people="people-secret",
            workers=TOKENS,
            lease=lease,
            renew=renew,
        )
        self.set()
        self.log = folder / "head.log"
        self.client = Client(
            lambda: socket.create_connection(("127.0.0.1", self.port), timeout=10),
            (folder / "certificate.pem").read_text(),
            "people-secret",
            patience=60,
        )
        self.ledger, self.desk = HttpLedger(self.client), HttpDesk(self.client)
        self.process: subprocess.Popen[bytes] | None = None

    def set(self, **changed: Any) -> None:
        """For heads that start from now on."""
        self.settings = self.settings._replace(**changed)
        (self.folder / "settings.json").write_text(json.dumps(self.settings._asdict()))

    def command(self, *more: str) -> list[str]:
        settings, state = self.folder / "settings.json", self.folder / "state"
        state.mkdir(exist_ok=True)
        given = ("--settings", str(settings), "--state", str(state), "--port", str(self.port))
        return [sys.executable, "-c", PATIENT, "head", *given, *more]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        until(self.healthy, what=lambda: f"a healthy head: {self.log.read_text()}")

    def healthy(self) -> bool:
        return subprocess.run(self.command("--health"), timeout=90).returncode == 0

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def submit(self, script: str, trials: int) -> Sweep:
        project, store = self.folder / f"project-{time.monotonic_ns()}", self.folder / "store"
        project.mkdir()
        (project / "trial.sh").write_text(f'export "$1"\n{script}\n')
        frozen = snapshots.freeze(project, store, 10**9)
        digests = transfer.listed(store, frozen.id)
        self.desk.put_contents(transfer.reader(transfer.pack(store, self.desk.lacks(digests))))
        self.desk.put_manifest(frozen.id, snapshots.manifest(store, frozen.id).read_bytes())
        spec = Spec("p", "t", ("bash", "trial.sh"), flags="bare", grace=1, max_failures=None)
        return self.ledger.submit(
            spec, frozen.id, [Draft({"i": Number(str(i))}) for i in range(1, trials + 1)]
        )

    def done(self, sweep: Sweep) -> bool:
        return self.ledger.sweep(sweep.uid).state == "done"

    def count(self, sweep: Sweep, state: str = "succeeded") -> int:
        return self.ledger.sweep(sweep.uid).counts.get(state, 0)


@pytest.fixture
def head(broker: Broker, tmp_path: Path) -> Iterator[HeadProcess]:
    found = HeadProcess(tmp_path, broker)
    found.start()
    yield found
    found.client.close()
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


@pytest.fixture
def workers(head: HeadProcess) -> Iterator[list[WorkerLab]]:
    found = [WorkerLab(head, host) for host in TOKENS]  # type: ignore[arg-type]  # all that it uses is there
    until(lambda: sum(each.alive for each in head.desk.status().workers) == len(found), what="workers")
    yield found
    for worker in found:
        worker.stop()


def runs(folder: Path) -> Counter[str]:
    """How often each trial was begun, as the trials themselves noted it."""
    return Counter((folder / "begun").read_text().split())


def note(folder: Path) -> str:
    return f"echo $i >>{folder}/begun"


def test_only_one_head_holds_a_ledger(head: HeadProcess) -> None:
    second = subprocess.run(head.command(), capture_output=True, text=True, timeout=60)
    assert second.returncode == 75
    assert second.stderr.count("\n") == 1 and "another head holds this ledger" in second.stderr
    assert head.healthy()


def test_it_ends_soon_though_somebody_waits_for_an_answer(
    head: HeadProcess, workers: list[WorkerLab]
) -> None:
    sweep = head.submit("sleep 600", 1)
    until(lambda: head.count(sweep, "running") == 1)

    def wait() -> None:
        with suppress(SweepError):
            head.desk.read_log(sweep.uid, 1, 1, 0, wait=250)

    threading.Thread(target=wait, daemon=True).start()
    time.sleep(1)
    head.end()
    assert head.process is not None and head.process.returncode == 0
    assert not head.healthy()
    assert "head: ended" in head.log.read_text()
    for worker in workers:
        worker.kill()  # it would try for long to tell of its trial


def test_another_certificate_is_not_taken_for_health(head: HeadProcess, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificate(other)
    settings = head.settings._replace(certificate=str(other / "certificate.pem"))
    (head.folder / "settings.json").write_text(json.dumps(settings._asdict()))
    assert not head.healthy()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "usage:"),
        (("nobody",), "nobody: usage:"),
        (("head", "--port", "x"), "usage:"),
        (("head", "--settings", "/nowhere/settings.json"), "can't be read"),
        (("head", "--settings", "/proc/self/cmdline"), "holds no HeadSettings"),
    ],
)
def test_bad_words_get_one_line(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run([*SERVICE, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr and done.stderr.count("\n") == 1


def test_no_secret_is_in_its_log_or_its_process(head: HeadProcess, workers: list[WorkerLab]) -> None:
    sweep = head.submit("echo hello", 2)
    until(lambda: head.done(sweep))
    assert head.process is not None
    told = head.log.read_bytes() + Path(f"/proc/{head.process.pid}/cmdline").read_bytes()
    told += Path(f"/proc/{head.process.pid}/environ").read_bytes()
    for secret in (b"people-secret", *(token.encode() for token in TOKENS.values()), b"head-secret"):
        assert secret not in told
    mode = (head.folder / "state/.sweepfw/ledger.db").stat().st_mode
    assert mode & 0o077 == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_trials_do_not_notice_that_the_head_is_started_anew(
    head: HeadProcess, workers: list[WorkerLab], tmp_path: Path, how: int
) -> None:
    go = tmp_path / "go"
    sweep = head.submit(f"{note(tmp_path)}\nuntil [ -e {go} ]; do sleep 0.1; done\necho done", 8)
    until(lambda: head.count(sweep, "running") == 4)
    head.end(how)
    time.sleep(1)
    head.start()
    go.touch()
    until(lambda: head.done(sweep), 90)
    assert head.count(sweep) == 8
    assert set(runs(tmp_path).values()) == {1}


@pytest.mark.slow
def test_no_trial_is_lost_or_doubled_whatever_fails_between_broker_head_and_workers(
    head: HeadProcess, workers: list[WorkerLab], broker: Broker, tmp_path: Path
) -> None:
    """One sweep, and one failure after the other while it runs. No lease runs out here, so that every trial
    must have begun exactly once. So many trials may end at a time that some are left for each failure."""
    may, draft = tmp_path / "may", tmp_path / "draft"
    allowed = 0

    def allow(more: int) -> None:
        nonlocal allowed
        allowed += more
        draft.write_text(f"{allowed}\n")
        draft.replace(may)

    allow(10)
    turn = f"until [ $i -le $(cat {may}) ]; do sleep 0.1; done"
    sweep = head.submit(f"{note(tmp_path)}\n{turn}\nsleep 0.$((RANDOM % 9 + 1))\necho $i", 160)
    until(lambda: head.count(sweep) > 5)

    def half_open() -> None:
        with broker.line.frozen():
            time.sleep(12)

    def link_cut() -> None:
        head.line.cut()
        head.line.freeze()
        time.sleep(6)
        head.line.thaw()

    def new_head() -> None:
        head.end(signal.SIGKILL)
        head.start()

    faults = {
        "connections closed": broker.close_connections,
        "broker restarted": broker.restart,
        "half-open": half_open,
        "broker wiped": lambda: broker.restart(wiped=True),
        "head killed": new_head,
        "link cut": link_cut,
    }
    for name, fail in faults.items():
        allow(12)
        fail()
        before = head.count(sweep)
        allow(12)
        until(lambda least=before + 5: head.count(sweep) >= least, 90, f"trials going on after: {name}")
        print(f"{name}: {before} -> {head.count(sweep)} trials", flush=True)
    allow(160)
    until(lambda: head.done(sweep), 180, "the end")
    assert head.count(sweep) == 160
    assert runs(tmp_path) == Counter(str(n) for n in range(1, 161))
    attempts = list(head.ledger.attempts(sweep.uid))
    assert len(attempts) == 160
