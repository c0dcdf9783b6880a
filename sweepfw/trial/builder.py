"""Builds a virtual environment with uv where it is there, else with venv and pip; all of it goes to a log."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweepfw.errors import StoppedError
from sweepfw.shell.local import find_command

_TELLING = ("ERROR", "error", "×", "╰─▶", "Because ")  # how builders begin the line that says what is wrong


class SetupFailed(StoppedError):  # noqa: N818  # as people see it: the reason `setup failed`
    """An environment could not be built. `log` is the file with all that the builders printed."""

    def __init__(self, what: str, log: Path) -> None:
        super().__init__(what)
        self.log = log

    @property
    def text(self) -> str:
        """The whole log."""
        try:
            return self.log.read_text(errors="replace")
        except OSError:
            return ""


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs the builders. `lock` is an open file that they hold too: while one lives, nobody else builds.

    Their own settings (indexes, proxies, caches) are the user's, from files and variables.
    """

    env: Mapping[str, str]
    log: Path
    lock: int
    say: Callable[[str], None]
    cancelled: Callable[[], bool]

    def make(
        self, python: str, folder: Path, project: Path, requirements: str, constraints: Path | None
    ) -> str:
        """Make the environment in `folder`; its lock: each package with its version."""
        self.log.write_bytes(b"")
        uv = find_command("uv", self.env)
        self.say(f"building the environment of {requirements} with {'uv' if uv else 'pip'}")
        inside = f"{folder}/bin/python"
        wanted = ["-r", requirements, *(["-c", str(constraints)] if constraints else [])]
        if uv:
            # --no-config would take the user's index away; the project's own uv settings are meant to count.
            self.run(project, uv, "venv", "--quiet", "--python", python, str(folder))
            self.run(project, uv, "pip", "install", "--python", inside, *wanted)
            return self.ask(project, uv, "pip", "freeze", "--python", inside)
        self.run(project, python, "-m", "venv", "--without-pip", str(folder))
        pip = (*self._pip(project, python, inside), "--disable-pip-version-check", "--no-input")
        self.run(project, *pip, "install", *wanted)
        return self.ask(project, *pip, "freeze")

    def _pip(self, cwd: Path, python: str, inside: str) -> tuple[str, ...]:
        """The pip of the Python outside, where it has one that can (22.3): a new one inside takes seconds."""
        outside = (python, "-m", "pip", "--python", inside)
        asked = subprocess.run(
            (*outside, "--version"), cwd=cwd, env=dict(self.env), capture_output=True, check=False
        )
        if asked.returncode == 0:
            return outside
        self.run(cwd, inside, "-m", "ensurepip", "--default-pip")
        return (inside, "-m", "pip")

    def ask(self, cwd: Path, *command: str) -> str:
        lines: list[str] = []
        self.run(cwd, *command, hear=lines.append)
        return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))

    def run(self, cwd: Path, *command: str, hear: Callable[[str], None] | None = None) -> None:
        """Run one builder to its end; its lines go to the log and to `hear` (without one: as progress)."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**self.env, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONHOME": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log if hear else subprocess.STDOUT,
                pass_fds=(self.lock,),
                start_new_session=True,
            )
        try:
            self._follow(process, hear or self.say)
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout:
                process.stdout.close()
        if code:
            raise SetupFailed(f"environment: {self._why(command, code)}; the whole log: {self.log}", self.log)

    def _follow(self, process: subprocess.Popen[bytes], hear: Callable[[str], None]) -> None:
        assert process.stdout is not None
        rest = b""
        with selectors.DefaultSelector() as selector, self.log.open("ab") as log:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if self.cancelled():
                    raise StoppedError("the environment was not built to its end; resume builds it again")
                if not selector.select(0.2):
                    continue
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                log.write(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    hear(line.decode(errors="replace").strip())

    def _why(self, command: tuple[str, ...], code: int) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        first = next((at for at, line in enumerate(lines) if line.startswith(_TELLING)), -2)
        said = " ".join(lines[first:])[:400]
        return said or f"{' '.join(command[:3])} ended with code {code}"
