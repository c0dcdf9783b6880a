"""Where lines for people go: a terminal, a file, a pipe. No sweep waits for its reader, or ends with it."""

from __future__ import annotations

import os
import select
from typing import TextIO

PIECE = 1000  # characters in one write: a pipe that takes any takes 4096 bytes
MOST = 10_000  # lines that wait for a reader; after that, the run waits too, since none may be lost


def show(out: TextIO, text: str) -> None:
    """Write it. Where nobody reads any more, the terminal was closed, or a file finds no room, nothing is
    shown from now on: no sweep ends because of that."""
    try:
        out.write(text)
        out.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def takes(out: TextIO) -> bool:
    """Whether it takes a piece now: a pager that is not read, or a terminal after Ctrl-S, does not."""
    try:
        poll = select.poll()
        poll.register(out.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return True  # no file
    return bool(poll.poll(0))


def piece(lines: list[str]) -> list[str]:
    """Take the first lines off, about a piece of them."""
    count, length = 0, 0
    while count < len(lines) and (not count or length + len(lines[count]) < PIECE):
        length += len(lines[count]) + 1
        count += 1
    taken = lines[:count]
    del lines[:count]
    return taken
