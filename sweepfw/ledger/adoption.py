"""Taking in a sweep that lived in another ledger: one that comes home from a deployment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby
from typing import Any, TypeAlias

from sweepfw import crash
from sweepfw.core import spec as specs
from sweepfw.errors import SweepError
from sweepfw.ledger import names, rows
from sweepfw.ledger.part import fresh_token
from sweepfw.ledger.submission import Submission

Record: TypeAlias = Mapping[str, Any]

_SWEEP = """
INSERT INTO sweep (uid, name, spec, snapshot, state, created, note, reason, ended, provenance)
VALUES (:uid, :name, :spec, :snapshot, :state, :created, :note, :reason, :ended, :provenance) RETURNING id
"""
_TRIAL = """
INSERT INTO trial (sweep, number, state, params, repeat, reason, stop, attempts, next_snapshot, metrics,
  started, ended, snapshot)
VALUES (:sweep, :number, :state, :params, :repeat, :reason, :stop, :attempts, :next_snapshot, :metrics,
  :started, :ended, :snapshot)
"""
_ATTEMPT = """
INSERT INTO attempt (sweep, trial, number, state, token, claim_id, host, boot, slot, snapshot, started, ended,
  ending, reason, exit_code, accepted, metrics, outcome)
VALUES (:sweep, :trial, :number, :state, :token, '', :host, '', :slot, :snapshot, :started, :ended,
  :ending, :reason, :exit_code, :accepted, :metrics, :outcome)
"""
# Trials that don't fit to their attempts, as after a change between the reading of both.
_UNFIT = """
SELECT t.number FROM trial t WHERE t.sweep = ? AND (
  t.attempts <> (SELECT count(*) FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number)
  OR (t.state = 'succeeded') <> EXISTS (
    SELECT 1 FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number AND a.accepted)
  OR (t.state NOT IN ('queued', 'held')) AND (t.state = 'running') <> EXISTS (
    SELECT 1 FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number AND a.state = 'running')
) LIMIT 1
"""


class Adoption(Submission):
    def adopt(self, records: Iterable[Record], *, place: str, name: str | None = None) -> bool:
        """Take in the sweep that `transfer.dump` told of, as a whole or not at all; on disk when it returns.

        Its provenance names the `place` that it comes from. False, and nothing changes, where it is here
        already: so it may be tried again after an interruption. Nobody works on it: a sweep that was
        `running` is `queued`; trials and attempts stay as they were. SweepError where its name was used
        before (unless another `name` is given), and for records that are not whole.
        """
        given = iter(records)
        try:
            head = next(given, {})
            if head.get("kind") != "sweep":
                raise _torn("they don't begin with a sweep")
            with self._db.write() as db:
                if db.execute("SELECT 1 FROM sweep WHERE uid = ?", (head["uid"],)).fetchone():
                    return False
                self._take_in(db, head, given, place, name or head["name"])
                crash.point("adopt.rows")
        except (KeyError, TypeError, AttributeError) as error:
            raise _torn(str(error)) from error
        crash.point("adopt.committed")
        self._db.sync()
        return True

    def _take_in(
        self, db: sqlite3.Connection, head: Record, rest: Iterator[Record], place: str, name: str
    ) -> None:
        names.check_name(name)
        self._reserve(db, name)
        (sweep,) = db.execute(_SWEEP, _sweep(head, place) | {"name": name}).fetchone()
        stop = int(head["state"] == "stopped")
        endings = count(1)
        found = {"trial": 0, "attempt": 0}
        last: Record = {}
        for kind, group in groupby(rest, lambda record: record["kind"]):
            if kind == "trial":
                found[kind] += db.executemany(_TRIAL, (_trial(r, sweep, stop) for r in group)).rowcount
            elif kind == "attempt":
                found[kind] += db.executemany(_ATTEMPT, (_attempt(r, sweep, endings) for r in group)).rowcount
            else:
                *_, last = group
        if (last.get("trials"), last.get("attempts")) != tuple(found.values()):
            raise _torn("their end is missing")
        _check(db, sweep, name)


def _sweep(record: Record, place: str) -> dict[str, Any]:
    return {
        **record,
        "spec": rows.dump_spec(specs.from_json(record["spec"])),
        "state": "queued" if record["state"] == "running" else record["state"],
        "provenance": rows.dump({**record["provenance"], "brought_from": place}),
    }


def _trial(record: Record, sweep: int, stop: int) -> dict[str, Any]:
    return {
        **record,
        "sweep": sweep,
        "stop": stop if record["state"] == "running" else 0,
        "next_snapshot": record["next_snapshot"] or None,
    }


def _attempt(record: Record, sweep: int, endings: Iterator[int]) -> dict[str, Any]:
    return {
        **record,
        "sweep": sweep,
        "token": fresh_token(),
        "ending": None if record["state"] == "running" else next(endings),
        "outcome": rows.dump(record["outcome"]),
    }


def _check(db: sqlite3.Connection, sweep: int, name: str) -> None:
    highest, trials = db.execute(
        "SELECT coalesce(max(number), 0), count(*) FROM trial WHERE sweep = ?", (sweep,)
    ).fetchone()
    if highest != trials:
        raise _torn("trials are missing")
    if unfit := db.execute(_UNFIT, (sweep,)).fetchone():
        raise SweepError(f"{name}/{unfit[0]}: changed while it was read; read the sweep again")


def _torn(why: str) -> SweepError:
    return SweepError(f"the records of the sweep are not whole ({why}); fetch them again")
