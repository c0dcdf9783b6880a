"""Following an attempt's output.log while it grows: the output as a stream, also beyond its limit."""

from __future__ import annotations

import os

from sweepfw.trial.guard.files import open_plain
from sweepfw.trial.guard.log import place

_CHUNK = 1 << 18


class Follower:
    """Reads the output of one attempt, in order. `offset` counts bytes of the output, not of the file.

    Used by the keeper's client, which is told by `LogGrew` and `log_bytes` how much was printed. The file
    that was opened first stays open: a long log is put in order in another file of the same name. Who
    begins only then is given that file as it is, with the line that says what is missing.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = max(limit, 2)
        self._fd = -1
        self._in_order = False
        self.offset = 0
        self.skipped = 0  # bytes that were overwritten before they were read

    def read(self, total: int) -> bytes:
        """The next bytes, at most 256 KiB, of the `total` that were printed; empty where that is all.

        What was overwritten meanwhile is left out and counted. Raises OSError.
        """
        if self._fd < 0:
            self._fd = open_plain(self._path)
            self._in_order = os.fstat(self._fd).st_size > self._limit
        if self._in_order:
            return self._pass_on(self.offset, _CHUNK)
        oldest = total - (self._limit - self._limit // 2)
        if total > self._limit and self._limit // 2 <= self.offset < oldest:
            self.skipped += oldest - self.offset
            self.offset = oldest
        start = place(self.offset, self._limit)
        count = min(total - self.offset, self._limit - start, _CHUNK)
        if self.offset < self._limit // 2:
            count = min(count, self._limit // 2 - self.offset)
        return self._pass_on(start, max(count, 0))

    def _pass_on(self, start: int, count: int) -> bytes:
        data = os.pread(self._fd, count, start)
        self.offset += len(data)
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
