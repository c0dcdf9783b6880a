"""What people read of a sweep that really runs, and its removal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PROJECT = """
command: [sh, -c, 'echo "loss: $0.5"; echo begun; sleep 250', "{n}"]
metrics: [loss]
grace: 1
"""


def test_a_sweep_that_runs(
    make_project: Callable,
    start_sweepfw: Callable,
    sweepfw: Callable,
    wait_until: Callable,
    workspace_folder: Path,
) -> None:
    make_project("slow", PROJECT, "n: [1, 2]\n")
    running = start_sweepfw("run", "slow", "-j", "1", "--quiet")
    wait_until(lambda: "begun" in sweepfw("logs", "slow-1/1").stdout, what="the first trial's log")

    (listed,) = json.loads(sweepfw("ls", "--json").stdout)
    assert (listed["sweep"], listed["state"], listed["counts"]) == (
        "slow-1",
        "running",
        {"queued": 1, "running": 1},
    )
    shown = sweepfw("show", "slow-1").stdout
    assert "slow-1/1" in shown and "sweepfw attach slow-1" in shown
    following = start_sweepfw("logs", "-f", "slow-1/1")

    refused = sweepfw("rm", "slow-1")
    assert (refused.returncode, refused.stdout) == (75, "") and "--stop" in refused.stderr
    assert sweepfw("stop", "slow-1/1").returncode == 0
    assert following.wait(120) == 0
    assert following.stdout.read() == "loss: 1.5\nbegun\n"

    wait_until(lambda: "begun" in sweepfw("logs", "slow-1/2").stdout, what="the second trial's log")
    removed = sweepfw("rm", "--stop", "slow-1")
    assert (removed.returncode, removed.stdout) == (0, "slow-1 removed\n"), removed.stderr
    running.wait(120)
    told = running.stderr.read()
    assert "bug" not in told and "Traceback" not in told, told
    assert json.loads(sweepfw("ls", "--json").stdout) == []
    assert list((workspace_folder / "runs").iterdir()) == []
