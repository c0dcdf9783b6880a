"""Attempts' output, stored by offset in the files that the workspace keeps for people."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from sweepfw.errors import LedgerError, SweepError
from sweepfw.ledger import faults
from sweepfw.ledger.part import Part


class Logs(Part):
    def __init__(self, path: Path, runs: Path, clock: Callable[[], float]) -> None:
        super().__init__(path, runs, clock)
        self._log_lock = threading.Lock()

    def append_log(self, token: str, offset: int, data: bytes) -> int:
        """See Ledger.append_log. SweepError for bytes that begin beyond the log's end or before its start,
        and for a token that nobody was given."""
        log = self._log_of(token)
        with self._log_lock:
            try:
                return _store(log, offset, data)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise faults.disk_full(log) from error
                raise LedgerError(f"{log}: the output can't be stored ({error.strerror})") from error

    def _log_of(self, token: str) -> Path:
        with self._db.read() as db:
            row = db.execute(
                "SELECT s.name, a.trial, a.number FROM attempt a JOIN sweep s ON s.id = a.sweep "
                "WHERE a.token = ?",
                (token,),
            ).fetchone()
        if row is None:
            raise SweepError("no attempt has this token; its sweep was removed")
        name, trial, number = (str(part) for part in row)
        return self._runs / name / "trials" / trial / number / "output.log"


def _store(log: Path, offset: int, data: bytes) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = os.fstat(file).st_size
        if not 0 <= offset <= end:
            raise SweepError(f"{log}: bytes from {offset} on don't join the log, which ends at {end}")
        new = memoryview(data)[end - offset :]  # the answer may have been lost: what is there is there
        while new:
            written = os.pwrite(file, new, end)
            end += written
            new = new[written:]
        return end
    finally:
        os.close(file)
