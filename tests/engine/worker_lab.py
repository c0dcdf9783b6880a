"""A head in this process and workers as processes of their own, as hosts would run them, on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from broker_lab import UID, Broker, Line

from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.broker import HEAD, worker_user
from sweepfw.core.deployment import WorkerSettings
from sweepfw.core.model import Attempt, Draft, Environment, Spec, Sweep
from sweepfw.core.values import Number
from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler
from sweepfw.ledger.service import Service

TOKENS = {"a": "token-a", "b": "token-b"}
START = """
import json, sys, faulthandler, signal; faulthandler.register(signal.SIGUSR2)
from pathlib import Path
from sweepfw.core.deployment import WorkerSettings
from sweepfw.engine import worker
told = json.loads(Path(sys.argv[1]).read_text())
told["service"] = tuple(told["service"])
worker.PARTING = float(sys.argv[3])
worker.main(WorkerSettings(**told), Path(sys.argv[2]))
"""


def make_certificate(folder: Path) -> None:
    """A self-signed certificate and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "head")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "certificate.pem").write_bytes(signed.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(private)


class HeadLab:
    """The head's parts, put together as the head does. Its service is reached through a line to cut. No lease
    runs out because a machine is slow."""

    def __init__(self, folder: Path, broker: Broker, *, lease: float = 300, renew: float = 1) -> None:
        self.folder, self.broker, self.lease, self.renew = folder, broker, lease, renew
        self.place = Workspace(folder / "head")
        self.place.root.mkdir(parents=True)
        self.place.prepare()
        make_certificate(folder)
        self.said: list[str] = []
        self.line = Line(("127.0.0.1", 1))
        self.start()

    def start(self) -> None:
        self._ended = threading.Event()
        self.ledger = LeasedLedger(self.place.ledger, self.place.runs, Leases(self.lease))
        self.roster = Roster(self.place.state / "roster.json", list(TOKENS), max(3 * self.renew, 30))
        publisher = Publisher(self.broker.address(HEAD), self.said.append)
        self.scheduler = Scheduler(self.ledger, self.roster, publisher, self.said.append)
        self.desk = HeadDesk(self.place, self.ledger, self.roster, self.scheduler, deployment="lab", uid=UID)
        self.service = Service(
            self.ledger,
            self.desk,
            address=("127.0.0.1", 0),
            certificate=self.folder / "certificate.pem",
            key=self.folder / "key.pem",
            people="people",
            workers=TOKENS,
            report=self.said.append,
        )
        self.service.start()
        self.scheduler.start()
        self.line.target = self.service.address
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        while not self._ended.wait(0.5):
            self.ledger.reap()

    def stop(self) -> None:
        self._ended.set()
        self.scheduler.stop()
        self.desk.end()
        self.service.stop()
        self.ledger.disconnect()

    # -- sweeps ----------------------------------------------------------------------------------------

    def submit(
        self,
        script: str,
        trials: int = 1,
        *,
        files: Mapping[str, str | bytes] | None = None,
        values: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Sweep:
        """A sweep of `bash trial.sh i=1..`, with the project's files in the head's store, and the values of
        its secrets."""
        project = self.folder / f"project-{time.monotonic_ns()}"
        project.mkdir()
        for name, text in {"trial.sh": f'export "$1"\n{script}\n', **(files or {})}.items():
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_bytes(text.encode() if isinstance(text, str) else text)
        frozen = snapshots.freeze(project, self.place.snapshots, 10**9)
        spec = Spec(
            "p", "t", ("bash", "trial.sh"), flags="bare", **{"grace": 1, "max_failures": None, **settings}
        )
        drafts = [Draft({"i": Number(str(i))}) for i in range(1, trials + 1)]
        uid = os.urandom(8).hex()
        if values is not None:
            self.desk.put_secrets(uid, {name: value.encode() for name, value in values.items()})
        return self.ledger.submit(spec, frozen.id, drafts, uid=uid)

    def states(self, sweep: Sweep) -> list[str]:
        return [trial.state for trial in self.ledger.trials(sweep.uid)]

    def attempts(self, sweep: Sweep) -> list[Attempt]:
        return list(self.ledger.attempts(sweep.uid))

    def kept(self, sweep: Sweep, trial: int = 1, attempt: int = 1) -> Path:
        """Where the head keeps what the attempt left."""
        return self.place.attempt(sweep.name, trial, attempt)

    def log(self, sweep: Sweep, trial: int = 1, attempt: int = 1) -> bytes:
        with suppress(FileNotFoundError):
            return (self.kept(sweep, trial, attempt) / "output.log").read_bytes()
        return b""


class WorkerLab:
    """A host's worker: its state stays when its process is killed and started again. `parting`: seconds that
    it has, when it is told to stop, to tell the head of its trials' ends."""

    def __init__(
        self, head: HeadLab, host: str, *, path: str | None = None, parting: float = 60, **settings: Any
    ) -> None:
        self.head, self.host = head, host
        self.root = head.folder / f"host-{host}"
        self.root.mkdir(exist_ok=True)
        told = WorkerSettings(
            deployment="lab",
            uid=UID,
            host=host,
            broker=head.broker.address(worker_user(host)),
            service=("127.0.0.1", head.line.port),
            **{
                "certificate": str(head.folder / "certificate.pem"),
                "token": TOKENS[host],
                "slots": 2,
                "renew": head.renew,
                **settings,
            },
        )
        self._settings = self.root / "settings.json"
        self._settings.write_text(json.dumps(told._asdict()))
        self._env = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        self._env |= {"PATH": path} if path else {}
        self._command = [sys.executable, "-c", START, str(self._settings), str(self.root), str(parting)]
        self.log = self.root / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def place(self) -> Workspace:
        return Workspace(self.root)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 90) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it, and wait until nothing of it is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        until(lambda: not self.locked(), what=f"an end of {self.host}")

    def locked(self) -> bool:
        """Whether anything of the worker, its guardian or its keepers lives."""
        from fcntl import LOCK_EX, LOCK_NB, flock

        with (self.place.state / "worker.lock").open("w") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                return True
        return False


def until(told: Callable[[], object], seconds: float = 60, what: object = "") -> None:
    """`what` may be a call that tells how things stand by then."""
    deadline = time.monotonic() + seconds
    late = False  # asked before `told`: a process that stood still meanwhile gets another look
    while not told():
        if late:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        late = time.monotonic() > deadline
        time.sleep(0.02)


def processes(mark: str) -> list[int]:
    """The live processes that have this word among their arguments."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [pid] * (mark.encode() in words)
    return found


def requirements(text: str = "requirements.txt") -> Environment:
    return Environment("requirements", text)


def all_ended(head: HeadLab, sweeps: Iterable[Sweep]) -> bool:
    return all(state in ("succeeded", "failed", "cancelled") for s in sweeps for state in head.states(s))
