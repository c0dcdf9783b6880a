"""Which trial a free slot tries next. Only hints: the ledger's claim decides."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection

from sweepfw.ledger.interface import Ledger

WAIT = 0.15  # seconds between two looks for trials that others queue
BATCH = 256


class Supply:
    """Queued trials of one sweep, in the order of their numbers, for several slots at once.

    It is over when nothing is queued or running any more, when the sweep is paused and nothing runs, or when
    `end` was called. Whoever took a trial calls `done` for it.
    """

    def __init__(self, ledger: Ledger, uid: str, only: Collection[int] | None = None) -> None:
        self._ledger, self._uid = ledger, uid
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
                if not self._busy and (self._paused or self._only or self._ledger.close(self._uid)):
                    self.end()
                else:
                    self._changed.wait(WAIT)
            return None

    def done(self, *, rest: float = 0) -> None:
        """A taken trial is out of hand. `rest`: its slot was not free; wait so many seconds for a change."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()
            if rest and not self.over:
                self._changed.wait(rest)

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
