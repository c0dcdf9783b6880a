"""A trial's checkpoint folder on a host: brought from the head where another host wrote it, and sent back."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sweepfw.core.model import Grant, Outcome, Receipt
from sweepfw.engine.packs import Survey, packed, survey, unpack
from sweepfw.engine.shipping import Head


class Checkpoint:
    """The folder of one trial while one attempt of it runs here. Safe from several threads."""

    def __init__(
        self,
        head: Head,
        grant: Grant,
        trial: Path,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head, self._grant, self._trial = head, grant, trial
        self._folder = trial / "checkpoint"
        self._every, self._clock = every, clock
        self._due = clock() + every
        self._lock = threading.Lock()
        self._sent: Survey = {}  # what the head has
        self._wanted = True  # False once the head said that it takes no more from this attempt

    def fetch(self) -> None:
        """Have the newest one in the trial's folder. Raises SweepError and OSError.

        If the attempt before ran here, that is what lies here: at least as new as the head's.
        """
        before = self._grant.attempt - 1
        if before == 0 or (self._trial / str(before) / "params.json").exists():
            return
        pieces = self._head.desk.checkpoint(self._grant.token)
        if pieces is None:
            return
        new = self._trial / "checkpoint.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            unpack(pieces, new)
            if self._folder.exists():
                shutil.rmtree(self._folder)
            new.rename(self._folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        self._sent = survey(str(self._folder))

    def send_if_due(self) -> None:
        """Send it if it changed and the time has come. Raises SweepError and OSError."""
        if self._wanted and self._clock() >= self._due:
            self.send()
            self._due = self._clock() + self._every

    def send(self) -> None:
        """Send it if it changed since, and holds anything."""
        with self._lock:
            found = survey(str(self._folder))
            if not found or found == self._sent or not self._wanted:
                return
            with packed(str(self._folder), found, self._head.scratch) as pack:
                self._wanted = self._head.insist(lambda: self._put(pack))
            self._sent = found

    def _put(self, pack: IO[bytes]) -> bool:
        pack.seek(0)
        return self._head.desk.put_checkpoint(self._grant.token, pack)

    def end(self, outcome: Outcome) -> None:
        """The attempt is over: the next one may need it, wherever it runs."""
        if outcome.state != "succeeded":
            self.send()

    def drop(self, receipt: Receipt) -> None:
        """Nobody needs it once the trial has its success."""
        if receipt.accepted:
            shutil.rmtree(self._folder, ignore_errors=True)
