"""Commands on another machine, over one SSH connection. The only file that imports Fabric."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from secrets import token_hex
from threading import BoundedSemaphore
from typing import IO, Any

from fabric import Config, Connection
from paramiko import SSHConfig
from paramiko.ssh_exception import SSHException

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.shell import faults
from sweepfw.shell.access import Access
from sweepfw.shell.channel import Orderly
from sweepfw.shell.host_keys import known_types, read_keys
from sweepfw.shell.local import LocalShell
from sweepfw.shell.login import KeyCheck, Login, fault, transport_for
from sweepfw.shell.openssh import spawn
from sweepfw.shell.pump import Collected, Lines, sink
from sweepfw.shell.route import Hop, resolve
from sweepfw.shell.script import get_script, kill_line, put_script, script
from sweepfw.shell.session import Session
from sweepfw.shell.shell import Result, Sink

_AT_ONCE = 8  # sessions of one connection; sshd allows ten
_WINDOW = 1 << 23  # bytes under way; less is slow where answers take long
_PATIENCE = 30  # seconds for a new session on a connection that stands


class SshShell:
    """A Shell on a host. Open it with `SshShell.open`; it keeps its one connection until `close`."""

    def __init__(self, host: str, connections: Sequence[Connection]) -> None:
        self.host, self._connections = host, connections
        self._transport: Any = connections[-1].transport
        self._places = BoundedSemaphore(_AT_ONCE)
        self._found: dict[str, bool] = {}

    @classmethod
    def open(cls, host: Host, access: Access) -> SshShell:
        """Connect, with every host key on the way checked before anything is sent.

        UnknownKeyError and ChangedKeyError for a key; UnreachableError for all else that stands in the way,
        each with what to do; SweepError for a host whose name is unfit.
        """
        connections: list[Connection] = []
        try:
            for hop in resolve(host, access, LocalShell()):
                connections.append(_connect(hop, connections[-1] if connections else None, access))
        except BaseException:
            _close(connections)
            raise
        return cls(host.name, connections)

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        name = str(command.argv[0])
        out, err = Collected(name), Collected(name)
        with self._session(script, command, cwd, env, timeout=timeout) as session:
            code = session.carry(BytesIO(input), out, err, timeout)
        if code is None:
            raise SweepError(f"{name}: no end within {timeout:g} s; it was killed")
        session.check(name, cwd)
        return Result(code, out.data, err.data)

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Sink | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        lines = Lines(on_line)
        with self._session(script, command) as session:
            code = session.carry(stdin, sink(stdout), lines)
        session.check(str(command.argv[0]), None)
        return Result(-1 if code is None else code, b"", lines.end())

    def has(self, name: str) -> bool:
        if not self._found.get(name):
            self._found[name] = self.run(cmd("sh", "-c", 'command -v "$1"', "sh", name)).code == 0
        return self._found[name]

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        self._file(put_script, path, data, "written", len(data), mode)

    def get(self, path: str) -> bytes:
        return self._file(get_script, path, b"", "read")

    def _file(self, make: Callable[..., bytes], path: str, data: bytes, done: str, *arguments: int) -> bytes:
        out, err = Collected(path), Collected(path)
        with self._session(make, path, *arguments) as session:
            code = session.carry(BytesIO(data), out, err)
        session.check("sh", None)
        if code:
            said = err.data.decode(errors="replace").strip().splitlines()
            why = said[-1].rpartition(": ")[2] if said else f"exit code {code}"
            raise SweepError(f"{self.host}:{path}: can't be {done} ({why})")
        return out.data

    def dial(self, address: str, port: int) -> Orderly:
        """A connection from the host to somewhere. UnreachableError where nobody answers there."""
        try:
            channel = self._transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0))
        except (SSHException, OSError, EOFError) as error:
            raise UnreachableError(
                f"{self.host}: {address}, port {port}, does not answer ({error})"
            ) from None
        return Orderly(channel)

    def close(self) -> None:
        _close(self._connections)

    @contextmanager
    def _session(
        self, make: Callable[..., bytes], *arguments: Any, timeout: float | None = None
    ) -> Iterator[Session]:
        mark = f"sweepfw-{token_hex(8)}"
        script = make(mark, *arguments)
        with self._places:
            try:
                channel = self._transport.open_session(
                    window_size=_WINDOW, timeout=min(_PATIENCE, timeout or _PATIENCE)
                )
            except (SSHException, OSError, EOFError):
                raise faults.lost(self.host) from None
            session = Session(self.host, Orderly(channel), mark, script, self._kill)
            try:
                yield session
            finally:
                session.close()

    def _kill(self, pid: int) -> None:
        """End a process group there, where the connection still stands."""
        with suppress(SSHException, OSError, EOFError):
            channel = self._transport.open_session(timeout=5)
            channel.exec_command(kill_line(pid))
            channel.status_event.wait(5)
            channel.close()


# -- connecting ------------------------------------------------------------------------------------------


def _connect(hop: Hop, before: Connection | None, access: Access) -> Connection:
    """One hop of the way, through the one before it."""
    entries = read_keys([access.known_hosts, *hop.known_files], hop.key_name)
    login = Login(hop)
    connection = Connection(
        hop.address,
        user=hop.user,
        port=hop.port,
        gateway=before,
        config=Config(ssh_config=SSHConfig(), lazy=True),  # what `ssh -G` said is all that counts
        connect_timeout=access.timeout,
        connect_kwargs={
            "auth_strategy": login,
            "transport_factory": transport_for(known_types(entries)),
            "banner_timeout": access.timeout,
            "auth_timeout": 3 * access.timeout,  # a person may have to touch a key
            "channel_timeout": access.timeout,
        },
    )
    # Before connecting: Fabric itself takes every key.
    connection.client.set_missing_host_key_policy(KeyCheck(hop, access, entries))
    try:
        if hop.command is not None and before is None:
            connection.connect_kwargs["sock"] = spawn(cmd("/bin/sh", "-c", f"exec {hop.command}"))
        connection.open()
        login.check(connection.transport)
        _notice_silence(connection.transport)
    except SweepError:
        connection.client.close()
        raise
    except (OSError, EOFError, SSHException) as error:
        connection.client.close()
        raise fault(hop, error, before and before.host, login, access.timeout) from None
    return connection


def _notice_silence(transport: Any) -> None:
    """A peer that is gone without a word is noticed within a minute, also while nothing is asked."""
    transport.set_keepalive(10)
    sock = transport.sock
    if isinstance(sock, socket.socket) and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (unacknowledged := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, unacknowledged, 40_000)


def _close(connections: Sequence[Connection]) -> None:
    for connection in reversed(connections):
        connection.client.close()
