"""`retry`, `plan`, `show` and the progress line of the real command, where a sweep stands half-way."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pexpect
import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def half(make_project: Callable[..., Path], sweepfw: Run) -> Path:
    """half-1: trials 1 and 2 have failed, which paused it; 3 and 4 wait. Its project's folder."""
    settings = "command: sh run.sh\nmax_failures: 2\n"
    folder = make_project("half", settings, "n: [1, 2, 3, 4]\n", {"run.sh": "echo old; exit 1\n"})
    assert sweepfw("run", "half", "-j", "1").returncode == 3
    (folder / "run.sh").write_text("echo new\n")
    return folder


def states(sweepfw: Run) -> list[str]:
    return [trial["state"] for trial in json.loads(sweepfw("show", "half-1", "--json").stdout)["trials"]]


def test_code_that_was_mended_runs_in_trials_that_wait_too(half: Path, sweepfw: Run) -> None:
    done = sweepfw("retry", "half-1", "--current-code")
    assert done.returncode == 0, done
    assert [sweepfw("logs", f"half-1/{n}").stdout for n in (1, 2, 3, 4)] == ["new\n"] * 4
    assert "mixed" not in sweepfw("show", "half-1/4").stdout


def test_trials_that_are_named_run_alone(half: Path, sweepfw: Run) -> None:
    sweepfw("retry", "half-1", "2", "--current-code")
    assert states(sweepfw) == ["failed", "succeeded", "queued", "queued"]
    sweepfw("resume", "half-1", "--only", "3")
    assert sweepfw("logs", "half-1/3").stdout == "old\n", "what was not named runs what it was frozen with"


def test_show_hints_at_logs_that_are_there(half: Path, sweepfw: Run) -> None:
    assert "sweepfw logs half-1/1" in sweepfw("show", "half-1").stdout
    sweepfw("run", "half", "--only", "3", "--logs", "none")
    assert "sweepfw logs half-2/3" in sweepfw("show", "half-2").stdout


def test_nothing_has_printed_yet(make_project: Callable[..., Path], sweepfw: Run) -> None:
    make_project("p", "command: 'true'\nenvironment: {requirements: r.txt}\n", "", {"r.txt": "./none\n"})
    assert sweepfw("run", "p").returncode == 3
    shown = sweepfw("show", "p-1").stdout
    assert "setup failed" in shown and "sweepfw resume p-1" in shown and "sweepfw logs" not in shown


def test_plan_counts_what_varies_together_and_knows_the_trial(
    make_project: Callable[..., Path], sweepfw: Run
) -> None:
    make_project(
        "p", "command: echo {trial} {sweep}\nzip: [[a, b]]\n", "a: [1, 2]\nc: [1, 2, 3]\nb: [3, 4]\n"
    )
    told = sweepfw("plan", "p").stdout
    assert told.startswith("p, task main: 6 trials (a+b 2 x c 3)\n")
    assert "  2  echo 2 '{sweep}' --a=1" in told
    first = json.loads(sweepfw("plan", "p", "--json").stdout.splitlines()[0])
    assert first["argv"][:3] == ["echo", "1", "{sweep}"]


def test_a_narrow_terminal(make_project: Callable[..., Path], workspace_folder: Path) -> None:
    """The progress line is cut by what is seen of it, and no colour is left open; nor is a trial's own."""
    go = workspace_folder / "go"
    script = (
        "printf '\\033[31mred\\033[0m\\tend\\n'; [ $SWEEPFW_TRIAL = 1 ] && exit 1\n"
        f"until test -e {go}; do sleep 0.01; done\n"
    )
    make_project("p", "command: sh run.sh\nretries: 0\n", "n: [1, 2, 3]\n", {"run.sh": script})
    child = pexpect.spawn(
        sys.executable,
        ["-m", "sweepfw", "run", "p", "-j", "1"],
        cwd=str(workspace_folder),
        env={**os.environ, "TERM": "xterm", "COLUMNS": "40"},
        dimensions=(24, 40),
        encoding="utf-8",
        timeout=120,
    )
    child.expect(r"p-1 [^\r\n]*1/3[^\r\n]*failed")
    shown = child.before + child.after
    go.touch()
    shown += child.read()
    child.close()
    assert "red     end" in re.sub(r"\x1b\[\d*m", "", shown), shown
    lines = re.findall(r"p-1 [^\r\n]*1/3[^\r\n]*", shown)
    assert lines and any("\x1b[31m1 failed\x1b[0m" in line for line in lines), shown
    assert re.sub(r"\x1b\[31m[^\x1b]*\x1b\[0m", "", shown).count("\x1b[31m") == 0, shown
