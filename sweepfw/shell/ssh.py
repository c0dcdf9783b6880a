"""Commands on another machine, over one SSH connection. The only file that imports Fabric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO

from sweepfw.core.command import Cmd
from sweepfw.core.deployment import Host
from sweepfw.shell.access import Access
from sweepfw.shell.shell import Result, Sink


class SshShell:
    """A Shell on a host. Open it with `SshShell.open`; it keeps its one connection until `close`."""

    @classmethod
    def open(cls, host: Host, access: Access) -> SshShell:
        """Connect, with every host key on the way checked before anything is sent.

        UnknownKeyError and ChangedKeyError for a key; UnreachableError for all else that stands in the way,
        each with what to do; SweepError for a host whose name is unfit.
        """
        raise NotImplementedError

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        raise NotImplementedError

    def has(self, name: str) -> bool:
        raise NotImplementedError

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        raise NotImplementedError

    def get(self, path: str) -> bytes:
        raise NotImplementedError

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Sink | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
