"""Masking what a trial with secrets leaves behind: loaded only where there are any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EACCES

from sweepfw.masking import Masker, cover, mask, spans
from sweepfw.trial.guard.files import open_plain
from sweepfw.trial.guard.log import BoundedLog

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from sweepfw.trial.guard.messages import Outcome

_CHUNK = 1 << 20


class MaskedLog(BoundedLog):
    """As BoundedLog. No needle reaches the file, and what it counts are the bytes that do."""

    def __init__(self, path: str, limit: int, needles: Sequence[bytes]) -> None:
        super().__init__(path, limit)
        self._masker = Masker(needles)

    def write(self, data: bytes) -> None:
        super().write(self._masker.feed(data))

    def close(self) -> None:
        super().write(self._masker.end())
        super().close()


def hide(outcome: Outcome, folder: str, needles: Sequence[bytes]) -> OSError | None:
    """Mask the texts in an outcome that the trial had a part in, and what it reported; why that could not be
    masked."""
    if outcome["error"]:
        outcome["error"]["text"] = _masked(outcome["error"]["text"], needles)
    if outcome["log_error"]:
        outcome["log_error"] = _masked(outcome["log_error"], needles)
    outcome["left"] = [(_masked(name, needles), size) for name, size in outcome["left"]]
    return cover_reports(folder, needles)


def cover_reports(folder: str, needles: Sequence[bytes]) -> OSError | None:
    """Mask what an attempt reported; why that could not be: then it is not kept either."""
    path = f"{folder}/metrics.jsonl"
    try:
        cover_file(path, needles)
    except OSError as error:
        try:
            os.unlink(path)
        except OSError:
            pass  # nobody may change anything there
        return OSError(error.errno, f"metrics.jsonl can't be masked: {error.strerror}")
    return None


def _masked(text: str, needles: Sequence[bytes]) -> str:
    return os.fsdecode(mask(os.fsencode(text), needles))


def cover_file(path: str, needles: Sequence[bytes]) -> None:
    """Mask a file in its place, byte for byte, so that who reads it from an offset on is not misled.

    Raises OSError where there is something to mask and it can't be.
    """
    overlap = max(map(len, needles), default=1) - 1
    try:
        fd = open_plain(path)
    except OSError:
        return  # not there, or nothing that anybody reads
    try:
        at = 0
        while len(data := os.pread(fd, _CHUNK + overlap, at)) > 0:
            if spans(data, needles):
                _write(path, at, cover(data, needles))
            at += _CHUNK
    finally:
        os.close(fd)


def _write(path: str, at: int, data: bytes) -> None:
    try:
        fd = open_plain(path, os.O_WRONLY)
    except OSError as error:
        if error.errno != EACCES:
            raise
        os.chmod(path, 0o600)  # the trial took our right to write it
        fd = open_plain(path, os.O_WRONLY)
    try:
        while data:
            count = os.pwrite(fd, data, at)
            data, at = data[count:], at + count
    finally:
        os.close(fd)
