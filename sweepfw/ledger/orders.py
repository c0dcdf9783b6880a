"""What people order: pause, stop, reopen, remove."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from sweepfw import crash
from sweepfw.core.model import TrialState
from sweepfw.errors import SweepError
from sweepfw.ledger import leases, rows, rules
from sweepfw.ledger.part import Part, check_trials, find_sweep

# Which trials are meant; ?1: the sweep, ?2: JSON list of numbers, or null for all.
_MEANT = "sweep = ?1 AND (?2 IS NULL OR number IN (SELECT value FROM json_each(?2)))"
_CANCEL = f"""
UPDATE trial SET state = 'cancelled', reason = ?3, ended = ?4 WHERE {_MEANT} AND state IN ('queued', 'held')
"""
_ASK = f"UPDATE trial SET stop = max(stop, ?3) WHERE {_MEANT} AND state = 'running'"
_REOPEN = f"""
UPDATE trial SET state = 'queued', reason = '', stop = 0, failures = '{{}}', losses = 0,
  next_snapshot = coalesce(?4, next_snapshot)
WHERE {_MEANT} AND state IN (SELECT value FROM json_each(?3)) RETURNING number
"""


_HOLD = """
UPDATE trial SET state = 'held', reason = '' WHERE sweep = ?1 AND state = 'queued'
  AND number NOT IN (SELECT value FROM json_each(?2))
"""


def hold(db: sqlite3.Connection, sweep: int, but: Collection[int]) -> int:
    """The sweep's queued trials of other numbers than these are held; how many."""
    return db.execute(_HOLD, (sweep, json.dumps(list(but)))).rowcount


class Orders(Part):
    def pause(self, uid: str, reason: str = "") -> None:
        """See Ledger.pause. A sweep that is stopped or done stays so: nothing would be granted anyway."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            db.execute(
                "UPDATE sweep SET state = 'paused', reason = ? WHERE id = ? "
                "AND state NOT IN ('stopped', 'done')",
                (rows.clean(reason), sweep),
            )
        crash.point("pause.committed")

    def stop(self, uid: str, trials: Collection[int] | None = None, *, now: bool = False) -> int:
        """See Ledger.stop. A sweep that is done stays done."""
        with self._db.write() as db:
            sweep, name = find_sweep(db, uid, "id, name")
            check_trials(db, sweep, name, trials or ())
            numbers = None if trials is None else json.dumps(list(trials))
            self._end_expired(db, sweep, trials)
            cancelled = db.execute(_CANCEL, (sweep, numbers, rules.STOPPED, self._clock())).rowcount
            asked = db.execute(_ASK, (sweep, numbers, 2 if now else 1)).rowcount
            if trials is None:
                db.execute(
                    "UPDATE sweep SET state = 'stopped', reason = '' WHERE id = ? AND state <> 'done'",
                    (sweep,),
                )
        crash.point("stop.committed")
        return cancelled + asked

    def _end_expired(self, db: sqlite3.Connection, sweep: int, trials: Collection[int] | None) -> None:
        """The attempts of what is cancelled that could have been revived."""
        for attempt in leases.expired(db, sweep):
            if trials is None or attempt[1] in trials:
                leases.give_up(db, attempt, "lost", rules.SILENT, self._clock())

    def hold(self, uid: str, but: Collection[int]) -> int:
        """See Ledger.hold."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            return hold(db, sweep, but)

    def reopen(
        self,
        uid: str,
        states: Collection[TrialState],
        trials: Collection[int] | None = None,
        *,
        snapshot: str | None = None,
    ) -> list[int]:
        """See Ledger.reopen. Running trials can't be reopened either."""
        for state in ("succeeded", "running"):
            if state in states:
                raise SweepError(
                    f"a trial that {_IS[state]} can't be queued again; choose failed or cancelled"
                )
        with self._db.write() as db:
            sweep, name = find_sweep(db, uid, "id, name")
            check_trials(db, sweep, name, trials or ())
            numbers = None if trials is None else json.dumps(list(trials))
            found = db.execute(_REOPEN, (sweep, numbers, json.dumps(list(states)), snapshot)).fetchall()
            if found:
                db.execute(
                    "UPDATE sweep SET state = 'queued', ended = NULL WHERE id = ? AND state = 'done'",
                    (sweep,),
                )
        crash.point("reopen.committed")
        return sorted(number for (number,) in found)

    def remove(self, uid: str) -> None:
        """See Ledger.remove."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            db.execute("DELETE FROM attempt WHERE sweep = ?", (sweep,))
            db.execute("DELETE FROM trial WHERE sweep = ?", (sweep,))
            db.execute("DELETE FROM sweep WHERE id = ?", (sweep,))
        crash.point("remove.committed")


_IS = {"succeeded": "succeeded", "running": "runs"}
