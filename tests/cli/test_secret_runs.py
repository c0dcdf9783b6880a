"""Sweeps on this machine that need secrets, by the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweepfw.config.secrets import remove, store
from sweepfw.config.workspace import state_home

Run = Callable[..., subprocess.CompletedProcess[str]]
PROJECT = """
command: sh trial.sh {n}
secrets: {KEY: env, conf: file, other: {env: OTHER}}
tasks:
  main: {}
  open: {command: [sh, -c, "echo ${KEY-no key}"], secrets: null}
"""
TRIAL = 'test "$KEY$OTHER" = "$(cat $SWEEPFW_SECRETS/conf)" || exit 3; echo "key $KEY"; test $1 != 2\n'


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    return make_project("p", PROJECT, "n: [1, 2]", {"trial.sh": TRIAL})


@pytest.fixture
def secrets() -> None:
    store("KEY", b"key-of-the-test")
    store("other", b"-and-another\n")
    store("conf", b"key-of-the-test-and-another\n")


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("project")
def test_what_is_missing_is_said_before_anything_is_made(sweepfw: Run, workspace_folder: Path) -> None:
    before = everything(workspace_folder)
    done = sweepfw("run", "p")
    assert done.returncode == 2
    assert done.stderr == (
        "sweepfw: the secrets KEY, conf, other are needed and not stored; store them with: "
        "sweepfw secret set KEY, sweepfw secret set conf, sweepfw secret set other\n"
    )
    assert everything(workspace_folder) == before
    plan = sweepfw("plan", "p").stdout
    assert "\nsecrets: KEY, conf, other\n" in plan
    assert "warning: the secret conf is not stored, and `run` needs it: sweepfw secret set conf\n" in plan
    assert sweepfw("run", "p", "--task", "open").returncode == 0  # the task says that it needs none


@pytest.mark.usefixtures("project", "secrets")
def test_each_verb_reads_them_anew(sweepfw: Run, workspace_folder: Path) -> None:
    done = sweepfw("run", "p", "--logs", "all")
    assert done.returncode == 1
    assert "key ***" in done.stdout
    assert "key-of" not in done.stdout + done.stderr
    assert "secrets: KEY, conf, other\n" in sweepfw("plan", "p").stdout
    before = everything(workspace_folder / "runs")
    remove(["other"])
    assert sweepfw("resume", "p-1").returncode == 0  # there is nothing to run
    for verb in (["retry", "p-1"], ["resume", "p-1", "--cancelled"], ["extend", "p-1", "--set", "n=3"]):
        done = sweepfw(*verb)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), verb
        assert "the secret other is needed and not stored" in done.stderr
    assert everything(workspace_folder / "runs") == before
    assert '"counts": {"succeeded": 1, "failed": 1}' in sweepfw("show", "p-1", "--json").stdout
    store("other", b"-changed\n")
    done = sweepfw("retry", "p-1")
    assert sweepfw("run", "p", "--only", "1", "--name", "q").returncode == 1
    assert "failed: exit 3" in done.stdout  # it got the changed one
    store("conf", b"key-of-the-test-changed\n")
    assert sweepfw("extend", "p-1", "--set", "n=3").returncode == 1
    assert "key ***" in sweepfw("logs", "p-1/3").stdout
    (state_home() / "secrets/conf").chmod(0o644)
    done = sweepfw("resume", "q")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


@pytest.mark.usefixtures("project", "secrets")
def test_in_the_background_and_in_the_foreground(
    sweepfw: Run, workspace_folder: Path, wait_until: Callable[..., None]
) -> None:
    done = sweepfw("run", "p", "--detach")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "p-1 is done" in sweepfw("attach", "p-1").stdout, 120)
    assert "key ***" in sweepfw("logs", "p-1/1").stdout
    done = sweepfw("debug", "p-1/1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "key key-of-the-test\n"  # in the foreground nothing is kept, and nothing is masked
    for path, data in everything(workspace_folder).items():
        assert b"key-of-the-test" not in data, path


@pytest.mark.parametrize("struck", ["told to end", "killed", "guardian and keeper killed"])
@pytest.mark.usefixtures("secrets")
def test_gone_with_the_command(
    struck: str,
    make_project: Callable[..., Path],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[..., None],
) -> None:
    trial = "echo in $SWEEPFW_SECRETS; sleep 600"
    make_project("p", "command: sh trial.sh\nsecrets: {conf: file}", "", {"trial.sh": trial})
    process = start_sweepfw("run", "p", "--logs", "all")
    assert process.stdout
    path = next(line for line in process.stdout if " in /" in line).rpartition(" in ")[2].strip()
    assert Path(path, "conf").is_file()
    if struck == "guardian and keeper killed":
        keeper = int(path.split("-")[2])
        guardian = int(Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[1])
        for kind in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(guardian, kind)
            os.kill(keeper, kind)
    else:
        process.send_signal(signal.SIGINT if struck == "told to end" else signal.SIGKILL)
    wait_until(lambda: not os.path.exists(path))
    process.wait(120)


@pytest.mark.usefixtures("project", "secrets")
def test_without_memory_files_are_refused(sweepfw: Run, workspace_folder: Path) -> None:
    """As in a container without /dev/shm."""
    code = """
import runpy, sys
import sweepfw.trial.guard.secret
sweepfw.trial.guard.secret._places = lambda: ["/"]
sys.argv[:] = ["sweepfw", "run", "p"]
runpy.run_module("sweepfw", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace_folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "secret conf: no folder in memory for secrets" in done.stderr
    assert not (workspace_folder / "runs").exists()
