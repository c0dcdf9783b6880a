"""A full disk: a clear line, no false success, and `resume` finishes once there is room."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
SIZE = 40_000_000  # bytes


@pytest.fixture
def small_disk(workspace_folder: Path) -> Iterator[Path]:
    """A workspace on a disk of its own that is soon full."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", str(workspace_folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let its root mount")
    try:
        (workspace_folder / ".sweepfw").mkdir(mode=0o700)
        yield workspace_folder
    finally:
        subprocess.run(["umount", "--lazy", str(workspace_folder)], check=True)


def fill(root: Path) -> Path:
    """Take all the room that is left; the file to remove to give it back."""
    ballast = root / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for block in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * block):
                    pass
            except OSError:
                continue
    return ballast


def shown(root: Path, sweep: str) -> Any:
    told = subprocess.run(
        [sys.executable, "-m", "sweepfw", "show", sweep, "--json"], cwd=root, capture_output=True, check=True
    )
    return json.loads(told.stdout)


def sound(root: Path) -> bool:
    with sqlite3.connect(root / ".sweepfw/ledger.db") as db:
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))


# Writes until the disk is full, through stdout or into a file, and does not care: it ends with 0. Later, when
# somebody has told it to, it takes less.
GREEDY = """
test -e "$MODEST" && exit 0
case $1 in
--i=1) head -c 100000000 /dev/zero ;;
--i=2) head -c 100000000 /dev/zero > "$SWEEPFW_OUTPUT/big" ;;
--i=3) head -c 100000000 /dev/zero > big ;;
esac 2>&1
rm -f big
exit 0
"""


def test_a_trial_fills_the_disk(
    small_disk: Path,
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """What can't be kept is no success. The trial after it may still find no room: it fails, and says why."""
    make_project(
        "greedy",
        "command: [sh, greedy.sh]\nmax_failures: 0\noutputs: [big]\n"
        f"variables: {{MODEST: {tmp_path}/modest}}\n",
        "i: [1, 2, 3, 4]\n",
        {"greedy.sh": GREEDY},
    )
    done = sweepfw("run", "greedy", "-j", "1")
    assert done.returncode in (1, 3), done
    assert "Traceback" not in done.stderr and "bug" not in done.stderr, done.stderr
    assert "disk full" in done.stdout or "the disk is full" in done.stderr
    for log in small_disk.glob("runs/greedy-1/trials/*/*/output.log"):
        log.unlink()
    for file in small_disk.glob("runs/greedy-1/trials/*/*/files/big"):
        file.unlink()
    trials = {t["trial"]: t for t in shown(small_disk, "greedy-1")["trials"]}
    assert trials[1]["state"] != "succeeded"
    (tmp_path / "modest").touch()
    resumed = sweepfw("resume", "greedy-1")
    assert resumed.returncode in (0, 1) and not resumed.stderr, resumed
    again = sweepfw("retry", "greedy-1")
    assert again.returncode == 0, again
    assert shown(small_disk, "greedy-1")["counts"] == {"succeeded": 4}
    assert sound(small_disk)


def test_the_disk_fills_while_a_sweep_runs(
    small_disk: Path,
    make_project: Callable[..., Path],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Ledger, folders, outcomes: whichever write is the first to fail, the run ends with one line."""
    witness, go = tmp_path / "witness", tmp_path / "go"
    wait = f"test $SWEEPFW_TRIAL -lt 10 || until test -e {go}; do sleep 0.02; done"
    make_project(
        "many",
        f"command: [sh, -c, '{wait}; echo $SWEEPFW_TRIAL >> {witness}']\nmax_failures: 0\n",
        "i: !!python/tuple [0, 200]\n",
    )
    process = start_sweepfw("run", "many", "-j", "2")
    wait_until(lambda: witness.exists() and witness.read_text().count("\n") > 5, what="some trials")
    ballast = fill(small_disk)
    go.touch()
    out, errors = process.communicate(timeout=120)
    assert process.returncode in (1, 3), (process.returncode, out, errors)
    assert "Traceback" not in errors and "bug" not in errors, errors
    if process.returncode == 3:
        assert errors.count("\n") == 1 and "full" in errors and "resume many-1" in out + errors
    ballast.unlink()
    assert sound(small_disk)
    before = shown(small_disk, "many-1")
    ran = {int(line) for line in witness.read_text().split()}
    succeeded = {t["trial"] for t in before["trials"] if t["state"] == "succeeded"}
    assert succeeded <= ran, "a success that never was"
    resumed = sweepfw("resume", "many-1", "-q")
    assert resumed.returncode in (0, 1) and resumed.stderr == "", (resumed, errors)
    assert sweepfw("retry", "many-1", "-q").returncode == 0
    after = shown(small_disk, "many-1")
    assert after["counts"] == {"succeeded": 200}
    assert sound(small_disk)
    kept = {t["trial"]: len(t["attempts"]) for t in before["trials"] if t["state"] == "succeeded"}
    assert all(len(t["attempts"]) == kept[t["trial"]] for t in after["trials"] if t["trial"] in kept)


@pytest.mark.parametrize("verb", ["run full", "run full --json", "plan full", "ls", "run full --detach"])
def test_full_from_the_start(
    verb: str,
    small_disk: Path,
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """No room for anything: a line that says so, or it works without."""
    make_project("full", "command: echo", "i: [1, 2]")
    assert sweepfw("run", "full").returncode == 0
    (small_disk / "projects/full/new.txt").write_text("so that the snapshot is a new one")
    ballast = fill(small_disk)
    done = sweepfw(*verb.split())
    if verb == "plan full":
        assert done.returncode == 0, done
    else:
        assert done.returncode in (2, 3) and done.stdout == "", done
        assert done.stderr.count("\n") == 1, done.stderr
        assert "No space left" in done.stderr or "full" in done.stderr.partition("sweepfw: ")[2], done.stderr
    ballast.unlink()
    assert sound(small_disk)
    assert sweepfw("run", "full", "-q").returncode == 0


def test_output_to_a_full_disk(
    workspace_folder: Path, make_project: Callable[..., Path], start_sweepfw: Callable[..., Any]
) -> None:
    """`sweepfw run > file` finds no room for what it shows: the sweep goes on without."""
    make_project("p", "command: [sh, -c, 'seq 100']", "i: !!python/tuple [0, 10]")
    with open("/dev/full", "w") as full:
        process = start_sweepfw("run", "p", "-j", "1", stdout=full)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
