"""A head and a worker as processes that are started again whenever they die, perhaps to die at another point;
and works that come by all of those points."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from broker_lab import Broker
from crash_cases import Case
from test_head_whole import HeadProcess
from worker_lab import TOKENS, WorkerLab, until

from sweepfw import crash
from sweepfw import snapshot as snapshots
from sweepfw.core.deployment import Advert
from sweepfw.core.model import Draft, Grant, Outcome, Spec, Sweep, Worker
from sweepfw.core.values import Number
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.ledger.client import Client, HttpDesk, HttpLedger
from sweepfw.snapshot import transfer

TRIALS = 2
LEASE, EXPIRED = 300, 8  # seconds; it is only to run out where the work is about that
LITTLE = "echo hello $i; echo $i > $SWEEPFW_OUTPUT/f"
MUCH = f"{LITTLE}; seq 1 30000; for n in 1 2 3; do head -c 50000 /dev/zero > $SWEEPFW_OUTPUT/$n; done"
SAVING = f"{LITTLE}; echo 1 > $SWEEPFW_CHECKPOINT/n"
WAIT = "for n in $(seq 1200); do [ -e {} ] && break; sleep 0.1; done"
AT_AN_END = ("worker.accepted",)  # of the points of `saving`; the others are passed while trials run
MOVED = f'[ $i = 2 ] || [ "$(cat $SWEEPFW_CHECKPOINT/n)" = 17 ] || exit 4; {LITTLE}'
B = Worker("b", "b0b0")  # a boot of nobody's


class Restarted:
    """A process that is started again whenever it dies. `following`: the point that comes after another, once
    it has struck; whatever else ends the process, the next one is to die at the same point."""

    def __init__(
        self, folder: Path, following: Mapping[str, str], start: Callable[[str], subprocess.Popen[bytes]]
    ) -> None:
        self._folder, self._start, self._following = folder, start, following
        self._armed = self._next = ""
        self._ending = False
        self._lock = threading.Condition()
        self.process = start("")
        threading.Thread(target=self._keep, daemon=True).start()

    def file(self, point: str) -> Path:
        """It is there once something died at the point."""
        return self._folder / point

    def struck(self, point: str) -> bool:
        return self.file(point).exists()

    def arm(self, point: str) -> None:
        """It dies when it comes by the point, unless it did so before."""
        with self._lock:
            if self._armed != point:
                self._next = point
                self.process.kill()
                assert self._lock.wait_for(lambda: self._armed == point, 60)

    def end(self) -> None:
        self._ending = True
        self.process.kill()
        self.process.wait()

    def _keep(self) -> None:
        while True:
            self.process.wait()
            with self._lock:
                if self._ending:
                    return
                if self._next or not self._armed or self.struck(self._armed):
                    self._armed = self._next or self._following.get(self._armed, "")
                    self._next = ""
                told = f"{self._armed}:1:{self.file(self._armed)}" if self._armed else ""
                self.process = self._start(told)
                self._lock.notify_all()


class Ground(WorkerLab):
    """A host whose worker is started by another."""

    def start(self) -> None:
        self.tree = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}

    def run(self, told: str) -> subprocess.Popen[bytes]:
        env = {**self._env, **self.tree, crash.VARIABLE: told}
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Cell:
    """The head, a worker `a`, and this process as people and as a worker `b`."""

    def __init__(self, folder: Path, broker: Broker, heads: Sequence[Case], workers: Sequence[Case]) -> None:
        """A head dies of one point after the other; a worker's trials would soon be taken for poison."""
        self.folder, self.witness = folder, folder / "witness"
        for name in ("head-struck", "worker-struck"):
            (folder / name).mkdir()
        self._head = HeadProcess(folder, broker)
        self.head = Restarted(
            folder / "head-struck", dict(pairwise(each.point for each in heads)), self._start_head
        )
        until(self._head.healthy, what="a healthy head")
        self._ground = Ground(self._head, "a")  # type: ignore[arg-type]  # all that it uses is there
        self.worker = Restarted(
            folder / "worker-struck",
            {each.before[0]: each.point for each in workers if each.before},
            self._ground.run,
        )
        self.ledger, self.desk = self._head.ledger, self._head.desk
        self._client = Client(
            lambda: socket.create_connection(("127.0.0.1", self._head.port), timeout=10),
            (folder / "certificate.pem").read_text(),
            TOKENS["b"],
            patience=60,
        )
        self.as_b, self.desk_b = HttpLedger(self._client), HttpDesk(self._client)
        self._sweeps = 0
        self.survived: set[str] = set()  # points of which something died in a work that was done all the same
        self._look: Callable[[], None] = lambda: None  # once more at what the last work left
        until(self.whole, what=self._ground.log.read_text)

    def whole(self) -> bool:
        return any(each.worker.host == "a" and each.alive for each in self.desk.status().workers)

    def end(self) -> None:
        self.worker.end()
        until(lambda: not self._ground.locked(), what="the worker's end")
        self.head.end()
        for client in (self._client, self._head.client):
            client.close()

    def _start_head(self, told: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, crash.VARIABLE: told}
        with self._head.log.open("ab") as log:
            return subprocess.Popen(self._head.command(), env=env, stdout=log, stderr=log)

    # -- works -----------------------------------------------------------------------------------------

    def do(self, case: Case, process: Restarted) -> None:
        """The case's work, during which the process dies at the case's point, or just after it."""
        lease = EXPIRED if case.verb == "expired" else LEASE
        if self._head.settings.lease != lease:
            self._head.set(lease=lease)
            self.head.process.kill()
        first = case.before[0] if case.before else case.point
        if not process.struck(first):
            process.arm(first)
        self._process = process
        getattr(self, f"_{case.verb}")(case.point)
        until(lambda: process.struck(case.point), what=f"{case.verb} comes by {case.point}")
        self.survived |= {path.name for path in self.folder.glob("*-struck/*")}
        self._look()

    def _little(self, point: str) -> None:
        self.finish(self.submit(point, LITTLE))

    def _much(self, point: str) -> None:
        self.finish(self.submit(point, MUCH), "".join(f"{n}\n" for n in range(1, 30001)))

    def _saving(self, point: str) -> None:
        wait = "" if point in AT_AN_END else WAIT.format(self._process.file(point))
        self.finish(self.submit(point, f"{SAVING}; {wait}", checkpoint_every=0.3))

    def _moved(self, point: str) -> None:
        """An attempt elsewhere saved a checkpoint; the next one begins with it."""
        grant = self._claim_as_b(point, MOVED)
        pack = io.BytesIO()
        with tarfile.open(fileobj=pack, mode="w") as tar:
            member = tarfile.TarInfo("n")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"17\n"))
        pack.seek(0)
        assert self.desk_b.put_checkpoint(grant.token, pack)
        self.as_b.finish(grant.token, Outcome("interrupted", again=True))
        self._give_to_a()
        self.finish(self.ledger.sweep(grant.uid))

    def _expired(self, point: str) -> None:
        """Nobody hears of an attempt any more."""
        grant = self._claim_as_b(point, LITTLE)
        until(lambda: self._state(grant) != "running", what="the end of its lease")
        self._give_to_a()
        self.finish(self.ledger.sweep(grant.uid))
        assert not self.as_b.finish(grant.token, Outcome("succeeded")).recorded

    def _paused(self, point: str) -> None:
        sweep = self.submit(point, f"{WAIT.format(self._process.file(point))}; {LITTLE}")
        self._insist(partial(self.ledger.pause, sweep.uid), lambda: False)
        self._insist(partial(self.ledger.open, sweep.uid), lambda: False)
        self.finish(sweep)

    def _stopped(self, point: str) -> None:
        """What runs hears of it all the same; and runs again when people wish so."""
        sweep = self.submit(point, f"[ $SWEEPFW_ATTEMPT = 2 ] || sleep 600; {LITTLE}")
        until(lambda: len(self.ledger.running(sweep.uid)) == TRIALS, what="trials that run")
        self._insist(partial(self.ledger.stop, sweep.uid), lambda: False)
        until(lambda: self.ledger.sweep(sweep.uid).counts == {"cancelled": TRIALS}, what="their end")
        self._insist(partial(self.ledger.reopen, sweep.uid, ["cancelled"]), lambda: False)
        self._insist(partial(self.ledger.open, sweep.uid), lambda: False)
        self.finish(sweep)

    def _extended(self, point: str) -> None:
        """Typed again: what is there is not added a second time."""
        sweep = self.submit(point, LITTLE)
        self.finish(sweep)
        spec, drafts = self.ledger.sweep(sweep.uid).spec, _drafts(TRIALS + 1)
        self._insist(lambda: self.ledger.extend(sweep.uid, spec, drafts), lambda: False)
        self.finish(sweep, trials=TRIALS + 1)

    def _announced(self, point: str) -> None:
        self.desk_b.announce(B, Advert(slots=0, cpus=1))
        assert "b" in {each.worker.host for each in self.desk.status().workers}
        self._little(point)

    def _agreed(self, point: str) -> None:
        grant = self._claim_as_b(point, LITTLE)
        first = self.desk_b.environment_lock(grant.uid, grant.snapshot, "one==1\n")
        assert first == self.desk_b.environment_lock(grant.uid, grant.snapshot, "two==2\n") == "one==1\n"
        self.as_b.finish(grant.token, Outcome("interrupted", again=True))
        self._give_to_a()
        self.finish(self.ledger.sweep(grant.uid))

    def _told(self, point: str) -> None:
        sweep = self.submit(point, LITTLE)
        secrets = {"KEY": b"one of the secrets", "conf": b"another one"}
        self._insist(lambda: self.desk.put_secrets(sweep.uid, secrets), lambda: False)
        kept = self.folder / "state/.sweepfw/secrets" / sweep.uid
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == secrets
        self.finish(sweep)

    def _forgotten(self, point: str) -> None:
        """Deleted at the head and at the worker."""
        sweep = self.submit(point, LITTLE)
        self.finish(sweep)
        self._insist(partial(self.desk.forget, sweep.uid), lambda: sweep.name not in self._names())
        assert sweep.name not in self._names()
        until(lambda: not (self._ground.place.run(sweep.name)).exists(), what="no files of it at the worker")
        runs = self.folder / "state/runs"
        until(lambda: not [*runs.glob(f"*{sweep.name}*")], what=lambda: [*runs.glob("*")])
        self._look = lambda: None

    # -- parts of them ---------------------------------------------------------------------------------

    def submit(self, point: str, script: str, **settings: Any) -> Sweep:
        """A sweep of its own project; where nobody knows whether it was submitted, we look, as people do."""
        self._sweeps += 1
        name = f"c{self._sweeps}"
        project, store = self.folder / f"project-{name}", self.folder / "store"
        project.mkdir()
        (project / "trial.sh").write_text(
            f'export "$1"\necho {name} $i $SWEEPFW_ATTEMPT >> {self.witness}\n{script}\n'
        )
        frozen = snapshots.freeze(project, store, 10**9)
        digests = transfer.listed(store, frozen.id)
        lacking = self.desk.lacks(digests)
        if lacking:
            self._insist(lambda: self._put(store, lacking), lambda: not self.desk.lacks(digests))
        text = snapshots.manifest(store, frozen.id).read_bytes()
        self._insist(lambda: self.desk.put_manifest(frozen.id, text), lambda: False)
        spec = Spec(
            "p", "t", ("bash", "trial.sh"), flags="bare", **{"grace": 1, "max_failures": None, **settings}
        )
        self._insist(
            lambda: self.ledger.submit(spec, frozen.id, _drafts(TRIALS), name=name),
            lambda: name in self._names(),
        )
        return self.ledger.sweep(name)

    def _put(self, store: Path, digests: set[str]) -> None:
        self.desk.put_contents(transfer.reader(transfer.pack(store, digests)))

    def _insist(self, call: Callable[[], object], done: Callable[[], bool]) -> None:
        for _ in range(5):
            try:
                call()
                return
            except UnreachableError:
                until(self._head.healthy, what="a healthy head")
                if done():
                    return
        raise AssertionError("it dies again and again")

    def _names(self) -> set[str]:
        return {sweep.name for sweep in self.ledger.sweeps()}

    def _claim_as_b(self, point: str, script: str) -> Grant:
        self._insist(partial(self.desk.drain, "a"), lambda: False)
        sweep = self.submit(point, script)
        grant = self.as_b.claim(sweep.uid, 1, B, "0", "a claim of b")
        assert isinstance(grant, Grant)
        return grant

    def _give_to_a(self) -> None:
        self._insist(partial(self.desk.drain, "a", off=True), lambda: False)

    def _state(self, grant: Grant) -> str:
        [trial] = self.ledger.trials(grant.uid, numbers=[grant.trial])
        return trial.state

    def finish(self, sweep: Sweep, more: str = "", trials: int = TRIALS) -> None:
        """Wait for its end, and look whether every trial has one success with all that it left."""
        until(lambda: self._ended(sweep), 120, lambda: [*self.ledger.attempts(sweep.uid)])
        self._look = partial(self._check, sweep, more, trials)
        self._look()

    def _check(self, sweep: Sweep, more: str, trials: int) -> None:
        attempts = list(self.ledger.attempts(sweep.uid))
        accepted = [each for each in attempts if each.accepted]
        assert [each.trial for each in accepted] == list(range(1, trials + 1)), attempts
        assert {each.state for each in accepted} == {"succeeded"}
        assert not any(each.state == "running" for each in attempts)
        for each in accepted:
            part = self.desk.read_log(sweep.uid, each.trial, each.number, 0)
            assert part.data.decode() == f"hello {each.trial}\n{more}", each
            kept = self.desk.files(sweep.uid, each.trial, each.number)
            outputs = {"files/f"} if not more else {"files/f", *(f"files/{n}" for n in (1, 2, 3))}
            assert {"outcome.json", "params.json"} <= kept.keys(), (each, kept)
            assert {name for name in kept if name.startswith("files/")} == outputs, (each, kept)
        told = [line.split() for line in self.witness.read_text().splitlines()]
        begun = Counter((int(trial), int(number)) for name, trial, number in told if name == sweep.name)
        assert set(begun.values()) == {1}, begun
        newest = {trial: max(number for row, number in begun if row == trial) for trial, _ in begun}
        assert newest == {each.trial: each.number for each in accepted}  # nothing ran after its success
        self.begun = sorted(begun)

    def _ended(self, sweep: Sweep) -> bool:
        try:
            return self.ledger.sweep(sweep.uid).state == "done"
        except SweepError:
            return False


def _drafts(number: int) -> list[Draft]:
    return [Draft({"i": Number(str(i))}) for i in range(1, number + 1)]
