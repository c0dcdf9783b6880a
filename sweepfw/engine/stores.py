"""What a worker has of sweeps: settings, secrets, snapshots from the head, environments built for them."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress

from sweepfw import crash
from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Sweep
from sweepfw.core.secrets import NONE, Secrets
from sweepfw.engine.jobs import Jobs
from sweepfw.errors import StoppedError, SweepError
from sweepfw.ledger.desk import Desk
from sweepfw.ledger.interface import Ledger
from sweepfw.snapshot import transfer
from sweepfw.trial.attempt import Job
from sweepfw.trial.building import collect

KEEP_SNAPSHOTS = 7 * 86_400.0  # seconds that one lies here after its last use
KEEP_ENVIRONMENTS = 30 * 86_400.0
_SETUPS = 16  # that keepers know at a time; more sweeps than that take turns
_LOOK = 0.1  # seconds between two looks whether somebody still waits


class Stores:
    """Safe from several threads. What takes long is made once, in a thread of its own; others wait for it."""

    def __init__(
        self,
        place: Workspace,
        ledger: Ledger,
        desk: Desk,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._place, self._ledger, self._desk = place, ledger, desk
        self._environment, self._say = environment, say
        self._runs = str(place.runs)
        self._lock = threading.Lock()  # guards all below
        self._sweeps: dict[str, Sweep] = {}
        self._jobs: dict[str, Jobs] = {}
        self._made: dict[tuple[str, str], Job] = {}
        self._making: dict[tuple[str, str], Future[Job]] = {}
        self._waiting: dict[str, int] = {}  # uid -> slots that wait for one of its jobs
        self._abandoned: set[str] = set()  # uids of which nobody waited any more
        self._numbers = itertools.count()

    def sweep(self, uid: str) -> Sweep:
        """The sweep as it was when first asked for: name, settings and origin never change."""
        sweep = self._sweeps.get(uid)
        if sweep is None:
            sweep = self._sweeps[uid] = self._ledger.sweep(uid)
        return sweep

    def run(self, sweep: Sweep) -> str:
        """The sweep's folder."""
        return f"{self._runs}/{sweep.name}"  # a text: paths would take a tenth of our time for a short trial

    def secrets(self, sweep: Sweep, token: str) -> Secrets:
        """Those that the sweep needs, as the head has them now, for the attempt with this token. They are in
        this process's memory only. SweepError where one is not there."""
        if not sweep.spec.secrets:
            return NONE
        given = self._desk.secrets(token)
        if lacking := [need.name for need in sweep.spec.secrets if need.name not in given]:
            raise SweepError(
                f"secrets of {sweep.name} are not at the head: {', '.join(lacking)}; "
                f"send them with: sweepfw retry {sweep.name}"
            )
        return given

    def job(self, sweep: Sweep, snapshot: str, stopped: Callable[[], bool], secrets: Secrets = NONE) -> Job:
        """All that a trial of this snapshot needs to start, made if need be.

        Raises StoppedError once `stopped` says so, SetupFailed where the environment can't be built, and
        other SweepErrors and OSErrors for what can't be had or stored; the next call tries again.
        """
        key = (sweep.uid, snapshot)
        job = self._made.get(key) or self._wait(key, sweep, stopped, secrets)
        return self._with(key, job, secrets) if secrets else job

    def _with(self, key: tuple[str, str], job: Job, secrets: Secrets) -> Job:
        """The same job as long as the values are the same, so that keepers are told of it once."""
        jobs = self._jobs.get(key[0])
        if jobs is None:  # removed just now
            raise StoppedError("stopped before it began")
        hidden = jobs.give(secrets)  # without the lock: of large files it takes long
        with self._lock:
            job = self._made.get(key, job)
            if job.setup.secrets is not hidden:
                job = self._made[key] = job._replace(setup=job.setup._replace(secrets=hidden))
        return job

    def _wait(self, key: tuple[str, str], sweep: Sweep, stopped: Callable[[], bool], secrets: Secrets) -> Job:
        with self._lock:
            self._waiting[sweep.uid] = self._waiting.get(sweep.uid, 0) + 1
        try:
            while not stopped():
                with self._lock:
                    making = self._making.get(key) or self._begin(key, sweep, secrets)
                with suppress(_Abandoned):
                    return _await(making, stopped)
            raise StoppedError("stopped before it began")
        finally:
            with self._lock:
                self._waiting[sweep.uid] -= 1

    def _begin(self, key: tuple[str, str], sweep: Sweep, secrets: Secrets) -> Future[Job]:
        self._making[key] = making = Future[Job]()
        jobs = self._jobs.get(sweep.uid)
        if jobs is None:
            jobs = self._jobs[sweep.uid] = Jobs(
                self._place,
                sweep,
                lambda line: self._say(f"{sweep.name}: {line}"),
                lambda: self._abandons(sweep.uid),
                self._environment,
                agree=lambda snapshot, text: self._desk.environment_lock(sweep.uid, snapshot, text),
                number=lambda: next(self._numbers) % _SETUPS,
            )
        threading.Thread(target=self._make, args=(key, jobs, making, secrets), daemon=True).start()
        return making

    def _abandons(self, uid: str) -> bool:
        """Whether nobody waits for what is made for the sweep; then it is not made to its end."""
        with self._lock:
            if not self._waiting.get(uid):
                self._abandoned.add(uid)
            return uid in self._abandoned

    def _make(self, key: tuple[str, str], jobs: Jobs, making: Future[Job], secrets: Secrets) -> None:
        try:
            self._fetch(key[1])
            jobs.give(secrets)
            job = jobs(key[1])
        except BaseException as error:
            with self._lock:
                del self._making[key]
                abandoned = key[0] in self._abandoned
                self._abandoned.discard(key[0])
            making.set_exception(_Abandoned() if abandoned else error)
        else:
            with self._lock:
                del self._making[key]
                self._abandoned.discard(key[0])
                self._made[key] = job
            making.set_result(job)

    def _fetch(self, snapshot: str) -> None:
        """Have the snapshot here; only contents that no other snapshot brought come over the network."""
        store = self._place.snapshots
        listed = snapshots.manifest(store, snapshot)
        text = listed.read_bytes() if listed.exists() else self._desk.manifest(snapshot)
        lacking = transfer.lacking(store, _contents(text))
        if lacking:
            transfer.unpack(store, transfer.reader(self._desk.contents(sorted(lacking))))
        crash.point("worker.contents")
        transfer.accept(store, snapshot, text)

    def forget(self, name: str) -> bool:
        """Delete what there is of a sweep that the head has removed; whether there was anything. Nothing of
        it runs here."""
        with self._lock:
            uids = [uid for uid, sweep in self._sweeps.items() if sweep.name == name]
            for uid in uids:
                del self._sweeps[uid]
                if jobs := self._jobs.pop(uid, None):
                    jobs.close()
            self._made = {key: job for key, job in self._made.items() if key[0] not in uids}
        folder = self._place.run(name)
        if folder.parent != self._place.runs or name.startswith(".") or not folder.is_dir():
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def tidy(self) -> int:
        """Delete snapshots and environments that nothing used for long; bytes freed. For a worker's start."""
        store, now = self._place.snapshots, time.time()
        freed = snapshots.collect(store, (), age=KEEP_SNAPSHOTS).bytes
        freed += collect(self._place.environments, age=KEEP_ENVIRONMENTS)
        for folder in (self._place.state / "work").glob("*"):
            if (
                folder.stat().st_mtime < now - KEEP_SNAPSHOTS
                and not snapshots.manifest(store, folder.name).exists()
            ):
                shutil.rmtree(folder, ignore_errors=True)
        return freed


class _Abandoned(Exception):  # noqa: N818  # it says what happened
    """Nobody waited any more; who came just then begins again."""


def _await(making: Future[Job], stopped: Callable[[], bool]) -> Job:
    while not stopped():
        try:
            return making.result(_LOOK)
        except TimeoutError:
            if making.done():
                return making.result()  # it ended just now, or with an error of this kind
    raise StoppedError("stopped before it began")


def _contents(manifest: bytes) -> set[str]:
    """The contents that a snapshot's list names."""
    try:
        return {row[3] for row in json.loads(manifest)["files"] if row[1] == "file"}
    except (ValueError, KeyError, TypeError, IndexError):
        raise SweepError(
            "the head's list of a snapshot's files can't be read; submit the sweep again"
        ) from None
