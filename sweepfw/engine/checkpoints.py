"""A trial's checkpoint folder on a host: brought from the head where another host wrote it, and sent back."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sweepfw import crash
from sweepfw.core.model import Grant, Outcome, Receipt
from sweepfw.engine.packs import Survey, packed, survey, unpack
from sweepfw.engine.shipping import Head


class Checkpoint:
    """The folder of one trial while one attempt of it runs here. Safe from several threads."""

    def __init__(
        self,
        head: Head,
        grant: Grant,
        trial: str,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head, self._grant, self._trial = head, grant, trial
        self._folder = f"{trial}/checkpoint"
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
        if before == 0 or Path(self._trial, str(before), "params.json").exists():
            return
        pieces = self._head.desk.checkpoint(self._grant.token)
        if pieces is None:
            return
        new, folder = Path(self._trial, "checkpoint.new"), Path(self._folder)
        shutil.rmtree(new, ignore_errors=True)
        try:
            unpack(pieces, new)
            crash.point("worker.checkpoint")
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        self._sent = survey(self._folder)

    def send_if_due(self) -> None:
        """Send it if it changed and the time has come. Raises SweepError and OSError."""
        if self._wanted and self._clock() >= self._due:
            try:
                self.send()
            finally:  # also what was refused is not packed again at once
                self._due = self._clock() + self._every

    def send(self) -> None:
        """Send it if it changed since, and holds anything."""
        with self._lock:
            found = survey(self._folder)
            if not found or found == self._sent or not self._wanted:
                return
            size = sum(row[1] for row in found.values())
            with packed(self._folder, found, self._head.scratch, size) as pack:
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
        if receipt.accepted and survey(self._folder):  # an empty one is its keeper's, for the next trial
            crash.point("worker.accepted")
            shutil.rmtree(self._folder, ignore_errors=True)
