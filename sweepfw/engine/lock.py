"""Who runs a sweep on this machine: a lock that lives exactly as long as its trials may."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.errors import BusyError


class SweepLock:
    """Two flocks on files of the sweep.

    `fd` is handed to guardian and keepers too, so that lock outlives a killed command line until the last of
    them has ended. The other one is the command line's alone: it tells a run that still heeds orders from
    one whose trials are just being ended.
    """

    def __init__(self, fd: int, heeding: int) -> None:
        self.fd, self._heeding = fd, heeding

    @classmethod
    def acquire(cls, workspace: Workspace, uid: str, *, wait: float = 5) -> SweepLock:
        """Take both, waiting up to `wait` seconds for a dying holder. BusyError after that."""
        lock = cls.try_acquire(workspace, uid, lambda: False, wait=wait)
        if lock is None:
            raise BusyError("another sweepfw holds this sweep; `sweepfw attach` follows it")
        return lock

    @classmethod
    def try_acquire(
        cls, workspace: Workspace, uid: str, instead: Callable[[], bool], *, wait: float = 5
    ) -> SweepLock | None:
        """As `acquire`, but None as soon as `instead` says so, and None when the wait was in vain."""
        fd = _open(workspace, uid, "lock")
        deadline = time.monotonic() + wait
        while not _take(fd):
            if instead() or time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(0.05)
        heeding = _open(workspace, uid, "live")
        _take(heeding)
        return cls(fd, heeding)

    def release(self) -> None:
        """Give both back; also what guardian and keepers hold of it, so they must have ended."""
        self.stop_heeding()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def stop_heeding(self) -> None:
        """From now on no order is heard; who gives one must carry on by itself."""
        if self._heeding >= 0:
            os.close(self._heeding)
            self._heeding = -1

    @staticmethod
    def held(workspace: Workspace, uid: str) -> bool:
        """Whether a run, its guardian or a keeper lives."""
        return _held(workspace, uid, "lock")

    @staticmethod
    def heeded(workspace: Workspace, uid: str) -> bool:
        """Whether a run lives that hears orders."""
        return _held(workspace, uid, "live")


def _path(workspace: Workspace, uid: str, kind: str) -> Path:
    return workspace.state / "locks" / f"{uid}.{kind}"


def _open(workspace: Workspace, uid: str, kind: str) -> int:
    path = _path(workspace, uid, kind)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(workspace: Workspace, uid: str, kind: str) -> bool:
    # Asking takes a shared lock for an instant; who acquires tries for longer than that.
    try:
        fd = os.open(_path(workspace, uid, kind), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
