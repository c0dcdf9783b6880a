"""Every point of a crash on one machine: struck once, then finished as a person would, and nothing is lost,
doubled or left over."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from crash_cases import HERE, Case
from here_processes import ours

from sweepfw import crash
from sweepfw.config.secrets import store
from sweepfw.config.workspace import Workspace
from sweepfw.engine.lock import SweepLock

TRIALS = 3
# A trial tells a witness outside of sweepfw of its start and its end, and leaves a child behind.
TRIAL = """
echo "start $SWEEPFW_TRIAL $SWEEPFW_ATTEMPT ${SWEEPFW_CRASH:+inherited}" >> "$WITNESS"
(setsid sleep 600.$MARK >/dev/null 2>&1 &)
echo "attempt $SWEEPFW_ATTEMPT of $SWEEPFW_TRIAL"
echo "$SWEEPFW_ATTEMPT" > "$SWEEPFW_OUTPUT/attempt"
[ -e "$FAIL" ] && exit 3
if [ -n "$SWEEPFW_SECRETS" ]; then
  echo "$SWEEPFW_SECRETS" >> "$WITNESS.secrets"
  [ "$(cat "$SWEEPFW_SECRETS/conf")" = "$NEEDED" ] || exit 4
fi
echo "end $SWEEPFW_TRIAL $SWEEPFW_ATTEMPT" >> "$WITNESS"
"""
PROJECT = """
command: [bash, trial.sh]
grace: 1
max_failures: null
variables: {{WITNESS: '{witness}', MARK: '{mark}', FAIL: '{fail}'}}
"""


@dataclass
class World:
    """A workspace, what its trials witnessed, and ways to strike."""

    root: Path
    sweepfw: Callable[..., subprocess.CompletedProcess[str]]
    witness: Path
    mark: str
    fail: Path
    struck: Path

    def do(self, words: str) -> subprocess.CompletedProcess[str]:
        """A verb; before it `fail`: its trials fail; `crash POINT`: it is killed there."""
        first, _, rest = words.partition(" ")
        if first == "fail":
            self.fail.touch()
            done = self.do(rest)
            self.fail.unlink()
            return done
        if first == "crash":
            point, _, rest = rest.partition(" ")
            done = self.strike(f"{point}:1", rest)
            assert done.returncode == -9, f"{rest} never came by {point}: {done.stdout}{done.stderr}"
            return done
        return self.sweepfw(*words.split())

    def strike(self, told: str, verb: str) -> subprocess.CompletedProcess[str]:
        done = self.sweepfw(*verb.split(), env={**os.environ, crash.VARIABLE: told})
        self.wait_for_the_end(told)
        return done

    def wait_for_the_end(self, told: str) -> None:
        """Of all that ran: guardian and keepers end after their command line."""
        deadline = time.monotonic() + 60
        while left := self.left():
            assert time.monotonic() < deadline, f"left after {told}: {left}"
            time.sleep(0.02)

    def left(self) -> list[str]:
        """Processes of trials, and locks that a run, its guardian or a keeper holds."""
        found = [str(process.pid) for process in ours(self.mark)]
        place = Workspace(self.root)
        locks = [path.stem for path in (place.state / "locks").glob("*.lock")]
        return found + [uid for uid in locks if SweepLock.held(place, uid)]


@pytest.fixture
def world(
    workspace_folder: Path,
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> World:
    mark = f"{os.getpid()}{time.time_ns() % 10**7:07}"
    made = World(
        workspace_folder, sweepfw, tmp_path / "witness", mark, tmp_path / "fail", tmp_path / "struck"
    )
    text = PROJECT.format(witness=made.witness, mark=mark, fail=made.fail)
    numbers = f"i: {list(range(1, TRIALS + 1))}\n"
    make_project("p", text, numbers, {"trial.sh": TRIAL})
    needs = f"{text}environment: {{requirements: requirements.txt}}\n"
    hidden = f"{text}secrets: {{NEEDED: env, conf: {{file: {tmp_path / 'conf'}}}}}\n"
    make_project("hidden", hidden, numbers, {"trial.sh": TRIAL})
    (tmp_path / "conf").write_text("a secret of the test\n")
    store("NEEDED", b"a secret of the test")
    make_project("code", needs, numbers, {"trial.sh": TRIAL, "requirements.txt": "# nothing\n"})
    return made


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.id)
def test_whatever_dies_here_is_finished(world: World, case: Case) -> None:
    for words in case.before:
        world.do(words)
    done = world.strike(f"{case.id}:{world.struck}", case.verb)
    assert world.struck.exists(), f"{case.verb} never came by {case.point}: {done.stdout}{done.stderr}"
    in_keeper = case.point.startswith("keeper.")
    assert done.returncode == (0 if in_keeper else -9), done.stderr
    for words in case.after:
        done = world.do(words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    world.wait_for_the_end("all of it")
    _check_truth(world, TRIALS + ("extend" in case.verb))
    if "hidden" in case.verb:
        folders = (world.root.parent / "witness.secrets").read_text().split()
        assert folders and not any(os.path.exists(folder) for folder in folders)
    if case.point.startswith(("snapshot", "remove", "gc")):
        assert world.do("gc").returncode == 0
        assert _rubbish(world.root) == []


def _check_truth(world: World, trials: int) -> None:
    """Every trial of the last sweep succeeded, once; what is kept is the accepted attempt's."""
    with sqlite3.connect(world.root / ".sweepfw/ledger.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [(sweep, name, state)] = db.execute("SELECT id, name, state FROM sweep").fetchall()
        ends = db.execute("SELECT state, count(*) FROM trial WHERE sweep = ? GROUP BY state", (sweep,))
        assert (state, ends.fetchall()) == ("done", [("succeeded", trials)])
        rows = db.execute("SELECT trial, number, state, accepted FROM attempt WHERE sweep = ?", (sweep,))
        attempts = rows.fetchall()
    assert Counter(trial for trial, _, _, accepted in attempts if accepted) == Counter(range(1, trials + 1))
    assert {state for *_, state, accepted in attempts if accepted} == {"succeeded"}
    assert not any(state == "running" for *_, state, _ in attempts)
    told = Counter(world.witness.read_text().split("\n"))
    assert not any("inherited" in line for line in told)
    for trial, number, *_ in (row for row in attempts if row[3]):
        folder = world.root / "runs" / name / f"trials/{trial}/{number}"
        assert (folder / "output.log").read_text() == f"attempt {number} of {trial}\n"
        assert (folder / "files/attempt").read_text() == f"{number}\n"
        assert json.loads((folder / "outcome.json").read_text())["exit_code"] == 0
        assert told[f"end {trial} {number}"] >= 1
    for trial in range(1, trials + 1):  # what has an end that was written is never run again
        folders = (world.root / "runs" / name / f"trials/{trial}").glob("*/outcome.json")
        outcomes = {int(path.parent.name): json.loads(path.read_text()) for path in folders}
        succeeded = [number for number, each in outcomes.items() if each["exit_code"] == 0]
        assert len(succeeded) == 1, outcomes
        assert succeeded[0] == max(number for row, number, *_ in attempts if row == trial)


def _rubbish(root: Path) -> list[str]:
    """Drafts that nobody finished, and what is only waiting to be deleted."""
    found = [*root.rglob("*.part"), *root.rglob("*.tmp"), *root.rglob("tmp-*"), *root.rglob(".removed-*")]
    return [str(path.relative_to(root)) for path in found]
