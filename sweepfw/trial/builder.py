"""Builds a virtual environment with uv where it is there, else with venv and pip; all of it goes to a log."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sweepfw.errors import StoppedError
from sweepfw.masking import Masker
from sweepfw.shell.local import find_command
from sweepfw.trial.guard.secret import FOLDER, PIP_CONF, PIP_VARIABLE

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


class _Lines:
    """What one pipe brings: masked, to the log, and line by line to who listens."""

    def __init__(self, masker: Masker, log: BinaryIO, hear: Callable[[str], None] | None) -> None:
        self._masker, self._log, self._hear = masker, log, hear
        self._rest = b""

    def take(self, data: bytes) -> None:
        """The next bytes; empty at the end."""
        shown = self._masker.feed(data) if data else self._masker.end()
        self._log.write(shown)
        self._log.flush()
        if self._hear:
            *lines, self._rest = (self._rest + shown).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").strip())


@dataclass(frozen=True, slots=True)
class Builder:
    """Runs the builders. `lock` is an open file that they hold too: while one lives, nobody else builds.

    Their own settings (indexes, proxies, caches) are the user's, from files and variables. What they print is
    masked before anybody gets it.
    """

    env: Mapping[str, str]
    log: Path
    lock: int
    say: Callable[[str], None]
    cancelled: Callable[[], bool]
    needles: Sequence[bytes] = ()

    def make(
        self, python: str, folder: Path, project: Path, requirements: str, constraints: Path | None
    ) -> str:
        """Make the environment in `folder`; its lock: each package with its version."""
        self.log.write_bytes(b"")
        uv = None if self._configures_pip() else find_command("uv", self.env)
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

    def _configures_pip(self) -> bool:
        """Whether a secret is pip's configuration, which uv does not read."""
        folder = self.env.get(FOLDER, "")
        return bool(folder) and self.env.get(PIP_VARIABLE) == f"{folder}/{PIP_CONF}"

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
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**self.env, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONHOME": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if hear else subprocess.STDOUT,
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
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        if code:
            raise SetupFailed(f"environment: {self._why(command, code)}; the whole log: {self.log}", self.log)

    def _follow(self, process: subprocess.Popen[bytes], hear: Callable[[str], None]) -> None:
        """Until both pipes are at their end. Lines of the first are heard."""
        with selectors.DefaultSelector() as selector, self.log.open("ab") as log:
            for pipe, listener in ((process.stdout, hear), (process.stderr, None)):
                if pipe:
                    selector.register(pipe, selectors.EVENT_READ, _Lines(Masker(self.needles), log, listener))
            while selector.get_map():
                if self.cancelled():
                    raise StoppedError("the environment was not built to its end; resume builds it again")
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 1 << 16)
                    key.data.take(data)
                    if not data:
                        selector.unregister(key.fd)

    def _why(self, command: tuple[str, ...], code: int) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        first = next((at for at, line in enumerate(lines) if line.startswith(_TELLING)), -2)
        said = " ".join(lines[first:])[:400]
        return said or f"{' '.join(command[:3])} ended with code {code}"
