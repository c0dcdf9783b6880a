"""`run` on a deployment, killed at every point: the sweep is there and goes on, or nothing of it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_cases import DISPATCH, Case
from test_deployed import address, deployment, head, project

from sweepfw import crash
from sweepfw.config.secrets import store

__all__ = ["address", "deployment", "head", "project"]


@pytest.mark.parametrize("case", DISPATCH, ids=lambda case: case.id)
def test_whatever_run_dies_of_the_sweep_goes_on_or_is_not_there(
    case: Case, sweepfw: Callable[..., subprocess.CompletedProcess[str]], project: Path, tmp_path: Path
) -> None:
    file = project / "project.yml"
    file.write_text(f"{file.read_text()}secrets: {{KEY: env}}\n")
    store("KEY", b"a secret of the test")
    before = names(sweepfw)
    env = {**os.environ, crash.VARIABLE: f"{case.id}:{tmp_path / 'struck'}"}
    assert sweepfw("run", "demo", "-q", env=env).returncode == -9
    assert (tmp_path / "struck").exists()
    new = names(sweepfw) - before
    assert len(new) == (case.point != "run.secrets")
    done = sweepfw("attach", *new, "-q") if new else sweepfw("run", "demo", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    [name] = names(sweepfw) - before
    shown = json.loads(sweepfw("show", name, "--json").stdout)
    assert shown["counts"] == {"succeeded": 3}
    assert [len(trial["attempts"]) for trial in shown["trials"]] == [1, 1, 1]


def names(sweepfw: Callable[..., subprocess.CompletedProcess[str]]) -> set[str]:
    return {each["sweep"] for each in json.loads(sweepfw("ls", "--json").stdout)}
