"""Commands on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sweepfw.core.command import Cmd
from sweepfw.errors import SweepError
from sweepfw.shell.shell import Result, Sink

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
        from subprocess import TimeoutExpired

        process = self._start(command, cwd, env)
        try:
            out, err = process.communicate(input, timeout)
        except TimeoutExpired:
            raise SweepError(f"{command.argv[0]}: no end within {timeout:g} s; it was killed") from None
        finally:
            _end(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):  # input that it did not take
                    pipe.close()  # type: ignore[union-attr]  # all three are pipes
        return Result(process.returncode, out, err)

    def _start(
        self, command: Cmd, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        from subprocess import PIPE, Popen

        folder = None if cwd is None else self._path(cwd)
        try:
            return Popen(
                command.reveal(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=folder,
                env={**self.environment, **(env or {})},
                start_new_session=True,  # a terminal's Ctrl-C is ours to handle, and children die with it
            )
        except OSError as error:
            raise _not_started(command, folder, error) from None

    def has(self, name: str) -> bool:
        return find_command(name, self.environment) is not None

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        from tempfile import NamedTemporaryFile

        target = self._path(path)
        try:
            _make_folder(target.parent)
            with NamedTemporaryFile(dir=target.parent, prefix=".put.", delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    Path(file.name).rename(target)
                except BaseException:
                    Path(file.name).unlink()
                    raise
        except OSError as error:
            raise SweepError(f"{path}: can't be written ({error.strerror})") from None

    def get(self, path: str) -> bytes:
        try:
            return self._path(path).read_bytes()
        except OSError as error:
            raise SweepError(f"{path}: can't be read ({error.strerror})") from None

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Sink | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        from sweepfw.shell.pump import Lines, pump, sink

        process = self._start(command)
        lines = Lines(on_line)
        try:
            pump(_Running(process), stdin, sink(stdout), lines)
            return Result(process.wait(), b"", lines.end())
        finally:
            _end(process)  # its pipes are closed with the last thread that reads them

    def close(self) -> None:
        """There is nothing to give back."""

    def _path(self, path: str) -> Path:
        if path == "~" or path.startswith("~/"):
            return Path(self.environment.get("HOME") or Path.home(), path[2:])
        return Path(path)


class _Running:
    """A process as `pump.Ends`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self._process, self._stdin = process, process.stdin
        self._out, self._err = process.stdout.fileno(), process.stderr.fileno()

    def read_out(self) -> bytes:
        return os.read(self._out, 1 << 16)

    def read_err(self) -> bytes:
        return os.read(self._err, 1 << 16)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._stdin.fileno(), rest) :]

    def close_input(self) -> None:
        self._stdin.close()

    def kill(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


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


def _make_folder(folder: Path) -> None:
    """With its missing parents, all of them for their owner only."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command that did not end by itself: the whole of its session's group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()  # not for its pipes: a child in a session of its own may hold them


def _not_started(command: Cmd, cwd: Path | None, error: OSError) -> SweepError:
    if cwd is not None and not cwd.is_dir():
        return SweepError(f"{cwd}: no such folder; {command.argv[0]} was to run there")
    if isinstance(error, FileNotFoundError):
        return SweepError(f"{command.argv[0]}: no such command on this machine; install it or put it on PATH")
    return SweepError(f"{command.argv[0]}: can't be started ({error.strerror})")
