"""What people and programs ask of the ledger. Nothing here holds a transaction open between two rows."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from sweepfw.core.model import Attempt, Objective, Sweep, Trial, Worker
from sweepfw.ledger import names, rows
from sweepfw.ledger.part import Part, check_trials, find_sweep

_TRIALS = f"""
SELECT {rows.TRIAL} FROM trial WHERE sweep = ?1 AND number > ?2
  AND (?3 IS NULL OR state IN (SELECT value FROM json_each(?3)))
  AND (?4 IS NULL OR number IN (SELECT value FROM json_each(?4)))
ORDER BY number LIMIT {rows.PAGE}
"""
_ATTEMPTS = f"""
SELECT {rows.ATTEMPT} FROM attempt WHERE sweep = ? AND (trial, number) > (?, ?) AND trial BETWEEN ? AND ?
ORDER BY trial, number LIMIT {rows.PAGE}
"""
_RUNNING = f"""
SELECT {", ".join(f"a.{column}" for column in rows.ATTEMPT.split(", "))}
FROM trial t JOIN attempt a ON a.sweep = t.sweep AND a.trial = t.number AND a.number = t.attempts
WHERE t.sweep = ? AND t.state = 'running' ORDER BY t.number
"""
_RUNNING_ON = f"""
SELECT s.uid, {", ".join(f"a.{column}" for column in rows.ATTEMPT.split(", "))}
FROM attempt a INDEXED BY attempt_open JOIN sweep s ON s.id = a.sweep
WHERE a.state = 'running' AND a.host = ?1 AND (?2 = '' OR a.boot = ?2) ORDER BY a.sweep, a.trial
"""
_ALL = 2**63 - 1
# NaN and infinity, as `rows.dump_metrics` writes them, are no JSON to SQLite: 'odd' is for us to look at.
_VALUES = """
SELECT number, repeat, CASE WHEN json_valid(metrics) THEN json_extract(metrics, ?) ELSE 'odd' END AS value
FROM trial WHERE sweep = ? AND state = 'succeeded' AND value IS NOT NULL
"""
_FIELDS = ("last", "lowest", "highest")  # the first of a stored MetricSummary
_BEST = {"minimize": "lowest", "maximize": "highest"}
_PLAIN_NAME = re.compile(r"[\w ./@:+-]+", re.ASCII)  # what a path of SQLite's can name in every version
_SEVERAL = 8  # SQLite may read a number's last digit otherwise than we do


class Queries(Part):
    def changed(self) -> int:
        """See Ledger.changed. Changes through this object don't count."""
        return self._db.foreign_changes()

    def sweeps(self) -> list[Sweep]:
        """See Ledger.sweeps."""
        with self._db.read() as db:
            found = db.execute(f"SELECT id, {rows.SWEEP} FROM sweep ORDER BY id").fetchall()
            counts: dict[int, list[tuple[str, int]]] = {}
            query = "SELECT sweep, state, count(*) FROM trial GROUP BY sweep, state"
            for sweep, state, number in db.execute(query):
                counts.setdefault(sweep, []).append((state, number))
        return [rows.sweep(row[1:], rows.tally(counts.get(row[0], []))) for row in found]

    def sweep(self, name: str) -> Sweep:
        """See Ledger.sweep."""
        with self._db.read() as db:
            query = f"SELECT id, {rows.SWEEP} FROM sweep WHERE name = ?1 OR uid = ?1 ORDER BY name <> ?1"
            row = db.execute(query, (rows.clean(name),)).fetchone()
            if row is None:
                known = [known for (known,) in db.execute("SELECT name FROM sweep")]
                raise names.unknown_sweep(name, known, self._runs)
            counts = db.execute(
                "SELECT state, count(*) FROM trial WHERE sweep = ? GROUP BY state", (row[0],)
            ).fetchall()
        return rows.sweep(row[1:], rows.tally(counts))

    def trials(
        self,
        uid: str,
        *,
        states: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        after: int = 0,
    ) -> Iterator[Trial]:
        """See Ledger.trials. Each trial is as of one moment, and up to 1,000 neighbours as of the same."""
        with self._db.read() as db:
            sweep, name = find_sweep(db, uid, "id, name")
            check_trials(db, sweep, name, numbers or ())
        return self._trials(sweep, after, _listed(states), _listed(numbers))

    def trial_rows(
        self, uid: str, states: Collection[str] | None, numbers: Collection[int] | None, after: int
    ) -> list[rows.Row]:
        """A page of `trials` as it is stored, for who hands it on: `rows.trials` reads it."""
        with self._db.read() as db:
            sweep, name = find_sweep(db, uid, "id, name")
            check_trials(db, sweep, name, numbers or ())
            return db.execute(_TRIALS, (sweep, after, _listed(states), _listed(numbers))).fetchall()

    def _trials(self, sweep: int, after: int, states: str | None, numbers: str | None) -> Iterator[Trial]:
        while True:
            with self._db.read() as db:
                page = db.execute(_TRIALS, (sweep, after, states, numbers)).fetchall()
            yield from rows.trials(page)
            if len(page) < rows.PAGE:
                return
            after = page[-1][0]

    def contenders(self, uid: str, objective: Objective) -> Iterator[Trial]:
        """See Ledger.contenders."""
        from heapq import nsmallest

        if not _PLAIN_NAME.fullmatch(objective.metric):
            return self.trials(uid, states=("succeeded",))
        wanted = "last" if objective.at == "last" else _BEST[objective.goal]
        path = f'$."{objective.metric}"[{_FIELDS.index(wanted)}]'
        with self._db.read() as db:
            (sweep,) = find_sweep(db, uid, "id")
            found = db.execute(_VALUES, (path, sweep)).fetchall()
        if any(repeat > 1 for _, repeat, _ in found):
            return self.trials(uid, states=("succeeded",))
        sign = 1 if objective.goal == "minimize" else -1
        odd = [number for number, _, value in found if value == "odd"]
        ranked = nsmallest(_SEVERAL, ((sign * value, number) for number, _, value in found if value != "odd"))
        return self.trials(uid, numbers=[*odd, *(number for _, number in ranked)])

    def attempts(self, uid: str, trial: int | None = None, *, after: int = 0) -> Iterator[Attempt]:
        """See Ledger.attempts."""
        with self._db.read() as db:
            sweep, name = find_sweep(db, uid, "id, name")
            check_trials(db, sweep, name, () if trial is None else (trial,))
        return self._attempts(sweep, (after + 1, _ALL) if trial is None else (trial, trial))

    def _attempts(self, sweep: int, trials: tuple[int, int]) -> Iterator[Attempt]:
        last = (0, 0)
        while True:
            with self._db.read() as db:
                page = db.execute(_ATTEMPTS, (sweep, *last, *trials)).fetchall()
            yield from map(rows.attempt, page)
            if len(page) < rows.PAGE:
                return
            last = page[-1][:2]

    def running(self, uid: str) -> list[Attempt]:
        """See Ledger.running."""
        with self._db.read() as db:
            (sweep,) = find_sweep(db, uid, "id")
            return [rows.attempt(row) for row in db.execute(_RUNNING, (sweep,))]

    def host_of(self, token: str) -> str | None:
        """See Ledger.host_of."""
        with self._db.read() as db:
            row = db.execute("SELECT host FROM attempt WHERE token = ?", (rows.clean(token),)).fetchone()
        return None if row is None else str(row[0])

    def running_on(self, worker: Worker) -> list[tuple[str, Attempt]]:
        """See Ledger.running_on."""
        with self._db.read() as db:
            found = db.execute(_RUNNING_ON, worker).fetchall()
        return [(row[0], rows.attempt(row[1:])) for row in found]

    def ended_since(self, uid: str, cursor: int) -> tuple[int, list[Attempt]]:
        """See Ledger.ended_since."""
        with self._db.read() as db:
            (sweep,) = find_sweep(db, uid, "id")
            found = db.execute(
                f"SELECT ending, {rows.ATTEMPT} FROM attempt WHERE sweep = ? AND ending > ? ORDER BY ending",
                (sweep, cursor),
            ).fetchall()
        return (found[-1][0] if found else cursor), [rows.attempt(row[1:]) for row in found]

    def last_end(self, uid: str) -> int:
        """See Ledger.last_end."""
        with self._db.read() as db:
            (sweep,) = find_sweep(db, uid, "id")
            found = db.execute("SELECT max(ending) FROM attempt WHERE sweep = ? AND ending > 0", (sweep,))
            return int(found.fetchone()[0] or 0)

    def snapshots(self, uid: str | None = None) -> set[str]:
        """See Ledger.snapshots."""
        with self._db.read() as db:
            if uid is not None:
                sweep, own = find_sweep(db, uid, "id, snapshot")
                ran = db.execute(
                    "SELECT snapshot FROM trial WHERE sweep = ?1 UNION "
                    "SELECT next_snapshot FROM trial WHERE sweep = ?1 AND next_snapshot IS NOT NULL",
                    (sweep,),
                )
                return {own, *(snapshot for (snapshot,) in ran)} - {""}
            found = db.execute(
                "SELECT snapshot FROM sweep UNION SELECT snapshot FROM attempt "
                "UNION SELECT next_snapshot FROM trial WHERE next_snapshot IS NOT NULL"
            )
            return {snapshot for (snapshot,) in found}


def _listed(items: Collection[str] | Collection[int] | None) -> str | None:
    return None if items is None else json.dumps(list(items))
