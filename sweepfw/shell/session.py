"""One command at a host: an SSH channel, with the script that runs the command first."""

from __future__ import annotations

import signal
from collections.abc import Callable
from socket import SHUT_WR
from threading import Event, Timer
from typing import IO

from paramiko.ssh_exception import SSHException

from sweepfw.errors import SweepError
from sweepfw.shell import faults
from sweepfw.shell import script as scripts
from sweepfw.shell.channel import Orderly
from sweepfw.shell.pump import pump

_LOST = (SSHException, EOFError, OSError)
_ANSWER = 5.0  # seconds for the process id of a command that is to be killed


class Session:
    """One script at the host, as `pump.Ends`: a channel, with its script first and its answer taken off."""

    def __init__(
        self, host: str, channel: Orderly, mark: str, script: bytes, kill: Callable[[int], None]
    ) -> None:
        self._host, self._channel, self._script, self._kill = host, channel, script, kill
        self._out, self._err = scripts.Unwrapper(mark), scripts.Unwrapper(mark)
        self._killed = False
        self._told = Event()  # the script's answer was read, or nothing will be

    def carry(
        self,
        stdin: IO[bytes] | None,
        out: Callable[[bytes], object],
        err: Callable[[bytes], object],
        timeout: float | None = None,
    ) -> int | None:
        """Run it to its end; its exit code, or None where it was killed because of the time. What `out`,
        `err` and `stdin` raise is raised."""
        timer = Timer(timeout, self.kill) if timeout is not None else None
        try:
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                self._channel.raw.exec_command(scripts.line(self._script))
                self.write(self._script)
            except _LOST:
                if self._killed:
                    return None
                raise faults.lost(self._host) from None
            pump(self, stdin, out, err)
            code = self._code()
        finally:
            if timer is not None:
                timer.cancel()
        return None if self._killed else code

    def _code(self) -> int:
        raw = self._channel.raw
        while not raw.status_event.wait(5):  # it may have closed its outputs long before its end
            if not raw.transport.is_active():
                raise faults.lost(self._host)
        code: int = raw.recv_exit_status()
        if code >= 0:
            return code
        if raw.transport.is_active():  # the shell around it was killed, with which is unsaid
            return 128 + signal.SIGKILL
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
        while piece := self._read(recv):
            data = unwrap(piece)
            if unwrap.header is not None:
                self._told.set()
            if data:
                return data
        self._told.set()
        return b""

    def _read(self, recv: Callable[[int], bytes]) -> bytes:
        try:
            return recv(1 << 16)
        except _LOST:
            raise faults.lost(self._host) from None

    def write(self, data: bytes) -> None:
        self._channel.sendall(data)

    def close_input(self) -> None:
        self._channel.shutdown(SHUT_WR)

    def kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        # Closing the channel alone would let it live on, and see its input end. Who reads goes on meanwhile.
        self._told.wait(_ANSWER)
        header = self._out.header or self._err.header
        if header is not None and not self._channel.raw.exit_status_ready():
            self._kill(header.pid)
        self._channel.wake()

    def close(self) -> None:
        """The last call."""
        self._channel.close()
