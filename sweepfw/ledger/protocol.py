"""How those who run a trial deal with the ledger: claim and finish."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from sweepfw import crash
from sweepfw.core.model import Denial, Grant, Outcome, Receipt, Worker
from sweepfw.errors import SweepError
from sweepfw.ledger import leases, names, rows, rules
from sweepfw.ledger.part import NEXT_ENDING, Part, count_trials, find_sweep, fresh_token

_CLAIM = """
SELECT s.id, s.name, s.state, s.snapshot,
  t.state, t.attempts, t.next_snapshot, t.params, t.repeat, t.failures, t.losses
FROM sweep s LEFT JOIN trial t ON t.sweep = s.id AND t.number = ?
WHERE s.uid = ?
"""
_GRANT = """
UPDATE trial SET state = 'running', stop = 0, reason = '', attempts = ?, started = ?, ended = NULL,
  snapshot = ?
WHERE sweep = ? AND number = ? AND state = 'queued'
"""
_ATTEMPT = """
INSERT INTO attempt (sweep, trial, number, token, claim_id, host, boot, slot, snapshot, started)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_CURRENT = """
SELECT a.sweep, a.trial, a.number, a.state, a.recorded, a.accepted, a.answer,
  t.state, t.stop, t.failures, t.losses
FROM attempt a JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial
WHERE a.token = ?
"""
_END = f"""
UPDATE attempt SET state = ?4, reason = ?5, exit_code = ?6, ended = ?7, metrics = ?8, outcome = ?9,
  accepted = ?10, recorded = 1, answer = ?11, ending = {NEXT_ENDING}
WHERE sweep = ?1 AND trial = ?2 AND number = ?3
"""
_STALE = """
UPDATE attempt SET state = 'stale', reason = ?4, exit_code = ?5, metrics = ?6, outcome = ?7, recorded = 0,
  answer = ?8
WHERE sweep = ?1 AND trial = ?2 AND number = ?3
"""
_TRIAL_END = """
UPDATE trial SET state = ?3, reason = ?4, ended = ?5, failures = ?6, losses = ?7, stop = 0,
  metrics = CASE WHEN ?9 OR ?8 <> '{}' THEN ?8 ELSE metrics END
WHERE sweep = ?1 AND number = ?2
"""


class Protocol(Part):
    def runnable(self, uid: str, *, after: int = 0, limit: int = 100) -> list[int]:
        """See Ledger.runnable."""
        with self._db.read() as db:
            sweep, state = find_sweep(db, uid, "id, state")
            if state in ("paused", "stopped"):
                return []
            found = db.execute(
                "SELECT number FROM trial WHERE sweep = ? AND state = 'queued' AND number > ? "
                "ORDER BY number LIMIT ?",
                (sweep, after, limit),
            )
            return [number for (number,) in found]

    def claim(self, uid: str, trial: int, worker: Worker, slot: str, claim_id: str) -> Grant | Denial:
        """See Ledger.claim."""
        with self._db.write(lazily=True) as db:
            row = db.execute(_CLAIM, (trial, uid)).fetchone()
            if row is None or row[4] is None:
                raise _not_there(db, uid, trial)
            sweep, name, sweep_state, snapshot, state, attempts, next_snapshot, *rest = row
            if attempts and (earlier := _granted_before(db, sweep, trial, claim_id)):
                number, token, ran, attempt_state = earlier
                if attempt_state != "running":  # it arrives late: nobody waits for its answer any more
                    return Denial("no", "this claim was granted before, and its attempt has ended")
                if state in leases.EXPIRED:
                    leases.revive(db, token)
                    rest[-1] = max(0, rest[-1] - 1)
                return rows.grant(uid, name, trial, tuple(rest), (number, token, ran))
            if denial := rules.refusal(sweep_state, state):
                return denial
            new = (attempts + 1, fresh_token(), next_snapshot or snapshot)
            now = self._clock()
            if attempts:  # the one before may have expired
                leases.give_up(db, (sweep, trial, attempts), "lost", rules.SILENT, now)
            if sweep_state == "queued":
                db.execute("UPDATE sweep SET state = 'running' WHERE id = ?", (sweep,))
            db.execute(_GRANT, (new[0], now, new[2], sweep, trial))
            db.execute(
                _ATTEMPT,
                (sweep, trial, new[0], new[1], claim_id, worker.host, worker.boot, slot, new[2], now),
            )
            crash.point("claim.rows")
        crash.point("claim.committed")
        return rows.grant(uid, name, trial, tuple(rest), new)

    def granted(self, token: str) -> Grant | None:
        """See Ledger.granted."""
        with self._db.read() as db:
            row = db.execute(
                "SELECT s.uid, s.name, t.number, t.params, t.repeat, t.failures, "
                "max(0, t.losses - (t.state <> 'running')), "
                "a.number, a.token, a.snapshot FROM attempt a JOIN sweep s ON s.id = a.sweep "
                "JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial AND t.attempts = a.number "
                "WHERE a.token = ? AND a.state = 'running'",
                (token,),
            ).fetchone()
        if row is None:
            return None
        uid, name, number, *rest = row
        return rows.grant(uid, name, number, tuple(rest[:4]), tuple(rest[4:]))

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        """See Ledger.finish. A token of a sweep that was removed is answered, and nothing is kept."""
        with self._db.write() as db:
            row = db.execute(_CURRENT, (token,)).fetchone()
            if row is None:
                return Receipt(recorded=False, accepted=False, trial_state="cancelled")
            if row[4] is not None:
                return Receipt(recorded=bool(row[4]), accepted=bool(row[5]), trial_state=row[6])
            if row[3] != "running":
                return _keep_stale(db, row, outcome)
            receipt = self._record(db, row, outcome)
            crash.point("finish.rows")
        crash.point("finish.committed")
        return receipt

    def flush(self) -> None:
        """See Ledger.flush."""
        self._db.sync()

    def _record(self, db: sqlite3.Connection, row: tuple[Any, ...], outcome: Outcome) -> Receipt:
        sweep, trial, number, *_, stop, failures, losses = row
        state = rules.after(outcome, stop_asked=bool(stop))
        accepted = state == "succeeded"
        reason, metrics = rows.clean(outcome.reason), rows.dump_metrics(outcome.metrics)
        ended = outcome.ended or self._clock()
        told = (outcome.state, reason, outcome.exit_code, ended, metrics, rows.dump(outcome.details))
        db.execute(_END, (sweep, trial, number, *told, accepted, state))
        if outcome.state == "failed":
            failures = rows.dump(rules.count_failure(json.loads(failures), outcome.reason))
        reason = rules.STOPPED if state == "cancelled" and not reason else reason
        if row[7] in leases.EXPIRED:  # its loss was counted, and it was none
            losses = max(0, losses - 1)
        losses += outcome.state == "lost"
        db.execute(_TRIAL_END, (sweep, trial, state, reason, ended, failures, losses, metrics, accepted))
        return Receipt(recorded=True, accepted=accepted, trial_state=state)


def _granted_before(
    db: sqlite3.Connection, sweep: int, trial: int, claim_id: str
) -> tuple[int, str, str, str] | None:
    row: tuple[int, str, str, str] | None = db.execute(
        "SELECT number, token, snapshot, state FROM attempt WHERE sweep = ? AND trial = ? AND claim_id = ?",
        (sweep, trial, claim_id),
    ).fetchone()
    return row


def _keep_stale(db: sqlite3.Connection, row: tuple[Any, ...], outcome: Outcome) -> Receipt:
    sweep, trial, number, was, *_ = row
    state = row[7]
    rules.after(outcome, stop_asked=False)  # refuses what is no end
    details = rows.dump(dict(outcome.details) | {"was": was, "told": outcome.state})
    told = (rows.clean(outcome.reason), outcome.exit_code, rows.dump_metrics(outcome.metrics), details)
    db.execute(_STALE, (sweep, trial, number, *told, state))
    return Receipt(recorded=False, accepted=False, trial_state=state)


def _not_there(db: sqlite3.Connection, uid: str, trial: int) -> SweepError:
    sweep, name = find_sweep(db, uid, "id, name")
    return names.unknown_trial(name, trial, count_trials(db, sweep))
