"""Whether the kernel ended something of a trial for want of memory: its own counter, not a guess.

The counter belongs to a control group, so each keeper moves into one of its own where it may make one:
under cgroup v1 as root, under v2 where the group above is ours (a systemd user session). Elsewhere it
knows nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_NAME = "sweepfw-"


class Group:
    """A control group for one keeper and its trials, where one can be made. `path` is where it would be."""

    def __init__(self, path: str, counter: str) -> None:
        self.path = path
        self._counter_name = counter
        self._counter = -1
        self._seen = 0

    def enter(self) -> None:
        """Make the group and move this process into it."""
        if not self.path:
            return
        try:
            os.mkdir(self.path)
            _write(f"{self.path}/cgroup.procs", b"0")
            self._counter = os.open(f"{self.path}/{self._counter_name}", os.O_RDONLY | os.O_CLOEXEC)
            self._seen = self._read()
        except OSError:
            pass

    def leave(self) -> None:
        """Remove the group after its keeper's end, which emptied it."""
        try:
            os.rmdir(self.path)
        except OSError:
            pass  # none was made, or something lives in it that could not be killed

    def struck(self) -> bool:
        """Whether the counter moved since this was last asked."""
        if self._counter < 0:
            return False
        try:
            before, self._seen = self._seen, self._read()
        except OSError:
            return False
        return self._seen > before

    def _read(self) -> int:
        for line in os.pread(self._counter, 4096, 0).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0


def groups() -> Callable[[int], Group]:
    """Makes this guardian's groups, as the system allows them; tell it a number for each."""
    folder, counter = _place()
    if folder:
        _sweep(folder)
    return lambda number: Group(f"{folder}/{_NAME}{os.getpid()}-{number}" if folder else "", counter)


def _sweep(folder: str) -> None:
    """Remove what guardians that were killed could not remove."""
    for name in os.listdir(folder):
        if name.startswith(_NAME) and not os.path.exists(f"/proc/{name.split('-')[1]}"):
            Group(f"{folder}/{name}", "").leave()


def _place() -> tuple[str, str]:
    """The folder in which groups may be made, and the name of the counter's file in each; else empty."""
    try:
        with open("/proc/self/cgroup", "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except OSError:
        return "", ""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            place = f"/sys/fs/cgroup/memory{path}", "memory.oom_control"
        elif not controllers:
            place = "/sys/fs/cgroup" + os.path.dirname(path), "memory.events"
        else:
            continue
        if os.access(place[0], os.W_OK) and _counts(*place):
            return place
    return "", ""


def _counts(folder: str, counter: str) -> bool:
    """Under v2 a group counts memory only where the one above it says so."""
    if counter != "memory.events":
        return True
    try:
        with open(f"{folder}/cgroup.subtree_control", "rb") as file:
            return b"memory" in file.read().split()
    except OSError:
        return False


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
