"""ls, show, best, rm, gc: what people and programs read, on a real ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from workspaces import SPEC, Made, call, digits, make

from sweepfw import snapshot
from sweepfw.cli.main import cli
from sweepfw.core.model import Spec
from sweepfw.engine.lock import SweepLock
from sweepfw.errors import BusyError, SweepError


@pytest.fixture
def made(workspace_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.chdir(workspace_folder)
    made = make(workspace_folder)
    yield made
    made.ledger.disconnect()


# -- ls ------------------------------------------------------------------------------------------------


def test_ls_where_nothing_ran_says_what_to_do(
    workspace_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace_folder)
    assert "sweepfw run PROJECT" in call("ls").stdout
    assert json.loads(call("ls", "--json").stdout) == []
    assert list((workspace_folder / ".sweepfw").iterdir()) == []  # looking makes nothing


def test_ls(made: Made) -> None:
    digits(made)
    made.sweep([{"x": 1}], Spec("echo", "echo", ("echo",)), name="mine")
    head, first, second = call("ls").stdout.splitlines()
    assert head.split() == ["SWEEP", "STATE", "DONE", "FAILED", "BEST", "AGE", "TASK", "NOTE"]
    assert first.startswith("digits-1  done    3/3        1  acc 0.875 (2)")
    assert "digits/train" in first and first.endswith("first try")
    assert second.split()[:5] == ["mine", "queued", "0/1", "-", "-"]
    found = json.loads(call("ls", "--json").stdout)
    assert [(each["sweep"], each["state"]) for each in found] == [("digits-1", "done"), ("mine", "queued")]
    assert found[0]["counts"] == {"succeeded": 2, "failed": 1}
    assert (found[0]["best"]["trials"], found[0]["best"]["value"]) == ([2], 0.875)
    assert (found[0]["task"], found[0]["note"], found[1]["best"]) == ("train", "first try", None)


def test_a_sweep_that_died_is_shown_as_interrupted(made: Made) -> None:
    sweep = made.sweep([{"x": 1}])
    made.ledger.open(sweep.uid)
    assert "interrupted" in call("ls").stdout
    assert json.loads(call("ls", "--json").stdout)[0]["state"] == "running"
    lock = SweepLock.acquire(made.place, sweep.uid)
    try:
        assert "interrupted" not in call("ls").stdout
    finally:
        lock.release()


# -- show ----------------------------------------------------------------------------------------------


def test_show_a_sweep(made: Made) -> None:
    digits(made)
    shown = call("show", "digits-1").stdout
    assert shown.startswith("digits-1  done\n")
    assert "2 succeeded, 1 failed" in shown and "first try" in shown
    assert "exit 3       1        3" in shown  # reason, how many, which
    assert "acc, highest first (the best report of each trial)" in shown
    assert "the same in all: lr=0.1 epochs=5" in shown
    assert "sweepfw retry digits-1" in shown and "sweepfw show digits-1/2" in shown


def test_show_json_of_a_sweep(made: Made) -> None:
    digits(made)
    found = json.loads(call("show", "digits-1", "--json").stdout)
    assert (found["sweep"], found["state"], found["counts"]) == (
        "digits-1",
        "done",
        {"succeeded": 2, "failed": 1},
    )
    assert [trial["trial"] for trial in found["trials"]] == [1, 2, 3]
    second, third = found["trials"][1:]
    assert second["params"] == {"lr": 0.1, "opt": "adam", "epochs": 5}
    assert second["metrics"] == {"acc": 0.875, "loss": 0.25}  # at best; what is no objective: the last
    assert (second["state"], second["repeat"]) == ("succeeded", 1)
    (attempt,) = third["attempts"]
    assert set(attempt) == {
        "attempt",
        "state",
        "accepted",
        "reason",
        "exit_code",
        "host",
        "slot",
        "snapshot",
        "gpus",
        "started",
        "ended",
    }
    assert (attempt["attempt"], attempt["state"], attempt["reason"]) == (1, "failed", "exit 3")
    assert (attempt["exit_code"], attempt["host"], attempt["slot"]) == (3, "tower", "0")


def test_show_a_trial(made: Made) -> None:
    sweep = digits(made)
    folder = made.place.attempt("digits-1", 3, 1)
    (folder / "files/deep").mkdir(parents=True)
    (folder / "files/deep/model.bin").write_bytes(b"x" * 1500)
    (folder / "work").mkdir()
    shown = call("show", f"{sweep.name}/3").stdout
    assert shown.startswith("digits-1/3  failed: exit 3\n")
    assert "lr=0.1 opt=lion epochs=5" in shown
    assert "python train.py --lr=0.1 --opt=lion --epochs=5" in shown
    assert "files/deep/model.bin  1.5 kB" in shown and "work/ is the working copy" in shown
    assert "sweepfw debug digits-1/3" in shown and "sweepfw retry digits-1 3" in shown
    one = json.loads(call("show", "digits-1/3", "--json").stdout)
    assert (one["sweep"], one["trial"], one["state"]) == ("digits-1", 3, "failed")


def test_what_does_not_exist_is_told_with_the_nearest(made: Made) -> None:
    digits(made)
    with pytest.raises(SweepError, match=r"digits-9.*digits-1"):
        call("show", "digits-9")
    with pytest.raises(SweepError, match="7"):
        call("show", "digits-1/7")
    with pytest.raises(SweepError, match="expected"):
        call("show", "../../etc")


def test_errors_are_one_line_and_exit_2(made: Made, sweepfw: Callable) -> None:
    digits(made)
    for arguments in (["show", "digits-9"], ["logs", "digits-1/9"], ["best", "nope"], ["rm", "-y", "nope"]):
        done = sweepfw(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("sweepfw: ") and done.stderr.count("\n") == 1


# -- best ----------------------------------------------------------------------------------------------


def test_best(made: Made) -> None:
    digits(made)
    lines = call("best", "digits-1").stdout.splitlines()
    assert lines[0] == "acc, highest first (the best report of each trial)"
    assert lines[1].split() == ["TRIAL", "acc", "opt"]
    assert lines[2].split() == ["1", "digits-1/2", "0.875", "adam"]
    assert "… and 1 more" in call("best", "digits-1", "-n", "1").stdout
    found = json.loads(call("best", "digits-1", "--json").stdout)
    assert [(each["trials"], each["value"]) for each in found] == [([2], 0.875), ([1], 0.75)]
    by_loss = json.loads(call("best", "digits-1", "--metric", "loss", "-n", "1", "--json").stdout)
    assert (by_loss[0]["metric"], by_loss[0]["value"], by_loss[0]["trials"]) == ("loss", 0.25, [1])


def test_best_of_several_with_repeats_and_newer_code(made: Made) -> None:
    for sweep in (made.sweep([{"lr": 0.1, "repeat": 1}, {"lr": 0.1, "repeat": 2}]) for _ in range(2)):
        made.attempt(sweep, 1, reports=[{"acc": 0.5}])
        made.attempt(sweep, 2, state="failed", reason="exit 1")
        made.ledger.reopen(sweep.uid, ["failed"], snapshot="s2")
        made.attempt(sweep, 2, reports=[{"acc": 0.75}])
    shown = call("best", "digits-1", "digits-2").stdout
    assert "digits-1/1-2*" in shown and "digits-2/1-2*" in shown
    assert "ran newer code" in shown and "does not lead the second" in shown
    assert shown.splitlines()[1].split() == ["TRIALS", "MEAN", "±", "N", "MIN", "MAX"]
    assert shown.splitlines()[2].split()[2:] == ["0.625", "0.177", "2", "0.5", "0.75"]


def test_best_needs_to_know_what_is_better(made: Made) -> None:
    made.sweep([{"x": 1}], Spec("echo", "echo", ("echo",)))
    digits(made)
    with pytest.raises(SweepError, match=r"echo-1 has no objective.*--metric"):
        call("best", "echo-1")
    with pytest.raises(SweepError, match="echo-1 has no objective"):
        call("best", "digits-1", "echo-1")
    assert "no trial that succeeded reported x" in call("best", "echo-1", "--metric", "x").stdout


# -- rm, gc --------------------------------------------------------------------------------------------


def test_rm_takes_files_and_rows_and_keeps_the_name_used(made: Made) -> None:
    sweep = digits(made)
    assert call("rm", "digits-1").stdout == "digits-1 removed\n"
    assert made.ledger.sweeps() == [] and list(made.place.runs.iterdir()) == []
    assert made.sweep([{"x": 1}]).name == "digits-2"
    with pytest.raises(SweepError, match=sweep.name):
        call("rm", sweep.name)


def test_rm_refuses_what_runs(made: Made) -> None:
    first, second = digits(made), digits(made)
    lock = SweepLock.acquire(made.place, second.uid)
    try:
        with pytest.raises(BusyError, match=r"digits-2 runs; .*--stop"):
            call("rm", first.name, second.name)
        assert len(made.ledger.sweeps()) == 2 and made.place.run(first.name).is_dir()
    finally:
        lock.release()
    call("rm", "--yes", first.name, second.name)
    assert made.ledger.sweeps() == []


def test_gc_takes_working_copies_of_what_ended_and_leaves_the_rest(made: Made) -> None:
    sweep = digits(made)
    other = made.sweep([{"x": 1}])
    made.attempt(other, 1, state=None)
    kept = made.place.attempt(other.name, 1, 1) / "work"
    gone = made.place.attempt(sweep.name, 3, 1) / "work"
    for folder in (kept, gone):
        folder.mkdir()
        (folder / "data").write_bytes(b"x" * 1000)
    rubbish = made.place.runs / ".removed-old-1"
    rubbish.mkdir()
    (rubbish / "left").write_bytes(b"x" * 500)
    told = json.loads(call("gc", "--dry-run", "--json").stdout)
    assert told["freed"]["working copies"] == 1000 and told["bytes"] == 1500 and told["dry_run"]
    assert gone.is_dir() and rubbish.is_dir()
    assert "freed" in call("gc").stdout
    assert kept.is_dir() and not gone.exists() and not rubbish.exists()
    assert (gone.parent / "output.log").exists()
    assert json.loads(call("gc", "--json").stdout)["bytes"] == 0


def test_gc_leaves_a_shared_copy_to_who_works_in_it(made: Made) -> None:
    sweep = made.sweep([{"x": 1}], replace(SPEC, workdir="shared"))
    copy = made.place.state / "work" / "s1"
    copy.mkdir(parents=True)
    (copy / "train.py").write_text("pass")
    copy.chmod(0o555)
    lock = SweepLock.acquire(made.place, sweep.uid)
    call("gc")
    assert copy.is_dir()
    lock.release()
    call("gc")
    assert not copy.exists()


def test_gc_takes_snapshots_that_no_sweep_names(made: Made, tmp_path: Path) -> None:
    ids = []
    for text in ("old", "new"):
        project = tmp_path / text
        project.mkdir()
        (project / "train.py").write_text(text)
        ids.append(snapshot.freeze(project, made.place.snapshots, 10**6).id)
    made.sweep([{"x": 1}], SPEC, snapshot=ids[1])
    for id in ids:
        os.utime(snapshot.manifest(made.place.snapshots, id), (1, 1))
    assert json.loads(call("gc", "--json").stdout)["freed"]["snapshots"] > 0
    assert not snapshot.manifest(made.place.snapshots, ids[0]).exists()
    snapshot.checkout(made.place.snapshots, ids[1], tmp_path / "copy")
    assert (tmp_path / "copy/train.py").read_text() == "new"


# -- completion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["show", "di"], {"digits-1"}),
        (["best", ""], {"digits-1"}),
        (["logs", "dig"], {"digits-1/1", "digits-1/2", "digits-1/3"}),
        (["logs", "digits-1/2"], {"digits-1/2"}),
        (["show", "digits-1/"], {"digits-1/1", "digits-1/2", "digits-1/3"}),
        (["logs", "nothing/"], set()),
        (["rm", "x"], set()),
    ],
)
def test_completion_proposes(made: Made, words: list[str], found: set[str]) -> None:
    digits(made)
    proposed = ShellComplete(cli, {}, "sweepfw", "_SWEEPFW_COMPLETE").get_completions(words[:-1], words[-1])
    assert {each.value for each in proposed} == found


BASH = """
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
$(complete -p sweepfw | sed 's/.*-F \\([^ ]*\\).*/\\1/') sweepfw "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["sh"], ["show"]),
        (["show", "di"], ["digits-1"]),
        (["logs", "digits-1/"], ["digits-1/1", "digits-1/2", "digits-1/3"]),
        (["run", "e"], ["echo"]),
        (["run", "echo", "--task", ""], ["first", "second"]),
        (["plan", "echo", "-t", "s"], ["second"]),
        (["new", "mine", "--from", "d"], ["digits"]),
    ],
)
def test_bash_completes(made: Made, make_project: Callable, typed: list[str], found: list[str]) -> None:
    """In a real bash, as it calls the function that our script defines."""
    digits(made)
    make_project("echo", "tasks: {first: {command: a}, second: {command: b}}")
    script = made.place.root / "script"
    script.write_text(call("completion", "bash").stdout)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", script, "sweepfw", *typed],
        cwd=made.place.root,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.split(), done.stderr) == (found, "")


def test_completion_is_silent_without_a_workspace(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "_SWEEPFW_COMPLETE": "bash_complete",
        "COMP_WORDS": "sweepfw show x",
        "COMP_CWORD": "2",
    }
    # Under `python -m` the program is called so; the script of the installed command says `sweepfw`.
    code = "import sys; sys.argv[0] = 'sweepfw'; from sweepfw.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_SWEEPFW_COMPLETE" in call("completion", shell).stdout
