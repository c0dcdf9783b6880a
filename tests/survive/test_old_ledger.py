"""A ledger that is older than the files under runs/: a backup, or one whose log was lost with its disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

TRIAL = """
echo "$NONCE" >"$SWEEPFW_OUTPUT/$NONCE"
echo "{\\"nonce\\": $NONCE}" >>"$SWEEPFW_METRICS"
echo "$NONCE"
"""


def test_a_backup_of_the_ledger_costs_no_output(
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    workspace_folder: Path,
) -> None:
    """Trials that the backup does not know to have ended run again, beside what they left before."""
    project = make_project("old", "command: [sh, trial.sh]\n", "i: [1, 2]\n", {"trial.sh": TRIAL})
    text = (project / "project.yml").read_text()
    (project / "project.yml").write_text(text + "variables: {NONCE: '11'}\n")
    assert sweepfw("run", "old", "--only", "1", "-q").returncode == 0
    ledger, backup = workspace_folder / ".sweepfw", workspace_folder / "backup"
    shutil.copytree(ledger, backup)
    assert sweepfw("resume", "old-1", "-q").returncode == 0
    trial = workspace_folder / "runs/old-1/trials/2"
    (trial / "1/files/of-the-first").write_text("kept")
    for file in ledger.glob("ledger.db*"):
        file.unlink()
    for file in backup.glob("ledger.db*"):
        shutil.copy(file, ledger)
    assert sweepfw("resume", "old-1", "-q").returncode == 0
    assert sorted(path.name for path in trial.iterdir()) == ["1", "1.earlier-1"]
    assert [path.name for path in (trial / "1/files").iterdir()] == ["11"]
    assert (trial / "1/metrics.jsonl").read_text().count("nonce") == 1
    assert (trial / "1.earlier-1/files/of-the-first").read_text() == "kept"
    assert (trial / "1.earlier-1/outcome.json").exists()
    assert not list((workspace_folder / "runs/old-1/trials/1").glob("*earlier*"))


def test_a_sweep_that_its_ledger_lost_is_named(
    make_project: Callable[..., Path],
    sweepfw: Callable[..., subprocess.CompletedProcess[str]],
    workspace_folder: Path,
) -> None:
    make_project("lost", "command: echo", "i: [1]")
    assert sweepfw("run", "lost", "-q").returncode == 0
    for file in (workspace_folder / ".sweepfw").glob("ledger.db*"):
        file.unlink()
    assert sweepfw("run", "lost", "-q").returncode == 0
    assert (workspace_folder / "runs/lost-2").is_dir(), "a name with a folder is not used again"
    told = sweepfw("show", "lost-1")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1)
    assert "the ledger is older than that folder" in told.stderr and "runs/lost-1 is there" in told.stderr
    assert "the ledger is older" not in sweepfw("show", "lost-3").stderr
