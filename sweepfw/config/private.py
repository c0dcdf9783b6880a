"""Files for their owner only: written so, and refused when somebody changed that."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from shlex import quote

from sweepfw import crash
from sweepfw.errors import SweepError


def read_private(
    path: Path, if_read: str = "and if somebody may have read it, bring the deployment down and up anew"
) -> bytes:
    """SweepError where it is not there, is somebody else's, or could have been read or changed by others;
    `if_read` says what to do about that."""
    try:
        with path.open("rb") as file:
            _check(path, os.fstat(file.fileno()), 0o077, if_read)
            # Who may write in the folder may have put another file in its place.
            _check(path.parent, path.parent.stat(), 0o022, if_read)
            return file.read()
    except OSError as error:
        raise SweepError(f"{path}: can't be read ({error.strerror})") from None


def _check(path: Path, found: os.stat_result, forbidden: int, if_read: str) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        raise SweepError(
            f"{path}: belongs to somebody else; it must be yours: chown {os.geteuid()} {quote(str(path))}"
        )
    if found.st_mode & forbidden:
        right = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise SweepError(
            f"{path}: others can get at it, and it holds secrets: chmod {right} {quote(str(path))}, {if_read}"
        )


def write_private(path: Path, data: bytes) -> None:
    """Write it as a whole or not at all, also when the machine stops; folders that are missing are made,
    the last one for its owner only."""
    try:
        if not path.parent.is_dir():
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.parent.mkdir(mode=0o700)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123  # a mode from the start
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        crash.point("private.draft")
        new.replace(path)
    except OSError as error:
        raise SweepError(f"{path}: can't be written ({error.strerror})") from None
