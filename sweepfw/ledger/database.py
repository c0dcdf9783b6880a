"""The SQLite file: one connection that writes, one that reads, and a thread that brings writes to disk.

Commits are `synchronous=NORMAL`: written to the WAL, seen by every process, but not synced. Durability is
an fdatasync of the WAL through a descriptor of our own, which takes no lock of SQLite's, so that nobody
waits for the disk but who asks to. (Closing such a descriptor of the *database* would drop SQLite's locks;
it holds none on the WAL.) Checkpoints run in the same thread, for the same reason.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweepfw.errors import LedgerError, SweepError
from sweepfw.ledger import faults, schema

_PATIENCE = 30.0  # seconds to wait for another process's transaction; the longest takes some 3
_PAUSE = 0.04  # seconds between two syncs, so that many commits share one
_CHECKPOINT_EVERY = 1000  # write transactions; some 20 MB of WAL
_CACHE = 500  # KiB of pages for each connection; SQLite's own 2 MB buy a run nothing
_WAL_KEPT = 64_000_000  # bytes that an idle WAL may keep after a large transaction


class Database:
    """Opens or makes the ledger's file. Every failure is a SweepError that says what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._disk = _Disk(path, self._write_lock)
        self._version = 0
        self._waiting = 0  # threads that want to hear of the next version
        self._news = threading.Condition()
        with self._told():
            self._writer = _connect(path)
            try:
                schema.bring_up_to_date(self._writer, path)
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def write(self, *, lazily: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, seen by every process when the block ends. It is synced within 50 ms; `lazily`:
        with the next that is. Any error undoes it."""
        self._disk.check()
        with self._write_lock, self._told():
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            before = db.total_changes
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has undone it by itself where the disk was full
                    db.execute("ROLLBACK")
                raise
            if db.total_changes == before:
                return
            self._version += 1
        self._disk.changed(lazily=lazily)
        if self._waiting:
            self._wake()

    @property
    def version(self) -> int:
        """How many changes this object made: who read it sees at least those."""
        return self._version

    def wait(self, seen: int, timeout: float) -> int:
        """The version, as soon as it is another than `seen`, or after `timeout` seconds."""
        with self._news:
            self._waiting += 1  # before we look: a writer looks at it after its change
            try:
                self._news.wait_for(lambda: self._version != seen or self._disk.closed, timeout)
            finally:
                self._waiting -= 1
        return self._version

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for short queries; they see all commits, and each other's state as of one moment."""
        with self._read_lock, self._told():
            if self._reader is None:
                self._reader = _connect(self.path)
            db = self._reader
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("COMMIT")

    def foreign_changes(self) -> int:
        """A number that differs when another connection than our writer committed."""
        with self._write_lock, self._told():
            return int(self._writer.execute("PRAGMA data_version").fetchone()[0])

    def sync(self) -> None:
        """Everything committed before is on disk when this returns."""
        self._disk.sync()

    def close(self) -> None:
        """Sync, end the thread, close the connections; again does nothing."""
        self._disk.close()
        self._wake()
        with self._write_lock, self._read_lock, self._told():
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            self._writer.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise faults.explain(error, self.path) from error
        except OverflowError:
            raise SweepError("a number is too large for the ledger; at most 2^63 - 1") from None


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute(f"PRAGMA cache_size=-{_CACHE}")
    db.execute("PRAGMA foreign_keys=ON")
    db.execute(f"PRAGMA journal_size_limit={_WAL_KEPT}")
    return db


class _Disk:
    """Syncs the WAL soon after it changed, and moves it into the database now and then."""

    def __init__(self, path: Path, write_lock: threading.Lock) -> None:
        self._path = path
        self._write_lock = write_lock
        self._sync_lock = threading.Lock()
        self._unsynced = False
        self._since_checkpoint = 0
        self._wal: int | None = None
        self._failure: SweepError | None = None
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        return self._ending.is_set()

    def changed(self, *, lazily: bool) -> None:
        self._unsynced = True
        self._since_checkpoint += 1
        if lazily:
            return
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def check(self) -> None:
        """Raise what a sync failed with: after that nobody knows what is on disk, so nothing may go on."""
        if self._failure is not None:
            raise self._failure

    def sync(self) -> None:
        with self._sync_lock:
            self.check()
            if not self._unsynced:
                return
            self._unsynced = False  # before the sync: what is committed meanwhile needs another
            try:
                if self._wal is None:
                    self._wal = self._open_wal()
                getattr(os, "fdatasync", os.fsync)(self._wal)
            except OSError as error:
                self._failure = LedgerError(
                    f"{self._path}: the disk failed ({error.strerror}); check it, then run sweepfw again"
                )
                raise self._failure from error

    def close(self) -> None:
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.sync()
        finally:
            if self._wal is not None:
                os.close(self._wal)
                self._wal = None

    def _start(self) -> None:
        with self._sync_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ledger-sync", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            with suppress(SweepError):  # kept in _failure: the next call raises it
                self.sync()
                if self._since_checkpoint >= _CHECKPOINT_EVERY:
                    self._checkpoint()
            self._ending.wait(_PAUSE)

    def _checkpoint(self) -> None:
        self._since_checkpoint = 0
        with suppress(sqlite3.Error):  # it can wait: the WAL only grows until the next one
            db = _connect(self._path)
            try:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # most of it, while others write
                with self._write_lock:  # the rest, so that the WAL starts from its beginning again
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                db.close()

    def _open_wal(self) -> int:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the WAL's own name must survive too
        finally:
            os.close(folder)
        return os.open(f"{self._path}-wal", os.O_RDONLY)
