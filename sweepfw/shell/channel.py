"""A channel of an SSH connection, after whose end nothing of ours is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from paramiko import Message
from paramiko.common import cMSG_CHANNEL_CLOSE
from paramiko.ssh_exception import SSHException


class Orderly:
    """Paramiko's channel, for several threads; CLOSE is the last that is sent for it.

    sshd gives a channel's number to the next one as soon as it has our CLOSE. The next one would take what
    comes late for the end of its own input and hang; and where there is no next one sshd ends the whole
    connection. But paramiko's thread sends CLOSE as soon as sshd has ended the channel, before what others
    are about to send. So it is sent here, by `close` alone, which must be called.
    """

    def __init__(self, channel: Any) -> None:
        self.raw = channel
        self._sending = Lock()
        channel._close_internal = self._end_quietly

    def recv(self, size: int) -> bytes:
        return self.raw.recv(size)  # type: ignore[no-any-return]  # paramiko has no types

    def recv_stderr(self, size: int) -> bytes:
        return self.raw.recv_stderr(size)  # type: ignore[no-any-return]

    def sendall(self, data: bytes) -> None:
        """OSError where the channel has ended, or the connection."""
        with self._sending, _as_of_a_socket():
            self.raw.sendall(data)

    def shutdown(self, how: int) -> None:
        """As a socket's: its input's end is told, or everybody who reads or writes comes to an end. OSError
        where the connection has ended."""
        if how != socket.SHUT_WR:
            return self.wake()
        with self._sending, _as_of_a_socket():
            if not self.raw.closed:
                self.raw.shutdown_write()

    def wake(self) -> None:
        """Whoever reads or writes comes to an end; sshd hears nothing of it yet."""
        self.raw.close()

    def close(self) -> None:
        """The last call: whoever writes is woken, and waited for."""
        self.wake()
        with self._sending, suppress(SSHException, EOFError, OSError):
            message = Message()
            message.add_byte(cMSG_CHANNEL_CLOSE)
            message.add_int(self.raw.remote_chanid)
            self.raw.transport._send_user_message(message)
        vars(self.raw).pop("_close_internal", None)  # which holds us

    def _end_quietly(self) -> tuple[()]:
        """In place of paramiko's, which gives what is to be sent; called with the channel's lock."""
        self.raw._set_closed()
        return ()


@contextmanager
def _as_of_a_socket() -> Iterator[None]:
    """A connection that breaks while we send raises EOFError in paramiko."""
    try:
        yield
    except (SSHException, EOFError) as error:
        raise OSError("the connection is lost") from error
