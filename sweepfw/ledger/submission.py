"""How sweeps and trials come into the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache
from itertools import count
from typing import Any

from sweepfw import crash
from sweepfw.core import values
from sweepfw.core.model import Draft, Spec, Sweep
from sweepfw.errors import SweepError
from sweepfw.ledger import names, rows
from sweepfw.ledger.orders import hold
from sweepfw.ledger.part import Part, count_trials, find_sweep, fresh_token, is_token

_WIDE = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)  # rounds nothing
_INSERT = "INSERT INTO trial (sweep, number, params, repeat) VALUES (?, ?, ?, ?)"


class Submission(Part):
    def check_name(self, name: str) -> None:
        """See Ledger.check_name."""
        names.check_name(name)
        with self._db.read() as db:
            self._check_unused(name, _used(db))

    def submit(
        self,
        spec: Spec,
        snapshot: str,
        drafts: Iterable[Draft],
        *,
        name: str | None = None,
        note: str = "",
        provenance: Mapping[str, Any] | None = None,
        only: Collection[int] | None = None,
        uid: str | None = None,
    ) -> Sweep:
        """See Ledger.submit. A folder under runs/ that a lost ledger left behind keeps its name used."""
        if name is not None:
            names.check_name(name)
        with self._db.write() as db:
            uid = fresh_token() if uid is None else _new(db, uid)
            chosen = self._take_name(db, name, spec.project)
            sweep = db.execute(
                "INSERT INTO sweep (uid, name, spec, snapshot, state, created, note, provenance) "
                "VALUES (?, ?, ?, ?, 'queued', ?, ?, ?) "
                f"RETURNING id, {rows.SWEEP}",
                (
                    uid,
                    chosen,
                    rows.dump_spec(spec),
                    snapshot,
                    self._clock(),
                    rows.clean(note),
                    rows.dump(provenance or {}),
                ),
            ).fetchone()
            db.executemany(_INSERT, _numbered(sweep[0], 1, drafts))
            held = 0 if only is None else hold(db, sweep[0], only)
            queued = count_trials(db, sweep[0]) - held
            crash.point("submit.rows")
        crash.point("submit.committed")
        self._db.sync()
        return rows.sweep(sweep[1:], {s: n for s, n in (("queued", queued), ("held", held)) if n})

    def annotate(self, uid: str, provenance: Mapping[str, Any]) -> None:
        """See Ledger.annotate."""
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            db.execute("UPDATE sweep SET provenance = ? WHERE id = ?", (rows.dump(provenance), sweep))

    def extend(self, uid: str, spec: Spec, drafts: Iterable[Draft]) -> int:
        """See Ledger.extend."""
        known = _Known()
        with self._db.read() as reader:
            (sweep,) = find_sweep(reader, uid, "id")
            known.learn(reader, sweep)  # most of the work, before others have to wait for us
        with self._db.write() as db:
            (sweep,) = find_sweep(db, uid, "id")
            known.learn(db, sweep)
            new = (draft for draft in drafts if known.add(draft))
            before = count_trials(db, sweep)
            db.executemany(_INSERT, _numbered(sweep, before + 1, new))
            added = count_trials(db, sweep) - before
            db.execute("UPDATE sweep SET spec = ? WHERE id = ?", (rows.dump_spec(spec), sweep))
            if added:
                db.execute(
                    "UPDATE sweep SET state = 'queued', ended = NULL WHERE id = ? AND state = 'done'",
                    (sweep,),
                )
        crash.point("extend.committed")
        self._spec_changes += 1
        self._db.sync()
        return added

    def _take_name(self, db: sqlite3.Connection, name: str | None, project: str) -> str:
        used = _used(db)
        if name is None:
            start = names.prefix(project)
            name = names.lowest_free(start, used)
            while self._has_folder(name):
                used.add(name.lower())
                name = names.lowest_free(start, used)
        else:
            self._check_unused(name, used)
        db.execute("INSERT INTO used_name (name) VALUES (?)", (name,))
        return name

    def _reserve(self, db: sqlite3.Connection, name: str) -> None:
        """Use a name whose folder may be there already."""
        _refuse_used(name, _used(db))
        db.execute("INSERT INTO used_name (name) VALUES (?)", (name,))

    def _check_unused(self, name: str, used: Collection[str]) -> None:
        _refuse_used(name, used)
        if self._has_folder(name):
            raise SweepError(f"{self._runs / name}: is there already; move it away or choose another name")

    def _has_folder(self, name: str) -> bool:
        return (self._runs / name).exists()


def _new(db: sqlite3.Connection, uid: str) -> str:
    if not is_token(uid) or db.execute("SELECT 1 FROM sweep WHERE uid = ?", (uid,)).fetchone():
        raise ValueError("a sweep's uid is 16 hex digits that no other sweep has")
    return uid


def _refuse_used(name: str, used: Collection[str]) -> None:
    if name.lower() in used:
        raise SweepError(f'sweep name "{name}" was used before; choose another: names are never used again')


def _used(db: sqlite3.Connection) -> set[str]:
    return {known.lower() for (known,) in db.execute("SELECT name FROM used_name")}


class _Known:
    """The combinations that a sweep has, by what they mean: 0.1 and 0.10 are the same."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()
        self._last = 0

    def learn(self, db: sqlite3.Connection, sweep: int) -> None:
        """Take in the trials that it has not seen yet."""
        query = "SELECT number, params, repeat FROM trial WHERE sweep = ? AND number > ? ORDER BY number"
        found = db.execute(query, (sweep, self._last))
        while page := found.fetchmany(rows.PAGE):
            decoded = values.decode_all(params for _, params, _ in page)
            self._keys.update(_key(params, row[2]) for row, params in zip(page, decoded, strict=True))
            self._last = page[-1][0]

    def add(self, draft: Draft) -> bool:
        """Whether the draft is new; it is known from now on."""
        key = _key(draft.params, draft.repeat)
        if key in self._keys:
            return False
        self._keys.add(key)
        return True


def _key(params: values.Params, repeat: int) -> bytes:
    """16 bytes that are the same where all means the same: a hundred thousand of them must be held."""
    from hashlib import blake2b  # costs start-up time, and only `extend` needs it

    meant = sorted((name, _meant(value)) for name, value in params.items())
    return blake2b(repr((repeat, meant)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@lru_cache(maxsize=4096)  # the trials of a grid share their values
def _meant(value: values.Value) -> str:
    return _plain(value.exact if isinstance(value, values.Number) else values.meaning(value))


def _plain(meaning: object) -> str:
    if isinstance(meaning, tuple):
        return repr([_plain(part) for part in meaning])
    if isinstance(meaning, Decimal):
        return str(_WIDE.normalize(meaning)) if meaning else "0"
    return repr(meaning)


def _numbered(sweep: int, first: int, drafts: Iterable[Draft]) -> Iterator[tuple[int, int, str, int]]:
    for number, draft in zip(count(first), drafts, strict=False):
        yield sweep, number, values.encode(draft.params), draft.repeat
