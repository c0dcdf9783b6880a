"""OpenSSH's own client, where a second to connect counts: its arguments, and a wire that it holds."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

from sweepfw.core.command import Cmd, cmd
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.shell import faults
from sweepfw.shell.access import Access
from sweepfw.shell.route import Hop

if TYPE_CHECKING:
    import subprocess

# What a user's configuration may say otherwise for good reasons of its own, and must not say for us.
_OURS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "VerifyHostKeyDNS=no",
    "NoHostAuthenticationForLocalhost=no",
    "UpdateHostKeys=no",
    "ControlMaster=no",
    "ControlPath=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)


def wire_command(hops: Sequence[Hop], access: Access, address: str, port: int) -> Cmd:
    """An `ssh` whose standard input and output are a connection to address and port, seen from the last
    hop. Every hop's key must be known, to the deployment's file or the user's."""
    return cmd(*_ssh(hops, access, ["-W", _joined(address, port)], "VERBOSE"))


def run_command(hops: Sequence[Hop], access: Access, command: Cmd) -> Cmd:
    """An `ssh` that runs a command on the last hop. Quoted here, once; secrets have no place in it."""
    if command.secrets:
        raise ValueError("a command line of ssh is no place for secrets")
    argv = _ssh(hops, access, [], "ERROR")
    return cmd(*argv, join(command.reveal()))


def _ssh(hops: Sequence[Hop], access: Access, what: Sequence[str], loudness: str) -> list[str]:
    """The arguments for the last hop, through the others."""
    *before, hop = hops
    options = [*_OURS, f"LogLevel={loudness}", f"ConnectTimeout={access.timeout:.0f}"]
    options.append("UserKnownHostsFile=" + " ".join(_file(path) for path in _known_files(hop, access)))
    if before:
        # A jump host of our own making: ssh's would not be as strict, and not know the deployment's keys.
        inner = _ssh(before, access, ["-W", _joined(hop.address, hop.port)], "ERROR")
        options.append("ProxyCommand=" + join(inner).replace("%", "%%"))
    flags = ["-F", access.config] if access.config else []
    return [
        "ssh",
        "-T",
        "-a",
        "-x",
        *flags,
        *_identities(hop, access),
        *hop.asked,
        *(part for option in options for part in ("-o", option)),
        *what,
        "--",
        hop.target,
    ]


def _identities(hop: Hop, access: Access) -> list[str]:
    """With `-i` ssh forgets the keys that it tries by itself, so all are named, for jump hosts too."""
    if access.identity is None:
        return []
    files = [file for file in hop.identities if Path(file).is_file()]
    return [part for file in files for part in ("-i", file)]


def _known_files(hop: Hop, access: Access) -> list[Path]:
    return list(dict.fromkeys((access.known_hosts, *hop.known_files)))


def _file(path: Path) -> str:
    """A path in a configuration's value: spaces are quoted, per cents are no tokens."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Wire:
    """A connection that an `ssh` of its own holds. `socket` is our end; closing it ends the ssh."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._process, self.socket, self._said = process, ours, b""
        assert process.stderr is not None
        self._stderr = process.stderr.fileno()

    @classmethod
    def open(cls, host: str, command: Cmd, timeout: float = 15) -> Wire:
        """Start the ssh and wait until it has logged in. UnreachableError, with the reason, where it has
        not. Whether something answers at the other end is only seen by talking to it."""
        wire = cls(*_spawn(command))
        deadline = time.monotonic() + timeout
        while b"Authenticated to " not in wire._said:
            left = deadline - time.monotonic()
            if left <= 0 or not wire._read(left):
                wire.close()
                raise faults.from_ssh(host, wire.said) if left > 0 else _late(host, wire.said, timeout)
        return wire

    def _read(self, seconds: float) -> bool:
        """Wait for something on its standard error. False at its end."""
        ready, _, _ = select.select([self._stderr], [], [], seconds)
        if not ready:
            return True
        data = os.read(self._stderr, 1 << 16)
        self._said += data
        return bool(data)

    @property
    def said(self) -> str:
        """What ssh has said so far."""
        stderr = self._process.stderr
        if stderr is not None and not stderr.closed:
            while select.select([self._stderr], [], [], 0)[0] and self._read(0):
                pass
        return self._said.decode(errors="replace")

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, ssh and all; again does nothing."""
        self.socket.close()
        if self._process.poll() is None:
            self._process.terminate()
            _reap(self._process)
        self._said = self.said.encode()
        if self._process.stderr is not None:
            self._process.stderr.close()


def spawn(command: Cmd) -> socket.socket:
    """A user's own ProxyCommand: our end of a connection that it holds. It ends when that is closed."""
    _, ours = _spawn(command, quiet=True)
    return ours


def _spawn(command: Cmd, *, quiet: bool = False) -> tuple[subprocess.Popen[bytes], socket.socket]:
    from subprocess import DEVNULL, PIPE, Popen

    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = Popen(
                command.reveal(),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=DEVNULL if quiet else PIPE,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
    except OSError as error:
        ours.close()
        raise SweepError(
            f"{command.argv[0]}: can't be started ({error.strerror}); is it installed?"
        ) from None
    return process, ours


def _reap(process: subprocess.Popen[bytes]) -> None:
    from subprocess import TimeoutExpired

    try:
        process.wait(2)
    except TimeoutExpired:
        process.kill()
        process.wait()


def _late(host: str, said: str, timeout: float) -> UnreachableError:
    lines = [line for line in said.splitlines() if line.strip()]
    return faults.other(host, f"no login within {timeout:g} s {'; ' + lines[-1] if lines else ''}")
