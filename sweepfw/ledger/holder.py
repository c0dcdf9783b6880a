"""What the holder of a sweep does with it: begin, end, and clear up after one who died."""

from __future__ import annotations

import sqlite3
from typing import Literal

from sweepfw.core.model import Sweep, Worker
from sweepfw.ledger import rows, rules
from sweepfw.ledger.part import NEXT_ENDING, Part, find_sweep

_RUNNING = """
SELECT t.sweep, t.number, t.attempts
FROM trial t JOIN attempt a ON a.sweep = t.sweep AND a.trial = t.number AND a.number = t.attempts
WHERE t.state = 'running'
"""
_GIVE_UP = f"""
UPDATE attempt SET state = ?4, reason = ?5, ended = ?6, ending = {NEXT_ENDING}
WHERE sweep = ?1 AND trial = ?2 AND number = ?3
"""
_QUEUE_AGAIN = """
UPDATE trial SET state = iif(stop, 'cancelled', 'queued'), reason = iif(stop, ?3, ?4), ended = ?5,
  losses = losses + ?6, stop = 0
WHERE sweep = ?1 AND number = ?2
"""


class Holder(Part):
    def register(self, worker: Worker) -> None:
        """See Ledger.register."""
        with self._db.write() as db:
            db.execute(
                "INSERT INTO worker (host, boot, registered) VALUES (?, ?, ?) "
                "ON CONFLICT (host) DO UPDATE SET boot = excluded.boot, registered = excluded.registered",
                (worker.host, worker.boot, self._clock()),
            )
            left = db.execute(
                f"{_RUNNING} AND t.sweep IN (SELECT id FROM sweep) AND a.host = ? AND a.boot <> ?",
                (worker.host, worker.boot),
            ).fetchall()
            self._give_up(db, left, "lost", "its worker was started anew")

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
            left = db.execute(
                "SELECT 1 FROM trial WHERE sweep = ? AND state IN ('queued', 'running') LIMIT 1", (sweep,)
            ).fetchone()
            if left is None:
                db.execute(
                    "UPDATE sweep SET reason = '', ended = ?, state = iif(state = 'stopped', state, 'done') "
                    "WHERE id = ? AND ended IS NULL",
                    (self._clock(), sweep),
                )
            return left is None

    def leave(self, uid: str) -> None:
        """See Ledger.leave."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            db.execute("UPDATE sweep SET state = 'queued' WHERE id = ? AND state = 'running'", (sweep,))

    def requeue(self, uid: str, *, state: Literal["interrupted", "lost"], why: str) -> list[int]:
        """See Ledger.requeue."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            left = db.execute(f"{_RUNNING} AND t.sweep = ? ORDER BY t.number", (sweep,)).fetchall()
            self._give_up(db, left, state, why)
        return [trial for _, trial, _ in left]

    def _give_up(
        self, db: sqlite3.Connection, attempts: list[tuple[int, int, int]], state: str, why: str
    ) -> None:
        now, why = self._clock(), rows.clean(why)
        for sweep, trial, number in attempts:
            db.execute(_GIVE_UP, (sweep, trial, number, state, why, now))
            db.execute(_QUEUE_AGAIN, (sweep, trial, rules.STOPPED, why, now, state == "lost"))
