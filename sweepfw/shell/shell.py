"""Where commands run. `LocalShell` runs them here; a shell over SSH keeps the same promises elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from sweepfw.core.command import Cmd


class Result(NamedTuple):
    """What became of a command. A negative code is the signal that ended it."""

    code: int
    out: bytes = b""
    err: bytes = b""

    @property
    def text(self) -> str:
        """Its standard output, as text; never fails."""
        return self.out.decode(errors="replace")


class Shell(Protocol):
    """A place that runs commands, found by its users' own PATH. Safe to call from several threads."""

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the command to its end and return what it printed, whatever its exit code.

        `env` is added to the environment. A command that is not there, can't be started in `cwd`, or does
        not end within `timeout` seconds (it is killed then, with its children) raises SweepError. Secrets
        are passed on, and never shown in an error.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether there is a command of this name. Costs next to nothing."""
        ...
