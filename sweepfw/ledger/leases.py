"""Attempts of which nobody knows whether they still run: their leases, and workers that were started anew.

An attempt whose lease ran out is *expired*: it has no end yet, and its trial is queued again, or held. It
comes back to life where its worker is heard of in time, and ends where its trial is given to another or
cancelled, or its worker is known to be gone.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

from sweepfw import crash
from sweepfw.core.model import TrialState, Worker
from sweepfw.errors import SweepError
from sweepfw.ledger import rows, rules
from sweepfw.ledger.part import NEXT_ENDING, Part

_LOOK = """
SELECT a.state, t.stop, t.state FROM attempt a JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial
WHERE a.token = ?
"""
# An attempt without an end is its trial's newest: a claim ends the one before.
_REVIVE = """
UPDATE trial SET state = 'running', reason = '', losses = max(0, losses - 1)
WHERE state IN ('queued', 'held') AND (sweep, number) = (
  SELECT sweep, trial FROM attempt WHERE token = ? AND state = 'running'
)
"""
_OPEN = """
SELECT a.sweep, a.trial, a.number, t.state, t.stop, t.losses, s.spec
FROM attempt a JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial JOIN sweep s ON s.id = a.sweep
WHERE a.state = 'running' AND
"""
_ASKED = """
SELECT a.token, t.stop FROM attempt a JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial
WHERE a.state = 'running' AND a.host = ? AND a.boot = ? AND t.stop > 0
"""
_GIVE_UP = f"""
UPDATE attempt SET state = ?4, reason = ?5, ended = ?6, ending = {NEXT_ENDING}
WHERE sweep = ?1 AND trial = ?2 AND number = ?3 AND state = 'running'
"""
_LOSE = """
UPDATE trial SET state = ?3, reason = ?4, ended = ?5, losses = losses + 1, stop = 0
WHERE sweep = ?1 AND number = ?2
"""
_ORDERS: tuple[Literal["go on", "stop", "stop now"], ...] = ("go on", "stop", "stop now")
EXPIRED = ("queued", "held")  # the states of a trial whose attempt without an end is expired


class Leases(Part):
    def renew(self, token: str) -> Literal["go on", "stop", "stop now"]:
        """See Ledger.renew."""
        with self._db.read() as db:
            row = db.execute(_LOOK, (token,)).fetchone()
        if row and row[0] == "running" and row[2] in EXPIRED:
            with self._db.write() as db:
                revive(db, token)
                row = db.execute(_LOOK, (token,)).fetchone()  # it may have ended since we looked
        return _ORDERS[row[1]] if row and row[0] == "running" else "stop"

    def expire(self, token: str) -> TrialState:
        """See Ledger.expire. For a sweep that was removed the answer is `cancelled`."""
        with self._db.write() as db:
            found = db.execute(f"{_OPEN} a.token = ? AND t.state = 'running'", (token,)).fetchone()
            if found is None:
                row = db.execute(_LOOK, (token,)).fetchone()
                state: TrialState = row[2] if row else "cancelled"
                return state
            state = self._lose(db, found, rules.SILENT, gone=False)
        crash.point("expire.committed")
        return state

    def asked_to_stop(self, worker: Worker) -> dict[str, Literal["stop", "stop now"]]:
        """Tokens of the worker's attempts that were asked to stop, and how. Revives and renews nothing: for
        whoever passes orders on, who does not know whether the attempts still run."""
        with self._db.read() as db:
            found = db.execute(_ASKED, worker).fetchall()
        return {token: "stop now" if stop > 1 else "stop" for token, stop in found}

    def register(self, worker: Worker) -> None:
        """See Ledger.register."""
        with self._db.write() as db:
            if db.execute("SELECT 1 FROM replaced WHERE host = ? AND boot = ?", worker).fetchone():
                raise SweepError(
                    f"worker on {worker.host}: another was started there since; this one has to end"
                )
            db.execute(
                "INSERT INTO replaced SELECT host, boot FROM worker WHERE host = ? AND boot <> ?", worker
            )
            db.execute(
                "INSERT INTO worker (host, boot, registered) VALUES (?, ?, ?) "
                "ON CONFLICT (host) DO UPDATE SET boot = excluded.boot, registered = excluded.registered "
                "WHERE boot <> excluded.boot",
                (*worker, self._clock()),
            )
            for found in db.execute(f"{_OPEN} a.host = ? AND a.boot <> ?", worker).fetchall():
                self._lose(db, found, "its worker was started anew", gone=True)

    def _lose(self, db: sqlite3.Connection, found: tuple[Any, ...], why: str, *, gone: bool) -> TrialState:
        """Count the loss of an attempt, as `_OPEN` found it, unless that was done; its trial's state then.

        `gone`: it can't come back, so that it ends now.
        """
        sweep, trial, number, before, stop, losses, spec = found
        state: TrialState = before
        now = self._clock()
        if before not in EXPIRED:
            on_lost = rows.load_spec(spec).on_lost
            state = rules.after_loss(losses, on_lost, stop_asked=bool(stop))
            told = {"cancelled": rules.STOPPED, "failed": rules.LOST}.get(state, why)
            ended = None if state in EXPIRED and not gone else now
            db.execute(_LOSE, (sweep, trial, state, told, ended))
        if gone or state not in EXPIRED:
            give_up(db, (sweep, trial, number), "lost", why, now)
        return state


def revive(db: sqlite3.Connection, token: str) -> None:
    """The expired attempt runs after all; its loss is not counted. Does nothing for any other."""
    db.execute(_REVIVE, (token,))


def give_up(db: sqlite3.Connection, attempt: tuple[int, int, int], state: str, why: str, now: float) -> None:
    """End an attempt that has no end yet, given by sweep, trial and number. Its trial is the caller's."""
    db.execute(_GIVE_UP, (*attempt, state, why, now))


def expired(db: sqlite3.Connection, sweep: int) -> list[tuple[int, int, int]]:
    """The sweep's expired attempts, by sweep, trial and number."""
    return db.execute(
        "SELECT a.sweep, a.trial, a.number FROM attempt a INDEXED BY attempt_open "
        "JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial "
        "WHERE a.state = 'running' AND a.sweep = ? AND t.state IN ('queued', 'held') ORDER BY a.trial",
        (sweep,),
    ).fetchall()
