"""Frames between client, guardian and keepers: a length, then one value.

The values are marshalled: both ends are the same Python, started by one another, and marshal costs a tenth
of JSON and keeps every string that argv and paths may hold, lone surrogates included.
"""

from __future__ import annotations

import marshal
import os
import sys
from _socket import (  # the module `socket` costs a start-up of several milliseconds and is not needed
    AF_UNIX,
    CMSG_SPACE,
    MSG_DONTWAIT,
    SCM_RIGHTS,
    SHUT_RDWR,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)
from collections.abc import Sequence

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import Any

_HEADER = 4
_READ = 1 << 16
_MOST_FDS = 250  # the kernel takes 253 in one message
_INT = 4


def pair() -> tuple[Wire, Wire]:
    """Two connected wires. Programs that this process starts inherit neither."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    return Wire(ours), Wire(theirs)


class Wire:
    """One end. Every method that reads or sends raises EOFError once the other end is gone."""

    def __init__(self, sock: socket) -> None:
        self._socket = sock
        self._unread = bytearray()

    @classmethod
    def of(cls, fd: int) -> Wire:
        """Take over a descriptor that another process made."""
        os.set_inheritable(fd, False)
        return cls(socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self) -> None:
        """Let the other end see that we are gone, while our descriptor stays ours."""
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send the whole message, waiting for room where needed, with at most 250 descriptors."""
        frame = _frame(message)
        try:
            if fds:
                packed = b"".join(fd.to_bytes(_INT, sys.byteorder) for fd in fds)
                frame = frame[self._socket.sendmsg([frame], [(SOL_SOCKET, SCM_RIGHTS, packed)]) :]
            self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def offer(self, message: Any) -> None:
        """Send if there is room now, else forget it: for news that a later message brings again."""
        frame = _frame(message)
        try:
            sent = self._socket.send(frame, MSG_DONTWAIT)
            self._socket.sendall(frame[sent:])
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self) -> list[Any]:
        """Wait until something came; the messages that are whole by now, perhaps none."""
        try:
            data = self._socket.recv(_READ)
        except ConnectionResetError:
            data = b""
        return self._whole(data)

    def receive_with_fds(self) -> tuple[list[Any], list[int]]:
        """As `receive`, with the descriptors that came along, in order; close-on-exec."""
        data, ancillary, _, _ = self._socket.recvmsg(_READ, CMSG_SPACE(_MOST_FDS * _INT))
        fds = [
            int.from_bytes(packed[at : at + _INT], sys.byteorder)
            for level, kind, packed in ancillary
            if level == SOL_SOCKET and kind == SCM_RIGHTS
            for at in range(0, len(packed) - _INT + 1, _INT)
        ]
        for fd in fds:  # single-threaded here, so nothing can be started in between
            os.set_inheritable(fd, False)
        return self._whole(data), fds

    def _whole(self, data: bytes) -> list[Any]:
        if not data:
            raise EOFError
        unread = self._unread
        unread += data
        messages = []
        while len(unread) >= _HEADER:
            end = _HEADER + int.from_bytes(unread[:_HEADER], "little")
            if len(unread) < end:
                break
            messages.append(marshal.loads(unread[_HEADER:end]))  # noqa: S302  # our own process wrote it
            del unread[:end]
        return messages


def _frame(message: Any) -> bytes:
    body = marshal.dumps(message)
    return len(body).to_bytes(_HEADER, "little") + body
