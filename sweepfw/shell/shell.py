"""Where commands run. `LocalShell` runs them here; `SshShell` keeps the same promises elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, NamedTuple, Protocol, TypeAlias

from sweepfw.core.command import Cmd

Sink: TypeAlias = "IO[bytes] | Callable[[bytes], object]"  # where output goes, piece by piece


class Result(NamedTuple):
    """What became of a command. A negative code is the signal that ended it (over SSH: 128 + the signal)."""

    code: int
    out: bytes = b""
    err: bytes = b""

    @property
    def text(self) -> str:
        """Its standard output, as text; never fails."""
        return self.out.decode(errors="replace")


class Shell(Protocol):
    """A place that runs commands, found by its users' own PATH. Safe to call from several threads.

    Where the connection to that place breaks, every call raises UnreachableError. In `put`, `get` and `cwd`
    a path that begins with `~/` begins at the user's home.
    """

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the command to its end and return what it printed, whatever its exit code.

        `env` is added to the environment. A command that is not there, can't be started in `cwd`, does not
        end within `timeout` seconds (it is killed then, with its children), or prints more than can be kept
        (64 MB) raises SweepError. Secrets are passed on, and never shown in an error.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether there is a command of this name. Costs next to nothing, or one round trip."""
        ...

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        """Write a file as a whole or not at all. Folders that are missing are made, for their owner only."""
        ...

    def get(self, path: str) -> bytes:
        """A file's content. SweepError where it can't be read."""
        ...

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Sink | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        """Run the command with its bytes passed through as they come, however many, for however long.

        `on_line` gets each line of its standard error. The Result has its code and the last 64 kB of standard
        error; where `stdout` is None it goes nowhere. Whatever else ends this call (an exception of `stdin`,
        `stdout` or `on_line`, or Ctrl-C) ends the command, which then never sees its input as complete. But a
        connection that breaks looks to it like the end.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; nothing runs after this."""
        ...
