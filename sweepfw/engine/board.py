"""What the head believes runs where, and what it sent and nobody claimed yet. Only memory: the ledger is the
truth, from which it is made anew now and then. Safe from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from sweepfw.core.model import Grant, Needs, Outcome, Waiting, Worker
from sweepfw.core.placement import Load, Station
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.engine.publisher import task_id
from sweepfw.engine.roster import Member

Key: TypeAlias = tuple[str, int]  # a sweep's uid, a trial's number

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds until what nobody claimed is sent again
QUICK = 10.0  # seconds: a trial that fails sooner says something about its host
QUICK_FAILURES = 3  # so many in a row, and the host gets one trial at a time


class Running(NamedTuple):
    worker: Worker
    load: Load
    since: float  # on our clock


@dataclass(slots=True)
class Sent:
    """A trial that was sent and not claimed. `until`: when it gives up its place there; 0: it has none (and
    may be claimed yet). `pause`: how long the last wait was."""

    worker: Worker
    load: Load
    task: str
    until: float = 0.0
    pause: float = 0.0


class Board:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}  # by token
        self._sent: dict[Key, Sent] = {}
        self._fresh: set[Key] = set()  # granted since `look`
        self._quick: dict[str, int] = {}  # host -> quick failures in a row

    # -- what is heard ---------------------------------------------------------------------------------

    def granted(self, grant: Grant, worker: Worker, needs: Needs) -> bool:
        """Whether another worker's place is free with that: the trial had been sent there too."""
        key = (grant.uid, grant.trial)
        with self._lock:
            sent = self._sent.pop(key, None)
            self._fresh.add(key)
            if grant.attempt > 1:  # the one before may have fallen silent, and is lost with this grant
                self._running = {token: each for token, each in self._running.items() if each.load[:2] != key}
            load = Load(grant.uid, grant.trial, needs, grant.losses >= TRIES_WHEN_LOST)
            self._running[grant.token] = Running(worker, load, self._clock())
            return sent is not None and sent.worker != worker

    def denied(self, uid: str, trial: int) -> bool:
        """Whether a place is free with that: the trial had been sent, and is not to run now."""
        with self._lock:
            return self._sent.pop((uid, trial), None) is not None

    def ended(self, token: str, outcome: Outcome) -> str | None:
        """The sweep's uid, if the attempt was known."""
        with self._lock:
            found = self._running.pop(token, None)
            if found is None:
                return None
            self._sent.pop(found.load[:2], None)
            host = found.worker.host
            if outcome.state == "succeeded":
                self._quick.pop(host, None)
            elif outcome.state == "failed" and self._clock() - found.since < QUICK:
                self._quick[host] = self._quick.get(host, 0) + 1
            return found.load.uid

    def rebuild(
        self,
        attempts: Callable[[], Iterable[tuple[Worker, str, str]]],
        look: Callable[[str, str], Load | None],
    ) -> None:
        """Take what runs from the ledger: worker, uid and token of each; `look` tells what one takes that was
        not known. Nothing is heard meanwhile."""
        with self._lock:
            found = {}
            for worker, uid, token in attempts():
                if known := self._running.get(token):
                    found[token] = known
                elif load := look(uid, token):
                    found[token] = Running(worker, load, float("-inf"))
            self._running = found

    # -- what is sent ----------------------------------------------------------------------------------

    def sending(self, key: Key, worker: Worker, load: Load) -> Sent:
        """Note that the trial is sent now, and once more after a pause that grows each time."""
        with self._lock:
            before = self._sent.get(key)
            pause = min(before.pause * 2, LONGEST_PAUSE) if before and before.pause else FIRST_PAUSE
            task = before.task if before else task_id()  # the same: Flower shows one task
            sent = self._sent[key] = Sent(worker, load, task, self._clock() + pause, pause)
            return sent

    def missed(self, keys: Collection[Key]) -> None:
        """These did not arrive: they take no place, and their pause begins anew."""
        with self._lock:
            for key in keys:
                if sent := self._sent.get(key):
                    sent.until = sent.pause = 0.0

    def missed_all(self) -> None:
        self.missed(list(self._sent))

    def forget(self, uid: str) -> None:
        """What waits of the sweep may be other trials now: what waits still is sent again."""
        with self._lock:
            for key in [key for key in self._sent if key[0] == uid]:
                del self._sent[key]

    def next_due(self) -> float | None:
        """When the next of what was sent gives its place back."""
        with self._lock:
            return min((sent.until for sent in self._sent.values() if sent.until), default=None)

    # -- what is asked ---------------------------------------------------------------------------------

    def stations(self, members: Iterable[Member]) -> list[Station]:
        """The members with what takes place there."""
        with self._lock:
            loads = self._loads()
            return [
                Station(
                    each.worker,
                    each.advert,
                    tuple(loads.get(each.worker, {}).values()),
                    self._quick.get(each.worker.host, 0) >= QUICK_FAILURES,
                )
                for each in members
            ]

    def _loads(self) -> dict[Worker, dict[Key, Load]]:
        now = self._clock()
        found: dict[Worker, dict[Key, Load]] = {}
        for running in self._running.values():
            found.setdefault(running.worker, {})[running.load[:2]] = running.load
        for key, sent in self._sent.items():
            if sent.until > now:
                found.setdefault(sent.worker, {}).setdefault(key, sent.load)
        return found

    def look(self) -> None:
        """To be called before one asks the ledger what waits: what is granted meanwhile waits no more."""
        with self._lock:
            self._fresh = set()

    def left(self, waiting: Collection[Waiting], limit: int) -> list[Waiting]:
        """The sweeps without the trials that were sent; those count as running. `limit`: how many trials of a
        sweep were asked for. What was sent and does not wait any more is forgotten."""
        now = self._clock()
        with self._lock:
            self._forget_others({sweep.uid: sweep for sweep in waiting}, limit)
            under_way = {key for key, sent in self._sent.items() if sent.until > now} | self._fresh
        found = []
        for sweep in waiting:
            trials = tuple(trial for trial in sweep.trials if (sweep.uid, trial[0]) not in under_way)
            sent = len(sweep.trials) - len(trials)
            found.append(sweep._replace(trials=trials, running=sweep.running + sent))
        return found

    def _forget_others(self, waiting: Mapping[str, Waiting], limit: int) -> None:
        """Trials that were cancelled, or that an attempt before them took back."""
        for uid, number in list(self._sent):
            trials = waiting[uid].trials if uid in waiting else ()
            unseen = len(trials) == limit and number > trials[-1][0]
            if not unseen and all(number != trial for trial, _ in trials):
                del self._sent[uid, number]

    def under_way(self) -> int:
        """How many were sent and are not claimed yet."""
        with self._lock:
            return len(self._sent)

    def works_on(self, uid: str) -> bool:
        """Whether trials of the sweep run, or are on their way."""
        with self._lock:
            return any(each.load.uid == uid for each in self._running.values()) or any(
                key[0] == uid for key in self._sent
            )

    def cautious(self) -> list[str]:
        with self._lock:
            return sorted(host for host, count in self._quick.items() if count >= QUICK_FAILURES)
