"""One command at a host: an SSH channel, with the script that runs the command first."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Timer
from typing import IO, Any

from paramiko import Message
from paramiko.common import cMSG_CHANNEL_CLOSE
from paramiko.ssh_exception import SSHException

from sweepfw.errors import SweepError
from sweepfw.shell import faults
from sweepfw.shell import script as scripts
from sweepfw.shell.pump import pump

_ANSWER = 5.0  # seconds for the process id of a command that is to be killed


class Session:
    """One script at the host, as `pump.Ends`: a channel, with its script first and its answer taken off.

    Nothing follows a channel's CLOSE: sshd gives its number to the next one, which would take what comes late
    for the end of its own input and hang, and where there is no next one sshd ends the whole connection. But
    paramiko's thread sends CLOSE as soon as the command has ended, before what others are about to send. So
    it is sent here, by `close` alone.
    """

    def __init__(
        self, host: str, channel: Any, mark: str, script: bytes, kill: Callable[[int], None]
    ) -> None:
        self._host, self._channel, self._script, self._kill = host, channel, script, kill
        self._out, self._err = scripts.Unwrapper(mark), scripts.Unwrapper(mark)
        self._killed = False
        self._told = Event()  # the script's answer was read, or nothing will be
        self._sending = Lock()
        channel._close_internal = self._end_quietly

    def carry(
        self,
        stdin: IO[bytes] | None,
        out: Callable[[bytes], object],
        err: Callable[[bytes], object],
        timeout: float | None = None,
    ) -> int | None:
        """Run it to its end; its exit code, or None where it was killed because of the time."""
        timer = Timer(timeout, self.kill) if timeout is not None else None
        try:
            if timer is not None:
                timer.daemon = True
                timer.start()
            self._channel.exec_command(scripts.line(self._script))
            self.write(self._script)
            pump(self, stdin, out, err)
            code = self._code()
        except (SSHException, EOFError, OSError):
            if not self._killed:
                raise faults.lost(self._host) from None
        finally:
            if timer is not None:
                timer.cancel()
        return None if self._killed else code

    def _code(self) -> int:
        while not self._channel.status_event.wait(5):  # it may have closed its outputs long before its end
            if not self._channel.transport.is_active():
                raise faults.lost(self._host)
        code: int = self._channel.recv_exit_status()
        if code >= 0:
            return code
        if self._channel.transport.is_active():
            return (
                128 + signal.SIGKILL
            )  # not the command but the shell around it was killed, with which is unsaid
        raise faults.lost(self._host)

    def check(self, name: str, cwd: str | None) -> None:
        """SweepError where the command was not even started."""
        header = self._out.header or self._err.header
        host = self._host
        if header is None:
            noise = (self._out.noise or self._err.noise or "nothing").splitlines()[-1][:200]
            raise SweepError(f"{host}: the login there runs no commands, it says: {noise}")
        if header.start == "folder":
            raise SweepError(f"{host}: {cwd}: no such folder; {name} was to run there")
        if header.start == "missing":
            raise SweepError(f"{host}: {name}: no such command there; install it or put it on PATH")
        if header.start != "ok":
            raise SweepError(f"{host}: {name}: can't be started (it is no program)")

    # -- what pump asks for ----------------------------------------------------------------------------

    def read_out(self) -> bytes:
        return self._unwrapped(self._channel.recv, self._out)

    def read_err(self) -> bytes:
        return self._unwrapped(self._channel.recv_stderr, self._err)

    def _unwrapped(self, recv: Callable[[int], bytes], unwrap: scripts.Unwrapper) -> bytes:
        while piece := recv(1 << 16):
            data = unwrap(piece)
            if unwrap.header is not None:
                self._told.set()
            if data:
                return data
        self._told.set()
        return b""

    def write(self, data: bytes) -> None:
        with self._sending:
            self._channel.sendall(data)

    def close_input(self) -> None:
        with self._sending:
            if not self._channel.closed:
                self._channel.shutdown_write()

    def kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        # Closing the channel alone would let it live on, and see its input end. Who reads goes on meanwhile.
        self._told.wait(_ANSWER)
        header = self._out.header or self._err.header
        if header is not None and not self._channel.exit_status_ready():
            self._kill(header.pid)
        self._channel.close()  # who reads or writes comes to an end

    # -- the channel's end -----------------------------------------------------------------------------

    def _end_quietly(self) -> tuple[()]:
        """In place of paramiko's, which gives what is to be sent; called with the channel's lock."""
        self._channel._set_closed()
        return ()

    def close(self) -> None:
        """The last call: whoever writes is woken, and waited for."""
        channel = self._channel
        channel.close()
        with self._sending, suppress(SSHException, EOFError, OSError):
            message = Message()
            message.add_byte(cMSG_CHANNEL_CLOSE)
            message.add_int(channel.remote_chanid)
            channel.transport._send_user_message(message)
        del channel._close_internal  # which holds us
