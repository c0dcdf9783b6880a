"""Commands on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw.core.command import Cmd
from sweepfw.errors import SweepError
from sweepfw.shell.shell import Result

if TYPE_CHECKING:
    import subprocess


@dataclass(frozen=True, slots=True)
class LocalShell:
    """Runs commands here, with this environment. Starting one imports subprocess; making a shell does not."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        from subprocess import PIPE, Popen, TimeoutExpired

        try:
            process = Popen(
                command.reveal(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=cwd,
                env={**self.environment, **(env or {})},
                start_new_session=True,  # a terminal's Ctrl-C is ours to handle, and children die with it
            )
        except OSError as error:
            raise _not_started(command, cwd, error) from None
        try:
            out, err = process.communicate(input, timeout)
        except TimeoutExpired:
            raise SweepError(f"{command.argv[0]}: no end within {timeout:g} s; it was killed") from None
        finally:
            _end(process)
        return Result(process.returncode, out, err)

    def has(self, name: str) -> bool:
        return find_command(name, self.environment) is not None


def find_command(name: str, env: Mapping[str, str], cwd: str = ".") -> str | None:
    """The file that runs as `name`, as execvpe in `cwd` would find it; None where nothing would."""
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{folder or '.'}/{name}" for folder in env.get("PATH", os.defpath).split(":")]
    for candidate in candidates:
        path = Path(cwd, candidate)
        # Path.is_file raises where a folder on PATH may not be searched.
        if name and os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return str(path.absolute())
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command that did not end by itself: the whole of its session's group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _not_started(command: Cmd, cwd: str | None, error: OSError) -> SweepError:
    if cwd is not None and not Path(cwd).is_dir():
        return SweepError(f"{cwd}: no such folder; {command.argv[0]} was to run there")
    if isinstance(error, FileNotFoundError):
        return SweepError(f"{command.argv[0]}: no such command on this machine; install it or put it on PATH")
    return SweepError(f"{command.argv[0]}: can't be started ({error.strerror})")
