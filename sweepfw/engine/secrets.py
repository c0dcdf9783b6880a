"""The secrets of sweeps on the head: a folder for each sweep, a file for each value, for nobody but us.

They are not in the ledger and not below `runs/`: so they never come home, and go with the sweep.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from sweepfw import crash
from sweepfw.config.secrets import LARGEST, NAME
from sweepfw.core.secrets import Secrets
from sweepfw.errors import SweepError
from sweepfw.ledger.part import is_token

ALL = 16_000_000  # bytes of all values of a sweep
COUNT = 1000
ORPHANED = 86_400.0  # seconds: what was sent so long ago, and of which no sweep came, goes
_NAME = re.compile(NAME, re.ASCII)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class SecretStore:
    """`folder` is made when the first value comes. Safe from several threads."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()  # nobody reads half of a change

    def put(self, uid: str, values: Mapping[str, bytes]) -> None:
        """Keep these values of the sweep, and none of those before; no values: there are none to keep.

        Each is whole or not there. A head that dies in between has some of the new and some of the old ones,
        and its caller no answer, who asks again. Raises OSError where they can't be stored.
        """
        _check(uid, values)
        if not values:
            return self.forget(uid)
        with self._lock:
            place = self._place(uid)
            for folder in (self._folder, place):
                folder.mkdir(mode=0o700, exist_ok=True)
            for name, value in values.items():
                _write(place, name, value)
            for name in set(os.listdir(place)) - values.keys():  # noqa: PTH208  # names
                (place / name).unlink()
            for folder in (place, self._folder, self._folder.parent):
                _sync(folder)

    def get(self, uid: str) -> Secrets | None:
        """The sweep's values; None where nobody gave some."""
        with self._lock:
            try:
                names = sorted(os.listdir(self._place(uid)))  # noqa: PTH208  # names
            except FileNotFoundError:
                return None
            place = self._place(uid)
            return Secrets({name: (place / name).read_bytes() for name in names if _NAME.fullmatch(name)})

    def forget(self, uid: str) -> None:
        """Delete what there is of the sweep."""
        with self._lock:
            shutil.rmtree(self._place(uid), ignore_errors=True)

    def tidy(self, known: Collection[str]) -> None:
        """Delete the values of sweeps that were never submitted, or were removed by a head that died."""
        for uid in self.old() - set(known):
            self.forget(uid)

    def old(self) -> set[str]:
        """The uids whose values came so long ago that their sweeps must be there by now."""
        found = set()
        for place in self._folder.glob("*"):
            with suppress(FileNotFoundError):  # it goes just now
                if is_token(place.name) and place.stat().st_mtime < self._clock() - ORPHANED:
                    found.add(place.name)
        return found

    def _place(self, uid: str) -> Path:
        if not is_token(uid):
            raise SweepError(f"{uid[:80]!r}: is no sweep's uid")
        return self._folder / uid


def _check(uid: str, values: Mapping[str, bytes]) -> None:
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise SweepError(f"secret {name[:80]!r}: letters, digits, `_`, `.` and `-` make a name")
        if len(value) > LARGEST:
            raise SweepError(f"secret {name}: has {len(value)} bytes; at most {LARGEST} can be kept")
    if len(values) > COUNT or sum(map(len, values.values())) > ALL:
        raise SweepError(f"sweep {uid[:16]}: at most {COUNT} secrets of {ALL} bytes in all can be kept")


def _write(place: Path, name: str, value: bytes) -> None:
    draft = place / f".{name}"
    with os.fdopen(os.open(draft, _NEW, 0o600), "wb") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    crash.point("head.secret")
    draft.replace(place / name)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
