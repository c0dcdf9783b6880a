"""The projects that ship, and the ways to install: what a newcomer meets first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def projects(workspace_folder: Path) -> Path:
    """The workspace, with copies of our projects."""
    shutil.copytree(ROOT / "projects", workspace_folder / "projects", dirs_exist_ok=True)
    return workspace_folder


def test_digits_is_a_grid_of_twelve(projects: Path, sweepfw: Run) -> None:
    done = sweepfw("plan", "digits", "--json")
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trial["trial"] for trial in trials] == list(range(1, 13))
    assert trials[0]["argv"] == [
        *("python", "train.py", "--epochs=250", "--hidden=64", "--opt=momentum", "--lr=0.001", "--seed=1")
    ]
    assert trials[-1]["params"] == {"epochs": 250, "hidden": 192, "opt": "adam", "lr": 0.01, "seed": 1}


@pytest.mark.parametrize("words", [("echo",), ("digits", "--task", "echo")])
def test_echo_runs_anywhere_and_prints_its_parameters(
    projects: Path, sweepfw: Run, words: tuple[str, ...]
) -> None:
    done = sweepfw("run", *words, "--quiet")
    assert done.returncode == 0, done.stderr
    first = json.loads(sweepfw("plan", *words, "--json").stdout.splitlines()[0])
    log = sweepfw("logs", f"{words[0]}-1/1").stdout
    for argument in first["argv"][2:]:
        assert argument in log


@pytest.mark.lab
def test_digits_goes_on_from_its_checkpoint_and_keeps_its_model(
    projects: Path, sweepfw: Run, start_sweepfw: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    one = [f"--set={value}" for value in ("epochs=200", "hidden=32", "opt=adam", "lr=0.001")]
    trial = projects / "runs" / "digits-1" / "trials" / "1"
    saved = trial / "checkpoint" / "checkpoint.npz"
    running = start_sweepfw("run", "digits", *one, "--quiet")
    wait_until(lambda: saved.exists() or running.poll() is not None, 240, "a checkpoint")
    running.send_signal(signal.SIGINT)
    assert running.wait(120) == 130, running.communicate()
    done = sweepfw("resume", "digits-1", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(sweepfw("show", "digits-1", "--json").stdout)
    assert shown["counts"] == {"succeeded": 1}
    assert [each["state"] for each in shown["trials"][0]["attempts"]] == ["interrupted", "succeeded"]
    assert shown["trials"][0]["metrics"]["val_accuracy"] > 0.9
    assert "going on after epoch" in (trial / "2" / "output.log").read_text()
    assert (trial / "2" / "files" / "model.npz").exists()


@pytest.mark.lab
def test_an_installed_wheel_holds_all_that_it_needs(tmp_path: Path) -> None:
    source, venv, work = tmp_path / "source", tmp_path / "venv", tmp_path / "work"
    left_out = shutil.ignore_patterns(".venv", ".git", "runs", "build", "*.egg-info", ".*cache*", ".sweepfw")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    work.mkdir()
    python = venv / "bin" / "python"
    command = venv / "bin" / "sweepfw"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", source], check=True, timeout=200)
    shutil.rmtree(source)
    world = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    for words in (
        ["new", "mine"],
        ["run", "mine", "--quiet"],
        ["show", "mine-1"],
        ["new", "copied", "--from", "echo"],
        ["run", "copied", "--quiet"],
        ["new", "trained", "--from", "digits"],
        ["plan", "trained"],
    ):
        done = subprocess.run(
            [command, *words], cwd=work, env=world, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: scripts/test --lab installs one")
def test_the_benchmark_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "trials.py", "--trials", "6", "--rounds", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"C loop", "sweepfw"} <= {line[:14].strip() for line in done.stdout.splitlines()}
    assert not list(tmp_path.iterdir())
