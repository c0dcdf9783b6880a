"""One attempt's output.log, read while it grows, turns over its limit, and is put in order at the end.

Below its limit the file is the output. Over it, its second half is written round and round until the attempt
ends; then a file in order replaces it: first half, a line that tells what is missing, last half. So a reader
without the writer's own count can trust the second half only while the file is shorter than its limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

_CHUNK = 1 << 18
_MARK = re.compile(rb"\n\[sweepfw: (\d+) bytes left out here; log_limit is \d+\]\n")


class Log:
    """Hands on every byte once, in order. A file that isn't there yet is empty."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, max(limit, 2)
        self._file: IO[bytes] | None = None
        self._shown = 0  # bytes of the output that were handed on
        self._full = False  # the second half turns: wait for the end
        self._done = False

    def read(self, write: Callable[[bytes], object], *, ended: bool) -> bool:
        """Hand on what there is; whether there was something. `ended`: nothing writes any more."""
        if self._done:
            return False
        if ended:
            self._done = True
            return self._finish(write)
        if self._full or not self._opened():
            return False
        assert self._file is not None
        data = os.pread(self._file.fileno(), _CHUNK, self._shown)
        if os.fstat(self._file.fileno()).st_size >= self._limit:
            self._full = True  # it may have turned while we read
            data = data[: max(0, self._limit // 2 - self._shown)]
        return self._hand_on(data, write)

    def _opened(self) -> bool:
        from sweepfw.trial.guard.files import open_plain

        try:
            self._file = self._file or os.fdopen(open_plain(str(self._path)), "rb")
        except PermissionError:
            raise
        except OSError:  # not there, or what a trial may have put in its place
            return False
        return True

    def _hand_on(self, data: bytes, write: Callable[[bytes], object]) -> bool:
        if data:
            write(data)
        self._shown += len(data)
        return bool(data)

    def _finish(self, write: Callable[[bytes], object]) -> bool:
        """All that is left, from the file as it was left."""
        self.close()
        if not self._opened():
            return False
        assert self._file is not None
        head, before = self._limit // 2, self._shown
        self._file.seek(min(head, self._shown))
        if self._shown > head and (mark := _MARK.match(self._file.read(128))):
            self._skip_to(head, mark, write)
        else:
            self._file.seek(self._shown)
        while data := self._file.read(_CHUNK):
            self._hand_on(data, write)
        return self._shown > before

    def _skip_to(self, head: int, mark: re.Match[bytes], write: Callable[[bytes], object]) -> None:
        """To the first byte of the last half that was not handed on; tell what is lost before it."""
        assert self._file is not None
        lost = head + int(mark[1]) - self._shown
        self._file.seek(head + mark.end() + max(0, -lost))
        if lost > 0:
            write(mark[0].replace(mark[1], str(lost).encode(), 1))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
