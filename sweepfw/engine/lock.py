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
    them has ended. The other one is the command line's alone, and held only while the run takes whatever is
    queued: who queues trials and then finds it held may leave them to that run, since it looks at the ledger
    once more after it gave it back.
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
        lock = cls(fd, _open(workspace, uid, "live"))
        lock.heed()
        return lock

    def release(self) -> None:
        """Give both back; also what guardian and keepers hold of it, so they must have ended."""
        for fd in {self.fd, self._heeding} - {-1}:
            os.close(fd)
        self.fd = self._heeding = -1

    def heed(self) -> None:
        """From now on what others queue is taken."""
        while not _take(self._heeding):
            time.sleep(0.001)  # somebody asks just now, for an instant; another holder there is none

    def stop_heeding(self) -> None:
        """From now on nothing new is taken; who queues trials must carry on by themselves."""
        fcntl.flock(self._heeding, fcntl.LOCK_UN)

    @staticmethod
    def held(workspace: Workspace, uid: str) -> bool:
        """Whether a run, its guardian or a keeper lives."""
        return _held(workspace, uid, "lock")

    @staticmethod
    def heeded(workspace: Workspace, uid: str) -> bool:
        """Whether a run lives that takes what is queued now."""
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
