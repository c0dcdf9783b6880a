"""Orders from another terminal while a run lives, exit codes, ends and their reasons: the real command."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOON = 1.0  # seconds within which an order works, on a machine that has nothing else to do

# A trial tells that it began, and goes on when its number is called; then it ends as it is told there.
GATED = """
echo "$SWEEPFW_TRIAL" >> "$ROOM/begun"
for i in $(seq 10000); do test -e "$ROOM/go-$SWEEPFW_TRIAL" && break; sleep 0.02; done
exit "$(cat "$ROOM/go-$SWEEPFW_TRIAL")"
"""


class Room:
    """Where trials of a project tell that they began, and are told to end."""

    def __init__(self, folder: Path, sweepfw: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.folder, self.sweepfw = folder, sweepfw
        folder.mkdir()

    def begun(self) -> list[int]:
        """Numbers of trials, in the order in which their attempts began."""
        file = self.folder / "begun"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def end(self, *trials: int, code: int = 0) -> None:
        for trial in trials:
            part = self.folder / "part"
            part.write_text(str(code))
            part.rename(self.folder / f"go-{trial}")

    def order(self, *arguments: str, code: int = 0) -> str:
        """Give an order; what it said."""
        done = self.sweepfw(*arguments)
        assert (done.returncode, done.stderr) == (code, ""), done
        return done.stdout

    def states(self, sweep: str = "gated-1") -> dict[int, str]:
        return {trial["trial"]: trial["state"] for trial in self.shown(sweep)["trials"]}

    def shown(self, sweep: str = "gated-1") -> Any:
        return json.loads(self.order("show", sweep, "--json"))


@pytest.fixture
def room(tmp_path: Path, make_project: Callable[..., Path], sweepfw: Callable[..., Any]) -> Room:
    """The project `gated` with trials 1 to 6."""
    found = Room(tmp_path / "room", sweepfw)
    make_project(
        "gated",
        f"command: [sh, gated.sh]\nvariables: {{ROOM: '{found.folder}'}}\ngrace: 5\n",
        "i: [1, 2, 3, 4, 5, 6]\n",
        {"gated.sh": GATED},
    )
    return found


@pytest.fixture
def timed(wait_until: Callable[..., None], record_property: Callable[..., None]) -> Callable[..., None]:
    """timed(predicate, "what"): poll until true, and tell how long it took."""

    def wait(predicate: Callable[[], object], what: str) -> None:
        start = time.monotonic()
        wait_until(predicate, what=what)
        seconds = time.monotonic() - start
        record_property(what, f"{seconds:.2f} s")
        print(f"{what}: {seconds:.2f} s" + (" (late)" if seconds > SOON else ""))

    return wait


Start = Callable[..., "subprocess.Popen[str]"]
Wait = Callable[..., None]


def test_pause_and_resume(room: Room, start_sweepfw: Start, wait_until: Wait, timed: Wait) -> None:
    run = start_sweepfw("run", "gated", "-j", "2")
    wait_until(lambda: len(room.begun()) == 2)
    assert "paused" in room.order("pause", "gated-1")
    room.end(1)
    wait_until(lambda: room.states()[1] == "succeeded")
    time.sleep(0.5)
    assert sorted(room.begun()) == [1, 2] and run.poll() is None, "running trials end, no new ones start"
    # Resumed while its last trial still runs: the same run goes on.
    assert "goes on" in room.order("resume", "gated-1")
    timed(lambda: len(room.begun()) == 3, "resume")
    room.order("pause", "gated-1")
    room.end(2, 3)
    timed(lambda: run.poll() is not None, "pause: the run ends with the last running trial")
    out, errors = run.communicate()
    assert (run.returncode, errors) == (3, "") and "sweepfw resume gated-1" in out
    assert room.shown()["state"] == "paused"
    room.end(4, 5, 6)
    room.order("resume", "gated-1", "-j", "2")
    assert set(room.states().values()) == {"succeeded"} and len(room.begun()) == 6
    assert "nothing left to run" in room.order("resume", "gated-1")


def test_stop_a_sweep(room: Room, start_sweepfw: Start, wait_until: Wait, timed: Wait) -> None:
    run = start_sweepfw("run", "gated", "-j", "2")
    wait_until(lambda: len(room.begun()) == 2)
    room.end(1)
    wait_until(lambda: len(room.begun()) == 3)
    assert room.order("stop", "gated-1") == "gated-1: 5 trials cancelled\n"
    timed(lambda: run.poll() is not None, "stop")
    assert (run.returncode, run.communicate()[1]) == (3, "")
    assert list(room.states().values()) == ["succeeded"] + ["cancelled"] * 5
    assert "nothing left to stop" in room.order("stop", "gated-1")
    room.end(2, 3, 4, 5, 6)
    assert "nothing left to run" in room.order("resume", "gated-1")
    room.order("resume", "gated-1", "--cancelled")
    assert set(room.states().values()) == {"succeeded"}
    assert room.begun().count(1) == 1, "a success is never run again"


def test_stop_one_trial(room: Room, start_sweepfw: Start, wait_until: Wait, timed: Wait) -> None:
    run = start_sweepfw("run", "gated", "-j", "2")
    wait_until(lambda: len(room.begun()) == 2)
    room.order("stop", "gated-1/1")
    timed(lambda: 3 in room.begun(), "stop of a trial: the next one begins")
    room.order("stop", "gated-1/5")
    room.end(2, 3, 4, 6)
    assert run.wait(60) == 3, run.communicate()
    assert [n for n, state in room.states().items() if state == "cancelled"] == [1, 5]
    assert 5 not in room.begun()


def test_stop_all(room: Room, start_sweepfw: Start, wait_until: Wait, timed: Wait) -> None:
    runs = [start_sweepfw("run", "gated", "-j", "1") for _ in range(2)]
    wait_until(lambda: len(room.begun()) == 2)
    room.order("stop", "--all", "--now")
    timed(lambda: all(run.poll() is not None for run in runs), "stop --all")
    assert [run.returncode for run in runs] == [3, 3]
    assert set(room.states().values()) | set(room.states("gated-2").values()) == {"cancelled"}
    assert "nothing runs" in room.order("stop", "--all")


def test_retry_and_extend_a_live_run(room: Room, start_sweepfw: Start, wait_until: Wait, timed: Wait) -> None:
    run = start_sweepfw("run", "gated", "-j", "2", "--only", "1,2")
    wait_until(lambda: len(room.begun()) == 2)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    run = start_sweepfw("resume", "gated-1", "-j", "2")
    wait_until(lambda: len(room.begun()) == 4)
    room.end(1, code=7)
    wait_until(lambda: room.states()[1] == "failed")
    (room.folder / "go-1").unlink()
    wait_until(lambda: 3 in room.begun())
    room.order("retry", "gated-1", "1")
    room.end(3, 4, 5, 6)
    timed(lambda: room.begun().count(1) == 3, "retry")
    room.order("stop", "gated-1/1")
    wait_until(lambda: room.states()[1] == "cancelled")  # only trial 2 runs
    assert "2 combinations added" in room.order("extend", "gated-1", "--set", "i=1,7,8")
    timed(lambda: 7 in room.begun(), "extend")
    room.end(2, 7, 8)
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (3, ""), out
    assert room.states() == {1: "cancelled"} | dict.fromkeys(range(2, 9), "succeeded")


def test_detach_and_attach(room: Room, start_sweepfw: Start, wait_until: Wait, tmp_path: Path) -> None:
    assert "sweepfw attach gated-1" in room.order("run", "gated", "--detach", "-j", "2")
    wait_until(lambda: len(room.begun()) == 2)
    with (tmp_path / "follow").open("w") as shown:
        follow = start_sweepfw("attach", "gated-1", stdout=shown)
    with (tmp_path / "left").open("w") as shown:
        left = start_sweepfw("attach", "gated-1", "--json", stdout=shown)
    for name in ("follow", "left"):
        wait_until(lambda name=name: "following gated-1" in (tmp_path / name).read_text())
    room.end(1)
    left.send_signal(signal.SIGINT)
    assert left.wait(60) == 130 and "it goes on" in left.communicate()[1]
    room.end(2, 3, 4, 6)
    room.end(5, code=1)
    _, errors = follow.communicate(timeout=60)
    out = (tmp_path / "follow").read_text()
    assert (follow.returncode, errors) == (1, ""), out
    assert "gated-1/5 failed: exit 1" in out and out.count("succeeded after") >= 4
    assert room.states()[5] == "failed"
    detached = json.loads(room.order("run", "gated", "--json", "-d", "--name", "other"))
    assert detached == {"event": "detached", "sweep": "other"}
    assert room.sweepfw("attach", "other", "-q").returncode == 1


def test_two_runs_at_once(room: Room, start_sweepfw: Start, wait_until: Wait) -> None:
    runs = [start_sweepfw("run", "gated", "-j", "1", "-q") for _ in range(3)]
    room.end(1, 2, 3, 4, 5, 6)
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert sorted(room.begun()) == sorted([1, 2, 3, 4, 5, 6] * 3)
    assert {s["sweep"] for s in json.loads(room.order("ls", "--json"))} == {"gated-1", "gated-2", "gated-3"}


def test_a_sweep_that_is_held(room: Room, workspace_folder: Path) -> None:
    """Its holder does not let go: 75 after some seconds."""
    room.end(1)
    room.order("run", "gated", "--only", "1")
    [path] = (workspace_folder / ".sweepfw/locks").glob("*.lock")
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = room.sweepfw("resume", "gated-1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (75, "", 1), done


def test_the_project_changes_and_goes(
    room: Room, start_sweepfw: Start, wait_until: Wait, workspace_folder: Path
) -> None:
    """Trials run what was frozen, whatever becomes of the project; `--current-code` is what changes it."""
    run = start_sweepfw("run", "gated", "-j", "1")
    wait_until(lambda: room.begun() == [1])
    project = workspace_folder / "projects/gated"
    (project / "gated.sh").write_text("exit 99\n")
    (project / "project.yml").write_text("command: [sh, nothing.sh]\n")
    room.end(1)
    wait_until(lambda: room.begun() == [1, 2])
    shutil.copytree(project, project.with_name("kept"))
    shutil.rmtree(project)
    room.end(3, 4, 5, 6)
    room.end(2, code=1)
    assert run.wait(60) == 1, run.communicate()
    assert [n for n, state in room.states().items() if state != "succeeded"] == [2]
    done = room.sweepfw("retry", "gated-1", "--current-code")
    assert done.returncode == 2 and "is not there any more" in done.stderr, done
    project.with_name("kept").rename(project)
    (project / "gated.sh").write_text("exit 0\n")
    room.order("retry", "gated-1", "--current-code")
    assert set(room.states().values()) == {"succeeded"}
    assert "mixed" in room.order("show", "gated-1")


def test_only(room: Room) -> None:
    room.end(1, 2, 3, 4, 5, 6)
    room.order("run", "gated", "--only", "2,4-5")
    assert [n for n, state in room.states().items() if state == "succeeded"] == [2, 4, 5]
    assert [n for n, state in room.states().items() if state == "queued"] == [1, 3, 6]
    room.order("resume", "gated-1", "--only", "1")
    assert sorted(room.begun()) == [1, 2, 4, 5]


REASONS = {
    "exit 3": ("exit 3", ""),
    "signal 9": ("kill -9 $$", ""),
    "signal 11": ("kill -SEGV $$", ""),
    "timeout": ("exec sleep 600", "timeout: 0.3\n"),
    "gpu out of memory": (
        "echo torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB; exit 1",
        "",
    ),
    "output too large": ("head -c 200000 /dev/zero > $SWEEPFW_OUTPUT/big", "output_limit: 100kB\n"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(
    reason: str, make_project: Callable[..., Path], sweepfw: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    script, keys = REASONS[reason]
    make_project("ends", f"command: [sh, end.sh]\n{keys}", files={"end.sh": f"{script}\n"})
    done = sweepfw("run", "ends")
    assert (done.returncode, done.stderr) == (1, "") and f"ends-1/1 failed: {reason}" in done.stdout, done
    [trial] = json.loads(sweepfw("show", "ends-1", "--json").stdout)["trials"]
    assert (trial["state"], trial["attempts"][0]["reason"]) == ("failed", reason)
    assert reason in sweepfw("show", "ends-1").stdout


def test_a_command_that_vanishes(
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Refused before a run; a reason to fail where it was there and goes."""
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\nrm {tool}\n")
    tool.chmod(0o755)
    make_project("gone", f"command: [{tool}]\n", "i: [1, 2]\n")
    done = sweepfw("run", "gone", "-j", "1")
    assert done.returncode == 1 and "gone-1/2 failed: no such command" in done.stdout, done
    done = sweepfw("run", "gone")
    assert done.returncode == 2 and "there is no program" in done.stderr, done


def test_setup_failed(
    make_project: Callable[..., Path], sweepfw: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The sweep is paused, once, with the builder's words; no trial has failed."""
    make_project(
        "env",
        "command: [python, -c, 'print(1)']\nenvironment: {requirements: requirements.txt}\n",
        "i: [1, 2, 3]\n",
        {"requirements.txt": "/no/such/package.whl\n"},
    )
    environment = {**os.environ, "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    done = sweepfw("run", "env", env=environment)
    assert done.returncode == 3, done
    assert "/no/such/package" in done.stderr + done.stdout, done
    shown = json.loads(sweepfw("show", "env-1", "--json").stdout)
    assert shown["state"] == "paused" and shown["counts"] == {"queued": 3}, shown
    assert "setup failed" in sweepfw("show", "env-1").stdout


@pytest.mark.parametrize(
    ("keys", "options", "code", "counts", "says"),
    [
        ("", [], 3, {"failed": 5, "queued": 15}, "the first 5 trials failed"),
        ("max_failures: 2\n", [], 3, {"failed": 2, "queued": 18}, "the first 2 trials failed"),
        ("max_failures: 0\n", [], 1, {"failed": 20}, "20 failed"),
        ("", ["--fail-fast"], 3, {"failed": 1, "queued": 19}, "--fail-fast"),
    ],
)
def test_giving_up(
    keys: str,
    options: list[str],
    code: int,
    counts: dict[str, int],
    says: str,
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    make_project("bad", f"command: 'false'\n{keys}", "i: !!python/tuple [0, 20]\n")
    done = sweepfw("run", "bad", "-j", "1", *options)
    assert (done.returncode, done.stderr) == (code, ""), done
    assert says in done.stdout
    assert json.loads(sweepfw("show", "bad-1", "--json").stdout)["counts"] == counts


@pytest.mark.parametrize(
    ("retries", "attempts"),
    [("2", 3), ("{exit 3: 1}", 2), ("{exit: 2}", 3), ("{timeout: 4}", 1), ("{any: 1, exit 3: 3}", 4)],
)
def test_retries_by_reason(
    retries: str,
    attempts: int,
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    make_project("again", f"command: [sh, -c, 'exit 3']\nretries: {retries}\n")
    done = sweepfw("run", "again")
    assert (done.returncode, done.stderr) == (1, ""), done
    [trial] = json.loads(sweepfw("show", "again-1", "--json").stdout)["trials"]
    assert [attempt["reason"] for attempt in trial["attempts"]] == ["exit 3"] * attempts


def test_a_retry_that_succeeds(
    make_project: Callable[..., Path], sweepfw: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """What the first attempt left in its checkpoint, the second finds; one success is accepted."""
    script = 'test -e "$SWEEPFW_CHECKPOINT/mark" && exit 0\ntouch "$SWEEPFW_CHECKPOINT/mark"\nexit 1\n'
    make_project("again", "command: [sh, a.sh]\nretries: 1\n", files={"a.sh": script})
    done = sweepfw("run", "again")
    assert (done.returncode, done.stderr) == (0, ""), done
    [trial] = json.loads(sweepfw("show", "again-1", "--json").stdout)["trials"]
    assert [attempt["state"] for attempt in trial["attempts"]] == ["failed", "succeeded"]
    refused = sweepfw("retry", "again-1", "1")
    assert refused.returncode == 2 and "succeeded" in refused.stderr
