"""What the holder of a sweep does with it: begin, end, and clear up after one who died."""

from __future__ import annotations

import sqlite3
from typing import Literal

from sweepfw import crash
from sweepfw.core.model import Sweep
from sweepfw.ledger import leases, rows, rules
from sweepfw.ledger.part import Part, find_sweep

_RUNNING = """
SELECT t.sweep, t.number, t.attempts
FROM trial t JOIN attempt a ON a.sweep = t.sweep AND a.trial = t.number AND a.number = t.attempts
WHERE t.sweep = ? AND t.state = 'running' ORDER BY t.number
"""
_QUEUE_AGAIN = """
UPDATE trial SET state = iif(stop, 'cancelled', 'queued'), reason = iif(stop, ?3, ?4), ended = ?5,
  losses = losses + ?6, stop = 0
WHERE sweep = ?1 AND number = ?2
"""
_LEAVE = "UPDATE sweep SET state = 'queued' WHERE id = ? AND state = 'running'"


class Holder(Part):
    def open(self, uid: str) -> Sweep:
        """See Ledger.open."""
        with self._db.write() as db:
            db.execute(
                "UPDATE sweep SET state = 'running', reason = '', ended = NULL WHERE uid = ? AND state IN "
                "('queued', 'paused', 'stopped')",
                (uid,),
            )
            row = find_sweep(db, uid, rows.SWEEP)
            counts = db.execute(
                "SELECT state, count(*) FROM trial WHERE sweep = (SELECT id FROM sweep WHERE uid = ?) "
                "GROUP BY state",
                (uid,),
            ).fetchall()
        return rows.sweep(row, rows.tally(counts))

    def close(self, uid: str) -> bool:
        """See Ledger.close. A sweep that was stopped stays `stopped`: its end was not reached."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            if _any(db, sweep, "queued") or _any(db, sweep, "running"):
                return False
            if _any(db, sweep, "held"):
                db.execute(_LEAVE, (sweep,))
            else:
                db.execute(
                    "UPDATE sweep SET reason = '', ended = ?, state = iif(state = 'stopped', state, 'done') "
                    "WHERE id = ? AND ended IS NULL",
                    (self._clock(), sweep),
                )
        crash.point("close.committed")
        return True

    def leave(self, uid: str) -> None:
        """See Ledger.leave."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            db.execute(_LEAVE, (sweep,))

    def requeue(self, uid: str, *, state: Literal["interrupted", "lost"], why: str) -> list[int]:
        """See Ledger.requeue."""
        now, why = self._clock(), rows.clean(why)
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            for attempt in leases.expired(db, sweep):
                leases.give_up(db, attempt, state, why, now)
            running = db.execute(_RUNNING, (sweep,)).fetchall()
            for attempt in running:
                leases.give_up(db, attempt, state, why, now)
                again = (*attempt[:2], rules.STOPPED, why, now, state == "lost")
                db.execute(_QUEUE_AGAIN, again)
        return [trial for _, trial, _ in running]


def _any(db: sqlite3.Connection, sweep: int, state: str) -> bool:
    query = "SELECT 1 FROM trial WHERE sweep = ? AND state = ? LIMIT 1"
    return db.execute(query, (sweep, state)).fetchone() is not None
