"""What there is to do, for a scheduler that asks after every change."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from sweepfw.core.model import Spec, Waiting
from sweepfw.ledger import rows
from sweepfw.ledger.part import Part

_AT_WORK = """
SELECT id, uid, name, created, (SELECT count(*) FROM trial WHERE sweep = sweep.id AND state = 'running')
FROM sweep WHERE state IN ('queued', 'running') ORDER BY id
"""
_QUEUED = "SELECT number, losses FROM trial WHERE sweep = ? AND state = 'queued' ORDER BY number LIMIT ?"


class Backlog(Part):
    def __init__(self, path: Path, runs: Path, clock: Callable[[], float]) -> None:
        super().__init__(path, runs, clock)
        self._known: tuple[int, dict[int, Spec]] = (0, {})  # as of so many changed specs; by sweep

    def waiting(self, limit: int) -> list[Waiting]:
        """The sweeps with trials that could be granted now, oldest first, each with its first `limit` ones.

        Cheap enough to be asked after every change: less than a millisecond, however many trials there are.
        Knows only those changes of sweeps' needs that `extend` of this object made.
        """
        changes = self._spec_changes  # before we read: what is read later is at least as new
        if self._known[0] != changes:
            self._known = (changes, {})
        known = self._known[1]
        found = []
        with self._db.read() as db:
            for sweep, uid, name, created, running in db.execute(_AT_WORK).fetchall():
                if trials := tuple(db.execute(_QUEUED, (sweep, limit)).fetchall()):
                    if sweep not in known:
                        known[sweep] = _spec(db, sweep)
                    spec = known[sweep]
                    found.append(Waiting(uid, name, created, spec.needs, running, trials, spec.at_once))
        return found


def _spec(db: sqlite3.Connection, sweep: int) -> Spec:
    (spec,) = db.execute("SELECT spec FROM sweep WHERE id = ?", (sweep,)).fetchone()
    return rows.load_spec(spec)
