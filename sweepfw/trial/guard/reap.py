"""Killing all that descends from this process, with proof that nothing is left.

This process is a child subreaper: whatever a descendant does with setsid, double forks or its environment,
when its parent dies it becomes our child. So killing our direct children until there are none leaves no
descendant.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Collection

KEEPER = "sweepfw-keeper"  # the name of a keeper's process
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 4, 15, 36
_KILL = 9
_LONGEST_PAUSE = 0.02  # seconds

Reaped = Callable[[int, int, resource.struct_rusage], object]  # pid, wait status, what it used


def become_subreaper() -> bool:
    """Orphaned descendants become children of this process. False where the system knows no such thing."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_up() -> bool:
    """No memory of this process is ever written to a file (no core dump), and none of this user's other
    processes can read it: it holds secrets. What it starts is as open as ever. False where there is no such
    thing.

    Our own files in /proc are root's then: to be read still, as far as anybody may, but not to be written.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def name_process(name: str) -> None:
    """So that `pkill python` takes the user's trials and not their keepers, and `ps` says who is who."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> bool:
    try:
        import _ctypes  # not ctypes, which takes longer to load than the whole guardian

        class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not at run time
            _type_ = "i"

        class Function(_ctypes.CFuncPtr):
            _flags_ = 1  # the C calling convention
            _restype_ = Int

        library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None: what this program is linked with
        return not Function(_ctypes.dlsym(library, "prctl"))(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return False


def children() -> list[int]:
    """The direct children of this process, also those that ended and were not waited for."""
    found: list[int] = []
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
    except FileNotFoundError:  # a thread that ended, or a kernel without CONFIG_PROC_CHILDREN
        return _scan()
    return found


def _scan() -> list[int]:
    ours = str(os.getpid()).encode()
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent(name) == ours]
    except FileNotFoundError:
        return []  # no /proc: not Linux


def _parent(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()[1]
    except (OSError, IndexError):
        return b""


def kill_children(
    spare: Collection[int] = (), seconds: float = 10, reaped: Reaped | None = None
) -> list[int]:
    """Kill every child but `spare`, and theirs as they become ours, until none is left.

    Returns the pids that would not die within `seconds`: those of another user, or stuck in the kernel.
    `reaped` is told of each that ended.
    """
    if not spare and _no_child():
        return []
    waited = pause = 0.0  # our own pauses only: while the machine stood still nothing could die
    while left := [pid for pid in children() if pid not in spare]:
        for pid in left:
            _kill(pid)
        if sum(_reap(pid, reaped) for pid in left):
            pause = 0.0
            continue
        if waited > seconds:
            return left
        time.sleep(pause)
        waited += pause
        pause = min(_LONGEST_PAUSE, pause * 2 + 0.0001)
    return []


def _no_child() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _kill(pid: int) -> None:
    """Kill a child, and its process group in one stroke: a fork inside the group can't slip away."""
    try:
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, _KILL)
        os.kill(pid, _KILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone by now, or another user's; that one is reported as left


def _reap(pid: int, reaped: Reaped | None) -> bool:
    try:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    if ended and reaped:
        reaped(ended, status, usage)
    return bool(ended)


def reap_ended(reaped: Reaped) -> None:
    """Wait for every child that has ended by now, orphans that became ours among them."""
    try:
        while (found := os.wait4(-1, os.WNOHANG))[0]:
            reaped(*found)
    except ChildProcessError:
        pass
