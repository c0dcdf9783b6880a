"""`infra up` and `doctor` at the terminal: what is refused before any host is asked, what progress shows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweepfw.cli.infra_board import Board
from sweepfw.core.command import cmd
from sweepfw.fleet.plan import Run, Step


def sweepfw(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweepfw", *words],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.parametrize("verb", ["up", "doctor"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which hosts? name them with -a, or write config.yml"),
        (("--local", "-a", "gpu1"), "--local means this machine alone"),
        (("-a", "-oProxyCommand=touch x"), "-oProxyCommand=touch x"),
        (("-a", "gpu1", "--trust", "gpu1=MD5:00"), "write HOST=SHA256:"),
        (("-a", "gpu1", "-m", "2"), "-m"),
        (("-a", "gpu1", "-i", "/nothing/there"), "/nothing/there: there is no such key file"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    tmp_path: Path, verb: str, words: tuple[str, ...], said: str
) -> None:
    done = sweepfw(tmp_path, "infra", verb, *words)
    assert said in done.stderr + done.stdout
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    if done.returncode == 2:
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "state").exists() and not (tmp_path / "config.yml").exists()


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    """Port 1 of this machine: refused at once. Nothing is remembered of it."""
    done = sweepfw(tmp_path, "infra", "up", "-a", "somebody@127.0.0.1:1", "--yes")
    assert done.returncode == 4
    assert "127.0.0.1 refuses connections at port 1" in done.stderr and "nothing was changed" in done.stderr
    assert not (tmp_path / "state").exists() and not (tmp_path / "config.yml").exists()
    told = sweepfw(tmp_path, "infra", "doctor", "-a", "somebody@127.0.0.1:1", "--json")
    assert told.returncode == 4 and '"reachable": false' in told.stdout


class Screen(io.StringIO):
    """A terminal of 60 columns."""

    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


STEPS = [Step(f"h{n}/x", f"h{n}", f"do {n}", Run((cmd("true"),))) for n in (1, 2)]


def test_progress_without_a_terminal() -> None:
    out, clock = io.StringIO(), Clock()
    with Board(STEPS, out, clock) as board:
        board(STEPS[0], "begun")
        board(STEPS[1], "begun")
        clock.now = 11
        board(STEPS[0], "detail", "layer 1")
        board(STEPS[0], "detail", "layer 2")
        clock.now = 12.4
        board(STEPS[0], "done")
        board(STEPS[1], "failed")
    assert out.getvalue() == "  h1  do 1 ...\n✓ h1  do 1  12s\n✗ h2  do 2  12s\n"


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Screen()
    with Board(STEPS, out, Clock()) as board:
        board(STEPS[0], "begun")
        board(STEPS[1], "begun")
        board(STEPS[1], "detail", "\x1b[31mRUN  pip install everything there is\x1b[0m")
        assert out.getvalue().endswith("\r\x1b[2K… h1: do 1 · h2: do 2 (RUN pip install…")
        board(STEPS[0], "done")
    lines = out.getvalue().split("\r\x1b[2K")
    assert "✓ h1  do 1\n… h2: do 2 (RUN pip install everything…" in lines[-2]
    assert lines[-1] == ""
