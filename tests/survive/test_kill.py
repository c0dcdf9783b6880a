"""`kill -9` of the command line, its guardian, or a keeper, at random moments: promises 1 and 2."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import family, marked

TRIALS = 200
KILLS = 8

# A trial in bash tells a witness outside of sweepfw of its start and its end, and leaves a child behind.
# Most of them go on only once somebody lets them.
TRIAL = """
echo "start $SWEEPFW_TRIAL $SWEEPFW_ATTEMPT" >> "$WITNESS"
(setsid sleep 600.$MARK >/dev/null 2>&1 &)
[ "$SWEEPFW_TRIAL" -lt 20 ] || until [ -e "$WITNESS.go" ]; do sleep 0.02; done
sleep 0.0$((RANDOM % 9))
echo "end $SWEEPFW_TRIAL $SWEEPFW_ATTEMPT" >> "$WITNESS"
"""


@pytest.fixture
def witnessed(make_project: Callable[..., Path], tmp_path: Path) -> tuple[Path, str]:
    """A project of 200 trials that tell the witness file; the file and the mark of all its processes."""
    witness, mark = tmp_path / "witness", f"{random.randrange(10**9):09}"
    project = (
        f"command: [bash, trial.sh]\nvariables: {{WITNESS: '{witness}', MARK: '{mark}'}}\nmax_failures: 0\n"
    )
    make_project("kill", project, f"i: !!python/tuple [0, {TRIALS}]\n", {"trial.sh": TRIAL})
    return witness, mark


@pytest.mark.slow
def test_kills_at_random_moments(
    witnessed: tuple[Path, str],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    workspace_folder: Path,
    wait_until: Callable[..., None],
) -> None:
    witness, mark = witnessed
    Path(f"{witness}.go").touch()
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    verb = ["run", "kill"]
    for struck in range(KILLS):
        kind = ("cli", "sweepfw-guard", "sweepfw-keeper", "cli and guard")[struck % 4]
        process = start_sweepfw(*verb, "-j", "3", "--quiet")
        verb = ["resume", "kill-1"]
        wait_until(_begun(witness, process), what="a trial's start")
        time.sleep(chance.uniform(0, 0.25))
        _strike(kind, process, chance)
        if kind == "sweepfw-keeper":  # the run goes on without it
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        process.wait(timeout=60)
        wait_until(lambda: not marked(mark), what=f"no process of a trial left after kill of {kind}")
    final = sweepfw("resume", "kill-1", "-j", "3", "--quiet")
    assert final.returncode == 0, final.stderr
    assert not marked(mark)
    _check_truth(workspace_folder, witness)


def _begun(witness: Path, process: subprocess.Popen[str]) -> Callable[[], bool]:
    """Asks whether a trial was started since now, or the run ended without one."""
    before = _starts(witness)
    return lambda: _starts(witness) > before or process.poll() is not None


def _starts(witness: Path) -> int:
    return witness.read_text().count("start") if witness.exists() else 0


def _strike(kind: str, process: subprocess.Popen[str], chance: random.Random) -> None:
    found = family(process.pid)
    victims = {
        "cli": [],
        "cli and guard": found["sweepfw-guard"],
        "sweepfw-guard": found["sweepfw-guard"],
        "sweepfw-keeper": chance.sample(found["sweepfw-keeper"], min(1, len(found["sweepfw-keeper"]))),
    }[kind]
    if kind.startswith("cli"):
        process.kill()
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _check_truth(workspace: Path, witness: Path) -> None:
    shown = json.loads(
        subprocess.run(
            [sys.executable, "-m", "sweepfw", "show", "kill-1", "--json"],
            cwd=workspace,
            capture_output=True,
            check=True,
        ).stdout
    )
    assert shown["counts"] == {"succeeded": TRIALS}
    with sqlite3.connect(workspace / ".sweepfw/ledger.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        accepted = db.execute("SELECT trial, sum(accepted) FROM attempt GROUP BY trial").fetchall()
    assert accepted == [(n, 1) for n in range(1, TRIALS + 1)]
    started = Counter(tuple(line.split()) for line in witness.read_text().splitlines())
    assert max(started.values()) == 1, "an attempt started or ended twice"
    for trial in shown["trials"]:
        folder = workspace / "runs/kill-1/trials" / str(trial["trial"])
        told = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/outcome.json")}
        outcomes = [number for number, outcome in told.items() if outcome["why"] != "interrupted"]
        # An outcome that was written is the last word, unless we ended the trial ourselves to go on later.
        assert outcomes == [str(trial["attempts"][-1]["attempt"])], (trial, outcomes)
        assert started["end", str(trial["trial"]), outcomes[0]] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweepfw-guard", "sweepfw-keeper"])
def test_the_run_tells_or_goes_on(
    kind: str,
    witnessed: tuple[Path, str],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    workspace_folder: Path,
    wait_until: Callable[..., None],
) -> None:
    """A killed guardian ends the run with one line; a killed keeper costs one attempt and no more."""
    witness, mark = witnessed
    process = start_sweepfw("run", "kill", "-j", "2", "--quiet")
    wait_until(lambda: _starts(witness) > 2, what="some trials")
    _strike(kind, process, random.Random(1))
    Path(f"{witness}.go").touch()
    _, errors = process.communicate(timeout=120)
    wait_until(lambda: not marked(mark), what="no process of a trial left")
    if kind == "sweepfw-keeper":
        assert (process.returncode, errors) == (0, "")
    else:
        assert process.returncode == 3
        assert errors.count("\n") == 1
        assert "resume kill-1" in errors
        assert sweepfw("resume", "kill-1", "--quiet").returncode == 0
    _check_truth(workspace_folder, witness)
