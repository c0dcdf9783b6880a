"""What the parts of SqliteLedger share."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sweepfw.ledger import names
from sweepfw.ledger.database import Database

# Ends are numbered in each sweep, so that readers can ask for those after the last they know. ?1: the sweep.
NEXT_ENDING = "(SELECT coalesce(max(ending), 0) + 1 FROM attempt WHERE sweep = ?1 AND ending > 0)"
_TOKEN = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Part:
    """The database, the folder of the runs, and the time. Its subclasses add the interface's methods."""

    def __init__(self, path: Path, runs: Path, clock: Callable[[], float]) -> None:
        self._db = Database(path)
        self._runs = runs
        self._clock = clock
        self._spec_changes = 0  # how many specs changed; counted up after the commit


def find_sweep(db: sqlite3.Connection, uid: str, columns: str) -> tuple[Any, ...]:
    """The columns of a sweep by its uid; SweepError where there is none."""
    row: tuple[Any, ...] | None = db.execute(
        f"SELECT {columns} FROM sweep WHERE uid = ?",
        (uid,),
    ).fetchone()
    if row is None:
        known = [name for (name,) in db.execute("SELECT name FROM sweep")]
        raise names.unknown_sweep(uid, known)
    return row


def count_trials(db: sqlite3.Connection, sweep: int) -> int:
    """How many trials the sweep has: they are numbered from 1 without gaps."""
    return int(
        db.execute("SELECT coalesce(max(number), 0) FROM trial WHERE sweep = ?", (sweep,)).fetchone()[0]
    )


def check_trials(db: sqlite3.Connection, sweep: int, name: str, numbers: Collection[int]) -> None:
    """SweepError for the first number that is no trial of the sweep's."""
    total = count_trials(db, sweep)
    for number in numbers:
        if not 1 <= number <= total:
            raise names.unknown_trial(name, number, total)


def fresh_token() -> str:
    """64 random bits in hex: nobody guesses it, and none comes twice."""
    return os.urandom(8).hex()


def is_token(text: str) -> bool:
    """Whether it looks like one of them: also safe as a file's name."""
    return _TOKEN.fullmatch(text) is not None
