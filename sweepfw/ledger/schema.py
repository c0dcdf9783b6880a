"""The ledger's schema: numbered migrations, each applied once, as a whole or not at all."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from sweepfw.errors import LedgerError
from sweepfw.ledger import faults

VERSION = 2  # the highest number in migrations/; a test holds it against the files
APPLICATION = 0x53574650  # "SWFP" in the file's header: this database is ours
_FOLDER = Path(__file__).parent / "migrations"
_PATIENCE = 10.0  # seconds to wait for another process that makes the same ledger


def bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    """Migrate the database to VERSION, or raise LedgerError where it is foreign or newer.

    Reads no file and changes nothing where it is up to date. Several processes may do this at once.
    """
    version = _look(db, path)
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _use_wal(db)  # new, or restored from a dump
    while version < VERSION:
        _apply_next(db, path)
        version = _look(db, path)


def _look(db: sqlite3.Connection, path: Path) -> int:
    db.execute("BEGIN")  # one moment for all that is read: another process may be making the ledger
    try:
        return _version(db, path)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        if application or version or db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise faults.torn(path)
        return 0  # empty: new, or its maker died before the first migration
    if version > VERSION:
        raise LedgerError(
            f"{path}: a newer sweepfw made this ledger (schema {version}, this one knows {VERSION}); "
            "update sweepfw"
        )
    return version


def _use_wal(db: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait here for another process that does the same.
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _apply_next(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        number = _version(db, path) + 1
        if number <= VERSION:
            for statement in statements(number):
                db.execute(statement)
            db.execute(f"PRAGMA application_id={APPLICATION}")
            db.execute(f"PRAGMA user_version={number}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def statements(number: int) -> list[str]:
    """The SQL statements of one migration."""
    (file,) = _FOLDER.glob(f"{number:04d}_*.sql")
    found = [""]
    for line in file.read_text().splitlines(keepends=True):
        found[-1] += line
        if sqlite3.complete_statement(found[-1]):  # knows the semicolons inside triggers
            found.append("")
    return [statement for statement in found if statement.strip()]
