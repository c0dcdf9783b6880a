"""What SQLite reports, in words that people can act on."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sweepfw.errors import BusyError, DiskFullError, LedgerError, SweepError

_AWAY = (
    "move it away (with its -wal and -shm files) and put a backup in its place, or start anew: "
    "outputs and logs are plain files under runs/"
)
_SMALLEST_ROOM = 1_000_000  # bytes; a file system with less counts as full


def explain(error: sqlite3.Error, path: Path) -> SweepError:
    """The error to raise instead of SQLite's own; nothing was changed when it is raised."""
    name: str = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_full(path)):
        return disk_full(path)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return BusyError(f"{path}: another process keeps the ledger locked; try again when it is done")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "decode to UTF-8" in str(error):
        return torn(path)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return unwritable(path, "can't be opened for writing")
    if name.startswith("SQLITE_IOERR"):
        return LedgerError(f"{path}: the disk failed ({name}); check the disk and its limits, then go on")
    return LedgerError(f"{path}: the ledger refused a change ({error}); please report this as a bug")


def disk_full(path: Path) -> DiskFullError:
    return DiskFullError(f"{path}: the disk is full; make room and go on (what was recorded is safe)")


def torn(path: Path) -> LedgerError:
    return LedgerError(f"{path}: the ledger is damaged or is no ledger; {_AWAY}")


def garbled() -> LedgerError:
    """What lies in the ledger can be read, and is not what anybody wrote there."""
    return LedgerError(f"the ledger is damaged, a record of it can't be understood; {_AWAY}")


def unwritable(path: Path, what: str) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger {what}; run sweepfw as its owner, in a folder that can be written"
    )


def _is_full(path: Path) -> bool:
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _SMALLEST_ROOM or (room.f_files > 0 and room.f_favail == 0)
