"""A deployment for the benchmark, on this machine: a real broker, the head's and a worker's own processes.

Without containers and tunnel, so that what is measured is sweepfw, and a plain Celery task stands beside it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))
from broker_lab import UID, Broker, MissingError, free_port
from worker_lab import make_certificate

from sweepfw import snapshot as snapshots
from sweepfw.core import broker as names
from sweepfw.core.deployment import HeadSettings, WorkerSettings
from sweepfw.core.model import Draft, Spec, Sweep
from sweepfw.core.values import Number
from sweepfw.ledger.client import Client, HttpDesk, HttpLedger
from sweepfw.snapshot import transfer

HOST = "a"  # a name that the lab's broker knows
TRIAL = "/bin/echo"
TRIVIAL = Spec("p", "t", (TRIAL,))
MissingBrokerError = MissingError
_TICK = os.sysconf("SC_CLK_TCK")


class Deployment:
    """Head and worker, started by `started`. Their processes by role in `roots`."""

    def __init__(self, folder: Path, broker: Broker, slots: int) -> None:
        self.folder, self.broker, self.slots = folder, broker, slots
        make_certificate(folder)
        self.port = free_port()
        self.certificate = str(folder / "certificate.pem")
        self.client = Client(
            lambda: socket.create_connection(("127.0.0.1", self.port), timeout=10),
            Path(self.certificate).read_text(),
            "people-secret",
            patience=60,
        )
        self.ledger, self.desk = HttpLedger(self.client), HttpDesk(self.client)
        self.roots: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def started(self) -> Iterator[Deployment]:
        try:
            self.start("head", self._head())
            self.start("worker", self._worker(), "--state", str(self.folder / "worker"))
            until(lambda: any(worker.alive for worker in self.desk.status().workers))
            yield self
        finally:
            self.client.close()
            for role in ("worker", "head"):
                self.end(role)

    def start(self, role: str, settings: Any, *more: str) -> None:
        path = self.folder / f"{role}.json"
        path.write_text(json.dumps(settings._asdict()))
        (self.folder / role).mkdir(exist_ok=True)
        told = ("--settings", str(path), "--state", str(self.folder / role), "--port", str(self.port))
        with (self.folder / f"{role}.log").open("ab") as log:
            self.roots[role] = subprocess.Popen(
                [sys.executable, "-m", "sweepfw.engine.service", role, *told], stdout=log, stderr=log
            )

    def end(self, role: str) -> None:
        """Also again: does nothing then."""
        if (process := self.roots.pop(role, None)) is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _head(self) -> HeadSettings:
        return HeadSettings(
            "bench",
            UID,
            direct(self.broker, names.HEAD),
            self.certificate,
            str(self.folder / "key.pem"),
            "people-secret",
            {HOST: "worker-secret"},
        )

    def _worker(self) -> WorkerSettings:
        return WorkerSettings(
            "bench",
            UID,
            HOST,
            direct(self.broker, names.worker_user(HOST)),
            ("127.0.0.1", self.port),
            self.certificate,
            "worker-secret",
            slots=self.slots,
        )

    def submit(self, trials: int, spec: Spec = TRIVIAL) -> Sweep:
        """A sweep of the command with `--i=N`, and with a project of one file."""
        project, store = self.folder / "project", self.folder / "store"
        project.mkdir(exist_ok=True)
        (project / "parameters.yml").write_text("i: 1\n")
        frozen = snapshots.freeze(project, store, 10**9)
        digests = transfer.listed(store, frozen.id)
        self.desk.put_contents(transfer.reader(transfer.pack(store, self.desk.lacks(digests))))
        self.desk.put_manifest(frozen.id, snapshots.manifest(store, frozen.id).read_bytes())
        return self.ledger.submit(spec, frozen.id, drafts(trials))

    def wait(self, sweep: Sweep, seconds: float = 600) -> None:
        """Until it is done: all must have succeeded."""
        until(lambda: self.ledger.sweep(sweep.uid).state == "done", seconds, pause=0.1)
        counts = self.ledger.sweep(sweep.uid).counts
        if set(counts) != {"succeeded"}:
            raise SystemExit(f"not all trials succeeded: {dict(counts)}; logs: {self.folder}")

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each part has used; what the trials themselves used is `trials`."""
        worker = self.roots["worker"].pid
        keepers = [pid for pid in descendants(worker) if pid != worker]
        return {
            "worker": own(worker),
            "keepers": sum(map(own, keepers)),
            "trials": sum(map(children, keepers)),
            "head": own(self.roots["head"].pid),
            "broker": broker_cpu(self.broker),
        }


@contextmanager
def running(folder: Path, slots: int) -> Iterator[Deployment]:
    """A deployment in the folder, up to the end of the block. MissingBrokerError: there is no broker."""
    with Broker.find().running() as broker, Deployment(folder, broker, slots).started() as deployment:
        yield deployment


def drafts(count: int) -> Iterator[Draft]:
    return (Draft({"i": Number(str(number))}) for number in range(1, count + 1))


def direct(broker: Broker, user: str) -> str:
    """The broker's address without the tests' line, which costs CPU."""
    return names.address(user, broker.passwords[user], *broker.line.target)


def until(told: Callable[[], object], seconds: float = 60, *, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not told():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s")
        time.sleep(pause)


# -- what processes used -------------------------------------------------------------------------------


def own(pid: int) -> float:
    """Seconds of CPU of this process."""
    return sum(_times(pid)[:2]) / _TICK


def children(pid: int) -> float:
    """Seconds of CPU of its children that have ended."""
    return sum(_times(pid)[2:]) / _TICK


def _times(pid: int) -> tuple[int, ...]:
    with suppress(OSError):
        return tuple(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return (0, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    below: dict[int, list[int]] = {}
    for each in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parent = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1]
            below.setdefault(int(parent), []).append(int(each))
    found = [pid]
    for each in found:
        found += below.get(each, [])
    return found


def broker_cpu(broker: Broker) -> float:
    """Of this broker's Erlang machine: other brokers may run here."""
    return sum(map(own, broker_pids(broker)))


def broker_pids(broker: Broker) -> list[int]:
    process = getattr(broker, "_process", None)
    if process is not None:
        return descendants(process.pid)
    name = broker.folder.name
    told = subprocess.run(["docker", "top", name, "-o", "pid"], capture_output=True, text=True, check=True)
    return [int(line) for line in told.stdout.split()[1:]]
