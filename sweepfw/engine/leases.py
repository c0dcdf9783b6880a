"""Leases: how long an attempt may be silent. Their deadlines live in the head's memory, on its own clock.

A deadline is only worth something while the head could have heard: so all start anew after the head started,
after its reaper stood still (a laptop that slept), and after a write to the ledger failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from sweepfw import crash
from sweepfw.core.model import Denial, Grant, Outcome, Receipt, Sweep, TrialState, Worker
from sweepfw.engine.bell import Bell
from sweepfw.errors import DiskFullError, LedgerError
from sweepfw.ledger.store import SqliteLedger


class Leases:
    """The deadlines of the attempts that run, by token. Safe from several threads."""

    def __init__(self, length: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.length = length
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines: dict[str, float] = {}
        self._looked = clock()

    def hold(self, token: str) -> None:
        """The attempt begins, or was heard of: its time starts anew."""
        with self._lock:
            self._deadlines[token] = self._clock() + self.length

    def drop(self, token: str) -> None:
        with self._lock:
            self._deadlines.pop(token, None)

    def held(self, token: str) -> bool:
        """Whether the attempt has time left, or nobody looked yet."""
        with self._lock:
            return self._deadlines.get(token, 0) > self._clock()

    def restart(self) -> None:
        """Nobody could have been heard: the time of all starts anew."""
        with self._lock:
            self._restart()

    def ran_out(self) -> list[str]:
        """The attempts whose time is over. To be called much more often than every length / 4: after a
        longer gap all start anew."""
        with self._lock:
            now, before = self._clock(), self._looked
            self._looked = now
            if now - before > self.length / 4:
                self._restart()
            return [token for token, deadline in self._deadlines.items() if deadline <= now]

    def _restart(self) -> None:
        deadline = self._clock() + self.length
        self._deadlines = dict.fromkeys(self._deadlines, deadline)


class Watch(Protocol):
    """Who hears of what happens at the ledger. Called after it happened, from any thread; must be quick."""

    def granted(self, grant: Grant, worker: Worker) -> None: ...
    def denied(self, uid: str, trial: int) -> None: ...
    def ended(self, token: str, outcome: Outcome, receipt: Receipt) -> None: ...
    def changed(self, uid: str | None) -> None:
        """What waits or runs may be other than it was, by no claim and no finish; None: of any sweep."""

    def ordered(self) -> None:
        """Running trials were told to stop."""


class LeasedLedger(SqliteLedger):
    """The head's ledger: as it is, with a lease on every running attempt, and with watchers."""

    def __init__(
        self, path: Path, runs: Path, leases: Leases, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(path, runs, clock=clock)
        self.leases = leases
        self.watches: list[Watch] = []
        self.output = Bell()  # rings when some attempt's log grew, or one ended
        self._expiry = threading.Lock()  # else an attempt could expire while it is heard of
        for sweep in self.sweeps():
            for attempt in self.running(sweep.uid):
                leases.hold(attempt.token)

    # -- the protocol of those who run trials ----------------------------------------------------------

    def claim(self, uid: str, trial: int, worker: Worker, slot: str, claim_id: str) -> Grant | Denial:
        with self._careful():
            answer = super().claim(uid, trial, worker, slot, claim_id)
        if isinstance(answer, Grant):
            self.leases.hold(answer.token)
            for watch in self.watches:
                watch.granted(answer, worker)
        else:
            for watch in self.watches:
                watch.denied(uid, trial)
        return answer

    def granted(self, token: str) -> Grant | None:
        answer = super().granted(token)
        if answer is not None and self.leases.held(token):
            self.leases.hold(token)
        return answer

    def renew(self, token: str) -> Literal["go on", "stop", "stop now"]:
        with self._expiry, self._careful():
            expired = not self.leases.held(token)
            answer = super().renew(token)
            self.leases.hold(token)
            if answer != "go on" and super().granted(token) is None:
                self.leases.drop(token)
        if expired:
            self._changed(None)
        return answer

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        with self._careful():
            receipt = super().finish(token, outcome)
        self.leases.drop(token)
        for watch in self.watches:
            watch.ended(token, outcome, receipt)
        self.output.ring()
        return receipt

    def expire(self, token: str) -> TrialState:
        with self._careful():
            state = super().expire(token)
        self.leases.drop(token)
        self._changed(None)
        return state

    def reap(self) -> list[Grant]:
        """Expire every attempt whose lease ran out; their grants."""
        reaped = []
        for token in self.leases.ran_out():
            with self._expiry:
                if not self.leases.held(token):
                    grant = self.look(token)
                    crash.point("head.reaping")
                    self.expire(token)
                    reaped += [grant] if grant else []  # None: its worker's successor came before us
        return reaped

    def register(self, worker: Worker) -> None:
        with self._careful():
            super().register(worker)
        self._changed(None)

    def append_log(self, token: str, offset: int, data: bytes) -> int:
        end = super().append_log(token, offset, data)
        crash.point("head.log")
        self.output.ring()
        return end

    # -- what changes what waits -----------------------------------------------------------------------

    def submit(self, *args: Any, **options: Any) -> Sweep:
        sweep = super().submit(*args, **options)
        self._changed(None)  # it may be seen and sent already: by its own name all that would be forgotten
        return sweep

    def extend(self, uid: str, *args: Any, **options: Any) -> int:
        count = super().extend(uid, *args, **options)
        self._changed(uid)
        return count

    def open(self, uid: str) -> Sweep:
        sweep = super().open(uid)
        self._changed(uid)
        return sweep

    def requeue(self, uid: str, **options: Any) -> list[int]:
        found = super().requeue(uid, **options)
        self._changed(uid)
        return found

    def stop(self, uid: str, *args: Any, **options: Any) -> int:
        count = super().stop(uid, *args, **options)
        self._changed(uid)
        for watch in self.watches:
            watch.ordered()
        return count

    def hold(self, uid: str, *args: Any, **options: Any) -> int:
        count = super().hold(uid, *args, **options)
        self._changed(uid)
        return count

    def reopen(self, uid: str, *args: Any, **options: Any) -> list[int]:
        found = super().reopen(uid, *args, **options)
        self._changed(uid)
        return found

    def pause(self, uid: str, *args: Any, **options: Any) -> None:
        super().pause(uid, *args, **options)
        self._changed(uid)

    def remove(self, uid: str) -> None:
        super().remove(uid)
        self._changed(uid)
        for watch in self.watches:
            watch.ordered()

    # -- inside ----------------------------------------------------------------------------------------

    def look(self, token: str) -> Grant | None:
        """As `granted`, but no sign of life."""
        return super().granted(token)

    def folder_of(self, token: str) -> Path:
        """Where the attempt's files are kept. SweepError for a token that nobody was given."""
        return self._log_of(token).parent

    def _changed(self, uid: str | None) -> None:
        for watch in self.watches:
            watch.changed(uid)

    @contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            yield
        except (DiskFullError, LedgerError):
            self.leases.restart()
            raise
