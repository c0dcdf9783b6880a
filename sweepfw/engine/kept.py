"""What attempts leave at the head, for their hosts and for people (a part of the head's desk)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import LogPart
from sweepfw.core.model import Attempt, Grant, Outcome, Receipt
from sweepfw.core.naming import label
from sweepfw.engine import keeping
from sweepfw.engine.leases import LeasedLedger
from sweepfw.errors import SweepError


class Kept:
    """Logs, small files and checkpoints. What a head before this one had begun to write goes."""

    def __init__(self, place: Workspace, ledger: LeasedLedger) -> None:
        self._place, self._ledger = place, ledger
        self._drafts = keeping.emptied(place.state / "drafts")

    # -- from their hosts ------------------------------------------------------------------------------

    def keep(self, token: str, pack: IO[bytes]) -> None:
        """See Desk.keep."""
        keeping.unpack(pack, self._ledger.folder_of(token), self._drafts)
        crash.point("head.kept")

    def conclude(
        self, token: str, offset: int, log: bytes, files: Mapping[str, bytes], outcome: Outcome
    ) -> Receipt:
        """See Desk.conclude."""
        folder = self._ledger.folder_of(token)
        if log:
            self._ledger.append_log(token, offset, log)
        keeping.write(files, folder, self._drafts)
        crash.point("head.concluded")
        return self._ledger.finish(token, outcome)

    def put_checkpoint(self, token: str, pack: IO[bytes]) -> bool:
        """See Desk.put_checkpoint."""
        grant = self._ledger.granted(token)
        if grant is None:
            return False
        path = self._checkpoint(grant)
        draft = keeping.store(pack, path, self._drafts)
        if self._ledger.granted(token) is None:  # it takes a while: another attempt may have begun
            draft.unlink()
            return False
        crash.point("head.checkpoint")
        draft.replace(path)
        crash.point("head.checkpointed")
        return True

    def checkpoint(self, token: str) -> Iterator[bytes] | None:
        """See Desk.checkpoint."""
        grant = self._ledger.granted(token)
        try:
            return None if grant is None else keeping.pieces(self._checkpoint(grant))
        except FileNotFoundError:
            return None

    def _checkpoint(self, grant: Grant) -> Path:
        return self._place.trial(grant.sweep, grant.trial) / "checkpoint.tar"

    # -- for people ------------------------------------------------------------------------------------

    def read_log(self, uid: str, trial: int, attempt: int, offset: int, wait: float = 0) -> LogPart:
        """See Desk.read_log."""
        deadline = time.monotonic() + wait
        path = self._folder(uid, trial, attempt) / keeping.LOG
        while True:
            rings = self._ledger.output.rings
            ended = self._attempt(uid, trial, attempt).state != "running"
            data, size = _read(path, offset)
            if data or ended or not self._ledger.output.wait(rings, deadline - time.monotonic()):
                return LogPart(data, ended and offset + len(data) >= size)

    def files(self, uid: str, trial: int, attempt: int) -> dict[str, int]:
        """See Desk.files."""
        self._attempt(uid, trial, attempt)
        return keeping.listed(self._folder(uid, trial, attempt))

    def file(self, uid: str, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        """See Desk.file."""
        if path not in self.files(uid, trial, attempt):
            where = label(self._ledger.sweep(uid).name, trial, attempt)
            raise SweepError(f"{where}: the head keeps no file {path[:200]!r}")
        return keeping.pieces(self._folder(uid, trial, attempt) / path)

    def _attempt(self, uid: str, trial: int, attempt: int) -> Attempt:
        for found in self._ledger.attempts(uid, trial):
            if found.number == attempt:
                return found
        raise SweepError(f"{label(self._ledger.sweep(uid).name, trial, attempt)}: there is no such attempt")

    def _folder(self, uid: str, trial: int, attempt: int) -> Path:
        return self._place.attempt(self._ledger.sweep(uid).name, trial, attempt)


def _read(path: Path, offset: int) -> tuple[bytes, int]:
    """Bytes from offset on, and the file's size."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(max(0, offset), size))
            return file.read(keeping.PIECE), size
    except FileNotFoundError:
        return b"", 0
