"""Which trial a free slot tries next. Only hints: the ledger's claim decides."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from typing import Protocol

from sweepfw.ledger.interface import Ledger

WAIT = 0.15  # seconds between two looks for trials that others queue
BATCH = 256


class Heeding(Protocol):
    """Tells other processes whether what they queue is taken: SweepLock."""

    def heed(self) -> None: ...
    def stop_heeding(self) -> None: ...


class Supply:
    """Queued trials of one sweep, in the order of their numbers, for several slots at once.

    It is over when nothing is queued or running any more, when the sweep is paused and nothing runs, or when
    `end` was called. Whoever took a trial calls `done` for it. `heeding` is given up before it is over.
    """

    def __init__(
        self, ledger: Ledger, uid: str, only: Collection[int] | None = None, heeding: Heeding | None = None
    ) -> None:
        self._ledger, self._uid, self._heeding = ledger, uid, heeding
        self._only = None if only is None else frozenset(only)
        self._changed = threading.Condition()
        self._ready: deque[int] = deque()
        self._scanned = 0
        self._busy = 0
        self._paused = False
        self.over = False

    def take(self) -> int | None:
        """The next trial to try, or None when it is over. Blocks while others may still be queued again."""
        with self._changed:
            while not self.over:
                if self._ready or self._fill():
                    self._busy += 1
                    return self._ready.popleft()
                if not self._busy and self._nothing_left():
                    self.end()
                else:
                    self._changed.wait(WAIT)
            return None

    def _nothing_left(self) -> bool:
        if self._ledger.close(self._uid) or self._only:
            return True
        if not self._paused:
            return False
        # Who resumes a paused sweep asks first whether we heed: so stop that, then look once more.
        if self._heeding:
            self._heeding.stop_heeding()
        if self._ledger.sweep(self._uid).state != "running":
            return True
        if self._heeding:
            self._heeding.heed()
        self._paused = False
        return False

    def done(self, *, rest: float = 0) -> None:
        """A taken trial is out of hand. `rest`: its slot is not free; wait so long, or for the end."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()
            if rest:
                self._changed.wait_for(lambda: self.over, rest)

    def look_again(self, *, paused: bool) -> None:
        """The ledger was changed by others."""
        with self._changed:
            self._paused = paused
            self._scanned = 0
            if paused:
                self._ready.clear()
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing is given out any more."""
        with self._changed:
            if self._heeding and not self.over:
                self._heeding.stop_heeding()
            self.over = True
            self._changed.notify_all()

    def _fill(self) -> bool:
        """Look for queued trials: from where we were to the last, then from the first, since what is queued
        again has a lower number."""
        if self._paused:
            return False
        begun = self._scanned
        while not self._ready:
            found = self._queued(self._scanned)
            self._ready.extend(found)
            self._scanned = found[-1] if len(found) >= BATCH else 0
            if not self._scanned and not self._ready:
                if not begun:
                    return False
                begun = 0
        return True

    def _queued(self, after: int) -> list[int]:
        if self._only is None:
            return self._ledger.runnable(self._uid, after=after, limit=BATCH)
        return [t.number for t in self._ledger.trials(self._uid, states=["queued"], numbers=self._only)]
