"""What an attempt leaves, on its way from the worker's disk to the head: output, small files, its end.

All of it lies on the disk first. What can't be sent now is sent later; a broken link costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from sweepfw import crash
from sweepfw.core.model import Grant, Outcome, Receipt, Spec
from sweepfw.engine.packs import contents, packed, survey
from sweepfw.errors import DiskFullError, SweepError, UnreachableError
from sweepfw.ledger.desk import Desk
from sweepfw.ledger.interface import Ledger
from sweepfw.trial.guard.files import open_plain

ALL_FILES = 10_000_000  # bytes: an attempt's files that go to the head when it ends; more stays on its host
OWN_FILES = 50_000_000  # bytes: of these, what belongs to the record goes at any rate
MOST_FILES = 5000
LITTLE = 64_000  # bytes of output, and of files, that are told together with the end
FEW = 20  # files
RECORD = ("params.json", "outcome.json", "metrics.jsonl", "parsed.jsonl")
_CHUNK = 1 << 20
_KIND, _FILE, _FOLDER = 0o170000, 0o100000, 0o040000  # of a file's mode
_PAUSE = 5.0  # seconds between two tries while the head's disk is full

T = TypeVar("T")


class Head:
    """The head's two doors, as shipping uses them. `closing`: this worker ends, nothing is waited for."""

    def __init__(
        self, ledger: Ledger, desk: Desk, closing: threading.Event, say: Callable[[str], None], scratch: Path
    ) -> None:
        self.ledger, self.desk, self.closing, self.say, self.scratch = ledger, desk, closing, say, scratch

    def insist(self, call: Callable[[], T]) -> T:
        """Its answer; while the head's disk is full, it is asked again."""
        while True:
            try:
                return call()
            except DiskFullError as error:
                self.say(str(error))
                if self.closing.wait(_PAUSE):
                    raise


class LogLine:
    """One attempt's output, sent from where the head has it. Safe from several threads."""

    def __init__(self, head: Head, token: str, path: str, limit: int, *, begun: bool = False) -> None:
        self._head, self._token, self._path, self._stable = head, token, path, limit // 2
        self._lock = threading.Lock()
        self._offset = -1 if begun else 0  # what the head has; -1: it must be asked

    def send(self, *, ended: bool = False) -> None:
        """Send what is new. While it grows that is at most the first half of what its limit allows: beyond,
        the file is not in order until the attempt has `ended`. Raises SweepError."""
        with self._lock:
            if self._offset < 0:
                self._offset = self._head.ledger.append_log(self._token, 0, b"")
            try:
                file = open_plain(self._path)
            except OSError:
                return  # it has not begun
            try:
                end = os.fstat(file).st_size if ended else min(os.fstat(file).st_size, self._stable)
                while self._offset < end:
                    self._append(os.pread(file, min(_CHUNK, end - self._offset), self._offset))
            finally:
                os.close(file)

    def rest(self, most: int) -> tuple[int, bytes] | None:
        """What the head does not have of an attempt that has ended, and where it begins. None: that is more
        than so many bytes, or not known. Raises OSError."""
        with self._lock:
            if self._offset < 0:
                return None
            try:
                with os.fdopen(open_plain(self._path), "rb", buffering=0) as file:
                    data = os.pread(file.fileno(), most + 1, self._offset)
            except FileNotFoundError:
                data = b""
            return None if len(data) > most else (self._offset, data)

    def _append(self, data: bytes) -> None:
        ledger, before = self._head.ledger, self._offset
        try:
            self._offset = self._head.insist(lambda: ledger.append_log(self._token, before, data))
            crash.point("worker.part")
        except DiskFullError:
            raise
        except SweepError:  # a head that lost power may have lost the last of what it had
            self._offset = ledger.append_log(self._token, 0, b"")
            if self._offset >= before:
                raise


def few_files(folder: str) -> dict[str, bytes] | None:
    """All of the attempt's files for the head; None where they are many, large, or not all for the head."""
    names, size, complete = choose(folder)
    if not complete or len(names) > FEW or size > LITTLE:
        return None
    return contents(folder, names)


def ship_files(head: Head, token: str, folder: str) -> bool:
    """Send the attempt's small files; whether that is all of them."""
    names, size, complete = choose(folder)
    if not names:
        return complete
    with packed(folder, names, head.scratch, size) as pack:
        head.insist(lambda: _keep(head, token, pack))
    return complete


def _keep(head: Head, token: str, pack: IO[bytes]) -> None:
    pack.seek(0)
    head.desk.keep(token, pack)


def choose(folder: str) -> tuple[list[str], int, bool]:
    """The files of an attempt that are small enough for the head, their bytes, and whether those are all."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    except FileNotFoundError:
        return [], 0, True
    # A trial may have put a link or a pipe in the place of its reports: then there are none.
    own = {n: found[n].st_size for n in RECORD if n in found and found[n].st_mode & _KIND == _FILE}
    left = survey(f"{folder}/files") if "files" in found else {}
    files = {f"files/{name}": row[1] for name, row in left.items() if row[0] & _KIND == _FILE}
    others = any(row[0] & _KIND not in (_FILE, _FOLDER) for row in left.values())
    size = sum(own.values()) + sum(files.values())
    if size <= ALL_FILES and len(files) <= MOST_FILES:
        return [*own, *files], size, not others
    small: list[str] = []
    size = 0
    for name, bytes_ in own.items():
        if size + bytes_ <= OWN_FILES:
            size += bytes_
            small.append(name)
    return small, size, len(small) == len(own) and not files and not others


class Reporting:
    """The ledger as `run_attempt` sees it on a worker: an attempt's end is told after all that it left.

    `release` is called when all but the end is told, or read into memory with it: the slot is free before
    the head sends the next trial.
    `told` is that end, once the head knows it.
    """

    def __init__(
        self,
        head: Head,
        grant: Grant,
        spec: Spec,
        folder: str,
        host: str,
        *,
        before: Callable[[Outcome], None] = lambda _: None,
        release: Callable[[], None] = lambda: None,
        begun: bool = False,
    ) -> None:
        self._head, self._grant, self._folder, self._host = head, grant, folder, host
        self._before, self._release = before, release
        self.told: Outcome | None = None
        self.log = LogLine(head, grant.token, f"{folder}/output.log", spec.log_limit, begun=begun)

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        """As Ledger.finish. What can't be told for another reason than a silent head is given up, and said:
        the outcome counts more."""
        told = outcome._replace(ended=outcome.ended or time.time())
        try:
            self._try(lambda: self._before(outcome), "checkpoint")
            crash.point("worker.saved")
            if receipt := self._conclude(token, told):
                crash.point("worker.concluded")
                self.told = told
                return receipt
            self._try(lambda: self.log.send(ended=True), "output")
            crash.point("worker.shipped")
            if not self._try(lambda: ship_files(self._head, token, self._folder), "files"):
                told = told._replace(details={**told.details, "files_on": self._host})
        finally:
            self._release()
        crash.point("worker.stored")
        receipt = self._head.insist(lambda: self._head.ledger.finish(token, told))
        self.told = told
        return receipt

    def _conclude(self, token: str, told: Outcome) -> Receipt | None:
        """Tell all in one call, where it is little. None: it is not, or the head can't take all of it."""
        try:
            rest, files = self.log.rest(LITTLE), few_files(self._folder)
            if rest is None or files is None:
                return None
            offset, data = rest
            self._release()
            return self._head.insist(lambda: self._head.desk.conclude(token, offset, data, files, told))
        except UnreachableError:
            raise
        except (SweepError, OSError):
            return None  # piece by piece, it shows what can be taken

    def _try(self, step: Callable[[], T], what: str) -> T | None:
        try:
            return step()
        except UnreachableError:
            raise  # this worker ends: the next one tells all of it
        except (SweepError, OSError) as error:
            grant = self._grant
            self._head.say(f"{grant.sweep}/{grant.trial}: its {what} can't be sent to the head: {error}")
            return None
