"""Who runs what: sends each waiting trial to a worker with room for it, the moment there is some.

One thread, woken by what happens at the ledger and by workers. Once a second it looks by itself: for workers
that fell silent, and messages that nobody claimed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from sweepfw import crash
from sweepfw.core.model import Grant, Outcome, Receipt, Spec, Waiting, Worker
from sweepfw.core.placement import Load, Publication, place, unmet
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.engine.bell import Bell
from sweepfw.engine.board import Board, Key
from sweepfw.engine.leases import LeasedLedger
from sweepfw.engine.publisher import LostBrokerError, Message, Publisher, shown
from sweepfw.engine.roster import Roster
from sweepfw.errors import SweepError

TICK = 1.0  # seconds
REST = 0.005  # seconds from one look to the next, at least: where trials are short, several ends share one
REBUILD = 30.0  # seconds between two looks at what the ledger says runs where
UNROUTABLE = 0.5  # seconds until a worker whose queue is not there is tried again
EVERY = ""  # stands for every sweep
MORE = 16  # trials asked for beyond those that there is room for


@dataclass(slots=True)
class _Record:
    """How a sweep went since the head started, for `--fail-fast` and `max_failures`."""

    spec: Spec
    succeeded: bool
    failed: int = 0


class Scheduler:
    """Watches the ledger (see leases.Watch) from `start` to `stop`."""

    def __init__(
        self,
        ledger: LeasedLedger,
        roster: Roster,
        publisher: Publisher,
        report: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._roster, self._publisher = ledger, roster, publisher
        self._report, self._clock = report, clock
        self.board = Board(clock)
        self._bell = Bell()
        self._lock = threading.Lock()  # guards all below
        self._records: dict[str, _Record] = {}
        self._closing = {EVERY}  # sweeps that may have nothing left
        self._touched = True  # what runs where may be other than we know
        self._rebuilt = float("-inf")
        self._unroutable: dict[Worker, float] = {}  # until when
        self._alive: set[Worker] = set()  # as told
        self._told = float("-inf")
        self._labels: dict[Key, str] = {}  # what Flower shows of trials that come soon
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)

    def start(self) -> None:
        self._ledger.watches.append(self)
        self._thread.start()

    def stop(self) -> None:
        self._bell.end()
        if self._thread.is_alive():
            self._thread.join(10)
        self._publisher.close()

    def wake(self) -> None:
        """Something changed that may lead to a publication."""
        self._bell.ring()

    @property
    def connected(self) -> bool:
        """To the broker."""
        return self._publisher.connected

    def unmet(self) -> dict[str, str]:
        """Sweeps whose trials none of the workers that live can ever run, and why."""
        adverts = [(member.worker.host, member.advert) for member in self._roster.ready()]
        found = {}
        for sweep in self._ledger.waiting(1):
            reasons = [unmet(host, advert, sweep.needs) for host, advert in adverts]
            if all(reasons):
                found[sweep.name] = "; ".join(filter(None, reasons)) or "no worker is there"
        return found

    # -- what happens at the ledger: called from other threads ------------------------------------------

    def granted(self, grant: Grant, worker: Worker) -> None:
        if self.board.granted(grant, worker, self._record(grant.uid).spec.needs):
            self.wake()

    def denied(self, uid: str, trial: int) -> None:
        if self.board.denied(uid, trial):
            self.wake()

    def ended(self, token: str, outcome: Outcome, receipt: Receipt) -> None:
        uid = self.board.ended(token, outcome)
        if uid is not None and receipt.recorded:
            self._count(uid, outcome)
        with self._lock:
            self._closing.add(uid or EVERY)
        self.wake()

    def changed(self, uid: str | None) -> None:
        with self._lock:
            self._touched = True
            self._closing.add(uid or EVERY)  # an attempt that is lost may have been the last one
            if uid is not None:
                self._records.pop(uid, None)
        if uid is not None:
            self.board.forget(uid)
        self.wake()

    def ordered(self) -> None:
        """Whoever is stopped, is told by the desk."""

    def _record(self, uid: str) -> _Record:
        record = self._records.get(uid)
        if record is None:
            sweep = self._ledger.sweep(uid)
            with self._lock:
                record = self._records.setdefault(
                    uid, _Record(sweep.spec, bool(sweep.counts.get("succeeded")))
                )
        return record

    def _count(self, uid: str, outcome: Outcome) -> None:
        """Keep `--fail-fast` and `max_failures`: where the first trials all failed, more would too."""
        with suppress(SweepError):  # the sweep was removed
            record = self._record(uid)
            limit = record.spec.max_failures
            with self._lock:
                record.succeeded |= outcome.state == "succeeded"
                record.failed += outcome.state == "failed" and not outcome.again
                hopeless = limit and not record.succeeded and record.failed >= limit
                why = f"the first {limit} trials failed" if hopeless else ""
                if record.spec.fail_fast and record.failed:
                    why = "a trial failed, and --fail-fast was given"
                if why:
                    record.failed = 0  # who resumes it wants to see as many again
            if why:
                self._ledger.pause(uid, why)
                self._report(f"{self._ledger.sweep(uid).name}: paused, {why}")

    # -- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._bell.ended:
            rings, begun = self._bell.rings, time.monotonic()
            try:
                self.turn()
            except SweepError as error:  # a full disk, a ledger that can't be read: it may come right again
                self._report(f"scheduler: {error}")
            except Exception as error:
                self._report(f"scheduler: {type(error).__name__}: {error}")
            self._bell.wait(rings, self._pause())
            time.sleep(max(0.0, begun + REST - time.monotonic()))

    def _pause(self) -> float:
        due = self.board.next_due()
        return TICK if due is None else min(TICK, max(0.01, due - self._clock()))

    def turn(self) -> None:
        """Look once at what there is, and send what there is room for."""
        if self._publisher.tend():
            self.board.missed_all()  # a broker that was wiped has lost it all
            self._unroutable.clear()
        self._refresh()
        self._tell()
        if self._publisher.connected:
            self._send(self._choose())
        self._close()

    def _refresh(self) -> None:
        with self._lock:
            touched, self._touched = self._touched, False
        if touched or self._clock() - self._rebuilt > REBUILD:
            self._rebuilt = self._clock()
            self.board.rebuild(self._attempts, self._load)

    def _attempts(self) -> Iterator[tuple[Worker, str, str]]:
        for member, *_ in self._roster.all():
            for uid, attempt in self._ledger.running_on(member.worker):
                yield member.worker, uid, attempt.token

    def _load(self, uid: str, token: str) -> Load | None:
        grant = self._ledger.look(token)
        if grant is None:
            return None
        return Load(uid, grant.trial, self._record(uid).spec.needs, grant.losses >= TRIES_WHEN_LOST)

    def _tell(self) -> None:
        """Say who came and who fell silent."""
        if self._clock() - self._told < TICK:
            return
        self._told = self._clock()
        alive = {member.worker: member for member, lives, *_ in self._roster.all() if lives}
        hosts = {worker.host for worker in alive}
        for worker in self._alive - alive.keys():
            gone = "replaced" if worker.host in hosts else "silent, or without the broker"
            self._report(f"worker on {worker.host}: {gone}")
        for worker in alive.keys() - self._alive:
            self._report(f"worker on {worker.host}: here, {alive[worker].advert.slots} slots")
        self._alive = set(alive)

    def _choose(self) -> list[tuple[Publication, Waiting]]:
        now = self._clock()
        members = [each for each in self._roster.ready() if self._unroutable.get(each.worker, 0) <= now]
        stations = self.board.stations(members)
        free = sum(max(0, each.advert.slots - len(each.loads)) for each in stations)
        if not free:
            return []
        limit = free + self.board.under_way() + MORE
        self.board.look()
        waiting = self.board.left(self._ledger.waiting(limit), limit)
        by_uid = {sweep.uid: sweep for sweep in waiting}
        found = place(stations, waiting)
        self._describe(found, waiting)
        return [(each, by_uid[each.load.uid]) for each in found]

    def _describe(self, found: list[Publication], waiting: list[Waiting]) -> None:
        """Have at hand what Flower shows of these trials, and of those that come after them."""
        for uid in {each.load.uid for each in found if each.load[:2] not in self._labels}:
            numbers = next([number for number, _ in sweep.trials] for sweep in waiting if sweep.uid == uid)
            if len(self._labels) > 10_000:
                self._labels.clear()
            for trial in self._ledger.trials(uid, numbers=numbers):
                self._labels[uid, trial.number] = shown(trial.params)

    def _send(self, chosen: list[tuple[Publication, Waiting]]) -> None:
        if not chosen:
            return
        queues = {each.worker: each.advert.queue for each in self._roster.ready()}
        messages = []
        keys: dict[str, tuple[Key, Worker]] = {}
        for (worker, load), sweep in chosen:
            key = load[:2]
            sent = self.board.sending(key, worker, load)
            keys[sent.task] = key, worker
            label = self._labels.get(key, "")
            messages.append(Message(queues.get(worker, ""), sent.task, *key, sweep.name, label))
        crash.point("head.noted")
        try:
            lost = self._publisher.publish(messages)
        except LostBrokerError:
            return self.board.missed_all()
        crash.point("head.published")
        for task in lost:
            key, worker = keys[task]
            self.board.missed([key])
            self._unroutable[worker] = self._clock() + UNROUTABLE

    def _close(self) -> None:
        """Close the sweeps that have nothing left."""
        with self._lock:
            closing, self._closing = self._closing, set()
        if EVERY in closing:
            closing |= {sweep.uid for sweep in self._ledger.sweeps() if sweep.state in ("queued", "running")}
        for uid in closing - {EVERY}:
            if not self.board.works_on(uid):
                with suppress(SweepError):  # it was removed
                    self._ledger.close(uid)
