"""A run on this machine against all that may happen to it, through the real command."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from fcntl import LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Any

import pytest

from sweepfw.config.secrets import store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Wait = Callable[..., None]

MARK = f"{random.randrange(10**9):09}"
SLEEP = f"sleep 600.{MARK}"
UNTIL_END = 'until [ -e "$WITNESS.end" ] || [ $SECONDS -gt 250 ]; do sleep 0.05; done'


@pytest.fixture
def project(make_project: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """project("script in bash", trials=3, settings=""): it runs in bash, where $i counts from 1; a file to
    write witness in."""

    def make(script: str, trials: int = 3, settings: str = "") -> Path:
        witness = tmp_path / "witness"
        text = f"command: [bash, trial.sh]\nflags: bare\nvariables: {{WITNESS: '{witness}'}}\n{settings}\n"
        body = f'export "$1"\necho "start $i" >> "$WITNESS"\n{script}\n'
        make_project("p", text, f"i: !!python/tuple [1, {trials + 1}]\n", {"trial.sh": body})
        witness.touch()
        return witness

    return make


@pytest.fixture
def show(sweepfw: Run) -> Callable[[], dict[str, Any]]:
    def shown() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(sweepfw("show", "p-1", "--json").stdout)
        return told

    return shown


def marked() -> list[int]:
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += [pid] * (b"sleep" in line[0] and f"600.{MARK}".encode() in line)
    return found


def keepers(run: subprocess.Popen[str]) -> list[int]:
    """The processes of that name below the command line."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True).stdout
    rows = [row.split(maxsplit=2) for row in told.splitlines()[1:]]
    guards = [pid for pid, parent, _ in rows if parent == str(run.pid)]
    return [int(pid) for pid, parent, name in rows if parent in guards and name.startswith("sweepfw-keep")]


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def lock(folder: Path, kind: str) -> bool:
    """Whether anybody holds a lock of this kind on a sweep of the workspace."""
    for path in (folder / ".sweepfw/locks").glob(f"*.{kind}"):
        with path.open() as file:
            try:
                flock(file, LOCK_SH | LOCK_NB)
            except BlockingIOError:
                return True
    return False


# -- runs that were killed -----------------------------------------------------------------------------


def test_stop_settles_a_sweep_whose_run_was_killed(
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    show: Any,
    wait_until: Wait,
    workspace_folder: Path,
) -> None:
    witness = project(SLEEP, settings="grace: 0")
    run = start_sweepfw("run", "p", "-j", "2")
    wait_until(lambda: witness.read_text().count("start") == 2)
    run.kill()
    wait_until(lambda: not lock(workspace_folder, "lock"))  # `stop` itself waits 5 s for that
    assert sweepfw("stop", "p-1").returncode == 0
    assert marked() == []
    told = show()
    assert (told["state"], told["counts"]) == ("stopped", {"cancelled": 3})
    assert [a["state"] for t in told["trials"] for a in t["attempts"]] == ["interrupted"] * 2


def test_stop_of_one_trial_settles_the_others(
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    show: Any,
    wait_until: Wait,
    workspace_folder: Path,
) -> None:
    witness = project(f'[ -e "$WITNESS.again" ] || {SLEEP}')
    run = start_sweepfw("run", "p", "-j", "2")
    wait_until(lambda: witness.read_text().count("start") == 2)
    run.kill()
    wait_until(lambda: not lock(workspace_folder, "lock"))
    assert sweepfw("stop", "p-1/1").returncode == 0
    told = show()
    assert (told["state"], told["counts"]) == ("queued", {"queued": 2, "cancelled": 1})
    Path(f"{witness}.again").touch()
    assert sweepfw("resume", "p-1").returncode == 3
    assert show()["counts"] == {"succeeded": 2, "cancelled": 1}


def test_resume_closes_what_was_killed_at_its_very_end(
    project: Callable[..., Path], sweepfw: Run, show: Any, workspace_folder: Path
) -> None:
    project("true")
    assert sweepfw("run", "p").returncode == 0
    with sqlite3.connect(workspace_folder / ".sweepfw/ledger.db") as db:
        db.execute("UPDATE sweep SET state = 'running', ended = NULL")
    assert sweepfw("resume", "p-1").returncode == 0
    assert show()["state"] == "done"


# -- keepers that die ----------------------------------------------------------------------------------


def test_poison_harms_nobody_else(project: Callable[..., Path], sweepfw: Run, show: Any) -> None:
    """A trial that kills its keeper is tried three times, then alone, then it has failed."""
    project('[ "$i" = 2 ] && kill -9 $PPID; sleep 0.05; echo "end $i" >> "$WITNESS"', 8, "max_failures: 1")
    assert sweepfw("run", "p", "-j", "3").returncode == 1
    told = show()
    assert told["counts"] == {"succeeded": 7, "failed": 1}
    poison = told["trials"].pop(1)
    assert poison["reason"] == "host lost"
    assert [a["state"] for a in poison["attempts"]] == ["lost", "lost", "lost", "failed"]
    assert all(len(trial["attempts"]) == 1 for trial in told["trials"])


def test_a_suspect_runs_alone(project: Callable[..., Path], sweepfw: Run, show: Any) -> None:
    script = """
    n=$(grep -c "^start $i$" "$WITNESS")
    [ "$i" = 1 ] && [ $n -lt 4 ] && kill -9 $PPID
    mkdir "$WITNESS.in.$i"
    sleep 0.1
    [ "$i" = 1 ] && echo "beside $(ls -d "$WITNESS".in.* | wc -l)" >> "$WITNESS"
    rmdir "$WITNESS.in.$i"
    """
    witness = project(script, 8)
    assert sweepfw("run", "p", "-j", "3").returncode == 0
    assert [len(trial["attempts"]) for trial in show()["trials"]] == [4, 1, 1, 1, 1, 1, 1, 1]
    assert "beside 1\n" in witness.read_text()


def test_a_keeper_killed_while_idle_costs_no_attempt(
    project: Callable[..., Path], start_sweepfw: Start, sweepfw: Run, show: Any, wait_until: Wait
) -> None:
    witness = project(f'[ "$i" = 1 ] && {UNTIL_END}; true', 2)
    run = start_sweepfw("run", "p", "-j", "2")
    wait_until(lambda: witness.read_text().count("start") == 2)
    wait_until(lambda: show()["counts"].get("succeeded") == 1)
    wait_until(lambda: [bool(children(pid)) for pid in keepers(run)].count(False) == 1)
    [idle] = [pid for pid in keepers(run) if not children(pid)]
    os.kill(idle, signal.SIGKILL)
    assert sweepfw("extend", "p-1", "--set", "i=3,4").returncode == 0
    wait_until(lambda: show()["counts"].get("succeeded") == 3)
    Path(f"{witness}.end").touch()
    assert run.wait(timeout=60) == 0
    assert [len(trial["attempts"]) for trial in show()["trials"]] == [1] * 4


# -- orders at awkward moments -------------------------------------------------------------------------


def test_a_pause_is_taken_back_while_the_last_trials_run(
    project: Callable[..., Path], start_sweepfw: Start, sweepfw: Run, show: Any, wait_until: Wait
) -> None:
    witness = project(f'[ "$i" = 1 ] && {UNTIL_END}; true')
    run = start_sweepfw("run", "p", "-j", "1")
    wait_until(lambda: "start 1" in witness.read_text())
    assert sweepfw("pause", "p-1").returncode == 0
    assert "runs already" in sweepfw("resume", "p-1").stdout
    Path(f"{witness}.end").touch()
    assert run.wait(timeout=60) == 0
    assert show()["state"] == "done"


def test_a_pause_before_the_last_end_leaves_nothing_to_resume(
    project: Callable[..., Path], start_sweepfw: Start, sweepfw: Run, show: Any, wait_until: Wait
) -> None:
    witness = project(UNTIL_END, 1)
    run = start_sweepfw("run", "p")
    wait_until(witness.read_text)
    assert sweepfw("pause", "p-1").returncode == 0
    Path(f"{witness}.end").touch()
    assert run.wait(timeout=60) == 0
    assert show()["state"] == "done"


@pytest.mark.parametrize("how", ["interrupted", "only"])
def test_nothing_is_handed_to_a_run_that_takes_nothing(
    how: str,
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    show: Any,
    wait_until: Wait,
    workspace_folder: Path,
) -> None:
    """One that waits for the grace of its last trials, and one that was given --only."""
    witness = project(f'trap "" TERM; echo deaf >> "$WITNESS"; {UNTIL_END}', settings="grace: 250")
    run = start_sweepfw("run", "p", "-j", "1", *(["--only", "1"] if how == "only" else []))
    wait_until(lambda: "deaf" in witness.read_text())
    if how == "interrupted":
        run.send_signal(signal.SIGTERM)
        wait_until(lambda: not lock(workspace_folder, "live"))
    told = sweepfw("extend", "p-1", "--set", "i=7")
    assert (told.returncode, told.stderr.count("\n")) == (75, 1)
    assert "sweepfw resume p-1" in told.stderr
    Path(f"{witness}.end").touch()
    assert run.wait(timeout=60) == (130 if how == "interrupted" else 0)
    assert sweepfw("resume", "p-1").returncode == 0
    assert show()["counts"] == {"succeeded": 4}


def test_fail_fast(project: Callable[..., Path], sweepfw: Run, show: Any) -> None:
    project(f'[ "$i" = 2 ] && exit 3; {SLEEP}', 4, "grace: 0")
    told = sweepfw("run", "p", "-j", "2", "--fail-fast")
    assert told.returncode == 3
    assert "--fail-fast" in told.stdout
    assert marked() == []
    assert (show()["state"], show()["counts"]) == ("paused", {"queued": 3, "failed": 1})


def test_fail_fast_at_the_last_trial_leaves_nothing_to_resume(
    project: Callable[..., Path], sweepfw: Run, show: Any
) -> None:
    project("exit 3", 1)
    assert sweepfw("run", "p", "--fail-fast").returncode == 1
    assert show()["state"] == "done"


# -- signals -------------------------------------------------------------------------------------------

UV = f"""#!/bin/sh
touch "{{began}}"
exec {SLEEP}
"""


def test_an_interrupt_while_the_environment_is_built(
    make_project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    tmp_path: Path,
    wait_until: Wait,
) -> None:
    make_project("p", "command: [python, -V]\nenvironment: {requirements: r.txt}\n", "", {"r.txt": "x\n"})
    tool, began = tmp_path / "bin/uv", tmp_path / "began"
    tool.parent.mkdir()
    tool.write_text(UV.format(began=began))
    tool.chmod(0o755)
    path = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    run = start_sweepfw("run", "p", env=path, bufsize=0)
    assert run.stdout is not None
    assert "building the environment" in run.stdout.readline()  # told while it is built, not after
    wait_until(began.exists)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (130, "")
    assert "to go on: sweepfw resume p-1" in out
    assert marked() == []
    told = json.loads(sweepfw("show", "p-1", "--json").stdout)
    assert (told["state"], told["counts"]) == ("queued", {"queued": 1})


def test_a_reader_that_does_not_read_holds_nobody_up(
    project: Callable[..., Path], start_sweepfw: Start, show: Any, wait_until: Wait
) -> None:
    """A pager that is not scrolled, or a terminal after Ctrl-S: the run goes on, and nothing is left out."""
    witness = project("for n in {1..100}; do echo $n {1..400}; done", 6)
    run = start_sweepfw("run", "p", "-j", "2", "--logs", "all")
    wait_until(witness.read_text)
    wait_until(lambda: show()["counts"] == {"succeeded": 6})
    assert run.poll() is None
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert out.count(" 399 400\n") == 600


def test_two_interrupts_end_a_run_that_nobody_reads(
    project: Callable[..., Path], start_sweepfw: Start, show: Any, wait_until: Wait, workspace_folder: Path
) -> None:
    project(f"trap '' TERM; for n in {{1..300}}; do echo $n {{1..400}}; done; {SLEEP}", 2, "grace: 300")
    run = start_sweepfw("run", "p", "-j", "2", "--logs", "all")
    wait_until(lambda: len(marked()) == 2)
    run.send_signal(signal.SIGINT)
    wait_until(lambda: not lock(workspace_folder, "live"))  # it has heard the first: two at once may be one
    run.send_signal(signal.SIGINT)
    wait_until(lambda: not marked())
    wait_until(lambda: show()["state"] == "queued")
    run.communicate(timeout=60)
    assert run.returncode == 130


def test_debug_leaves_interrupts_to_the_command(
    project: Callable[..., Path], sweepfw: Run, start_sweepfw: Start, wait_until: Wait
) -> None:
    witness = project(
        "trap 'exit 7' INT; echo ready >> \"$WITNESS\"\n"
        '[ -e "$WITNESS.debug" ] && while [ $SECONDS -lt 250 ]; do sleep 0.05; done',
        1,
    )
    assert sweepfw("run", "p").returncode == 1
    Path(f"{witness}.debug").touch()
    run = start_sweepfw("debug", "p-1/1", start_new_session=True)
    wait_until(lambda: witness.read_text().count("ready") == 2)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=60) == 7


# -- beside the run ------------------------------------------------------------------------------------


def test_detach_minds_no_modules_of_the_users(
    project: Callable[..., Path], sweepfw: Run, show: Any, workspace_folder: Path, wait_until: Wait
) -> None:
    project("true")
    for name in ("click", "random", "json", "sweepfw"):
        (workspace_folder / f"{name}.py").write_text("raise SystemExit('mine')\n")
    told = sweepfw("run", "p", "--detach", cwd=workspace_folder / "projects", env=importable())
    assert told.returncode == 0, told.stderr
    for name in ("click", "random", "json", "sweepfw"):
        (workspace_folder / f"{name}.py").unlink()
    wait_until(lambda: show()["state"] == "done")


def importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_provenance_that_can_not_be_written_is_one_warning(
    project: Callable[..., Path], sweepfw: Run, workspace_folder: Path
) -> None:
    project("true")
    assert sweepfw("run", "p", "--only", "1").returncode == 0
    folder = workspace_folder / "runs/p-1"
    (folder / "provenance.json").unlink()
    (folder / "sweep.yml").unlink()
    (folder / "sweep.yml").mkdir()
    told = sweepfw("resume", "p-1")
    assert (told.returncode, told.stderr) == (0, "")
    assert "warning: it is not recorded where p-1 came from" in told.stdout


def test_metrics_that_can_not_be_kept_are_no_success(
    project: Callable[..., Path], sweepfw: Run, show: Any
) -> None:
    """What a trial printed is read beside it; where that can't be written down, it did not succeed."""
    script = (
        'ln -s /dev/full "$(dirname "$SWEEPFW_METRICS")/parsed.jsonl"; echo loss: 0.5; printf "loss: 0.2"'
    )
    project(script, 2, "metrics: [loss]\nretries: 0")
    told = sweepfw("run", "p")
    assert (told.returncode, told.stderr) == (1, "")
    assert [trial["reason"] for trial in show()["trials"]] == ["output not kept"] * 2


def test_what_a_lost_attempt_reported_is_masked(
    project: Callable[..., Path], sweepfw: Run, show: Any, workspace_folder: Path
) -> None:
    store("KEY", b"key-of-the-test")
    script = 'echo "{\\"$KEY\\": 1}" >> "$SWEEPFW_METRICS"; [ "$SWEEPFW_ATTEMPT" = 2 ] || kill -9 $PPID'
    project(script, 1, "secrets: {KEY: env}")
    assert sweepfw("run", "p").returncode == 0
    [trial] = show()["trials"]
    assert [attempt["state"] for attempt in trial["attempts"]] == ["lost", "succeeded"]
    for attempt in (1, 2):
        told = (workspace_folder / f"runs/p-1/trials/1/{attempt}/metrics.jsonl").read_text()
        assert told == '{"***************": 1}\n', attempt
