"""Who may write our files: their owner alone, whatever the umask. The user's own umask is for what is the
user's: projects, exports, configurations, and all that trials make. Imports nothing of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_OTHERS = 0o022  # no writing for group and others
_given: int | None = None  # the umask that we were started with


def tighten() -> None:
    """From now on this process makes nothing that others may write. Its first act."""
    global _given  # noqa: PLW0603  # a process has one
    if _given is None:
        _given = os.umask(0o077)
    os.umask(_given | _OTHERS)


def users() -> int:
    """The umask that the user wants."""
    return _now() if _given is None else _given


def _now() -> int:
    # The call that tells the umask also sets it, for all threads: where the kernel tells, it is not made.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:  # noqa: PTH123  # no import for it
            for line in lines:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextmanager
def loosened() -> Iterator[None]:
    """Make files of the user's within; where nobody else makes any meanwhile."""
    before = os.umask(users())
    try:
        yield
    finally:
        os.umask(before)
