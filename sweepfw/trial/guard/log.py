"""An attempt's output.log: all of a short output, the first and the last half of a long one.

Up to its limit the file is the output, byte for byte, and grows at its end. Beyond, its second half is a
ring: byte number n of the output lies at `place(n, limit)`. At the end the file is replaced by one in
order: the first half, a line that says how many bytes are missing, the last half. Who follows a log keeps
the file open that it began with, and so is not disturbed by that (`follow.py`).
"""

from __future__ import annotations

import os

from sweepfw.trial.guard.files import copy_range, open_plain, write_all


def place(offset: int, limit: int) -> int:
    """Where in the growing file byte number `offset` of the output is written."""
    if offset < limit:
        return offset
    head = limit // 2
    return head + (offset - head) % (limit - head)


class BoundedLog:
    """Never fails and never fills memory: after the first error, in `error`, it only counts.

    Nothing is written after such a gap, so that what is there is always the output's true beginning.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = max(limit, 2)
        self._written = 0  # bytes of the output that reached the file, some of them overwritten since
        self.total = 0  # bytes printed
        self.error: OSError | None = None
        self._fd = open_plain(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    @property
    def kept(self) -> int:
        """Bytes of the output that are in the file."""
        return min(self._written, self._limit)

    def write(self, data: bytes) -> None:
        self.total += len(data)
        if self.error:
            return
        try:
            self._spread(memoryview(data))
        except OSError as error:
            self.error = error

    def _spread(self, data: memoryview) -> None:
        limit = self._limit
        while data:
            start = place(self._written, limit)
            count = os.pwrite(self._fd, data[: limit - start], start)
            self._written += count
            data = data[count:]

    def close(self) -> None:
        """Bring a long log into order, and close it."""
        try:
            if self._written > self._limit:
                self._straighten()
        except OSError as error:
            self.error = self.error or error
        finally:
            os.close(self._fd)

    def _straighten(self) -> None:
        limit, head = self._limit, self._limit // 2
        oldest = place(self._written, limit)
        lost = self._written - limit
        mark = f"\n[sweepfw: {lost} bytes left out here; log_limit is {limit}]\n".encode()
        part = self._path + ".part"
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            copy_range(self._fd, target, 0, head)
            write_all(target, mark)
            copy_range(self._fd, target, oldest, limit - oldest)
            copy_range(self._fd, target, head, oldest - head)
            os.rename(part, self._path)
        except OSError:
            os.unlink(part)
            raise
        finally:
            os.close(target)
