"""Secrets from the command line to a deployment: in time, anew with each verb, gone with the sweep."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from canary_project import sha
from test_deployed import MakeProject, Sweepfw, address, deployment, head
from worker_lab import HeadLab, until

from sweepfw.config.deployments import DeploymentState

__all__ = ["address", "deployment", "head"]  # fixtures

PROJECT = """
command: [bash, trial.sh]
max_failures: null
environment: inherit
secrets: {TOKEN: env, key.pem: {file: %s}}
parameters: {i: [1, 2, 3]}
"""
TELL = 'printf %s "$TOKEN" | sha256sum; sha256sum <"$SWEEPFW_SECRETS/key.pem"; exit ${EXIT:-0}\n'


@pytest.fixture
def project(make_project: MakeProject, deployment: DeploymentState, tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(b"the key itself\n")
    return make_project("kept", PROJECT % (tmp_path / "key.pem"), "", {"trial.sh": TELL})


def store(sweepfw: Sweepfw, value: str) -> None:
    done = sweepfw("secret", "set", "TOKEN", "--from-env", "GIVEN", env={**os.environ, "GIVEN": value})
    assert done.returncode == 0, done.stderr


def kept(head: HeadLab) -> dict[str, dict[str, str]]:
    """By sweep, what lies on the head."""
    folder = head.place.state / "secrets"
    return {
        place.name: {path.name: path.read_text() for path in place.iterdir()} for place in folder.glob("*")
    }


def uid(head: HeadLab, name: str) -> str:
    return head.ledger.sweep(name).uid


def test_they_are_there_before_the_first_trial_and_go_with_the_sweep(
    sweepfw: Sweepfw, project: Path, head: HeadLab
) -> None:
    store(sweepfw, "the first value")
    done = sweepfw("run", "kept", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    name = json.loads(done.stdout.splitlines()[-1])["sweep"]
    for trial in (1, 2, 3):
        told = sweepfw("logs", f"{name}/{trial}").stdout.split()
        assert told[::2] == [sha("the first value"), sha("the key itself\n")]
    assert kept(head)[uid(head, name)] == {"TOKEN": "the first value", "key.pem": "the key itself\n"}
    found = uid(head, name)
    assert sweepfw("rm", name).returncode == 0
    assert found not in kept(head)


def test_each_verb_brings_what_they_are_now(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    (project / "trial.sh").write_text('test $SWEEPFW_ATTEMPT = 1 && test "$1" = --i=1 && EXIT=3\n' + TELL)
    store(sweepfw, "the first value")
    failed = sweepfw("run", "kept", "--json", "--only", "1")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    name = json.loads(failed.stdout.splitlines()[-1])["sweep"]
    for value, words, trial in (
        ("a second value", ["retry", name], 1),
        ("a third value", ["resume", name], 3),
        ("a fourth value", ["extend", name, "--set", "i=4"], 4),
    ):
        store(sweepfw, value)
        done = sweepfw(*words)
        assert done.returncode == (3 if words[0] == "retry" else 0), (words, done.stdout, done.stderr)
        assert sweepfw("logs", f"{name}/{trial}").stdout.split()[0] == sha(value), words
    assert kept(head)[uid(head, name)]["TOKEN"] == "a fourth value"


def test_one_that_is_not_stored_is_refused_before_anything_is_changed(
    sweepfw: Sweepfw, project: Path, head: HeadLab
) -> None:
    before = [sweep.name for sweep in head.ledger.sweeps()], kept(head)
    told = sweepfw("run", "kept")
    assert (told.returncode, told.stdout) == (2, "")
    assert "TOKEN" in told.stderr and "sweepfw secret set TOKEN" in told.stderr
    assert told.stderr.count("\n") == 1
    assert ([sweep.name for sweep in head.ledger.sweeps()], kept(head)) == before

    store(sweepfw, "there for a while")
    (project / "trial.sh").write_text("exit 3\n")
    name = json.loads(sweepfw("run", "kept", "--json").stdout.splitlines()[-1])["sweep"]
    assert sweepfw("secret", "rm", "TOKEN").returncode == 0
    ends = head.ledger.sweep(name), kept(head)
    for words in (["retry", name], ["resume", name, "--cancelled"], ["extend", name, "--set", "i=9"]):
        told = sweepfw(*words)
        assert told.returncode == 2 and "sweepfw secret set TOKEN" in told.stderr, words
        assert (head.ledger.sweep(name), kept(head)) == ends


def test_a_sweep_that_is_refused_leaves_none(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    store(sweepfw, "never used")
    assert sweepfw("run", "kept", "--name", "taken", "-q").returncode == 0
    before = kept(head)
    told = sweepfw("run", "kept", "--name", "taken")
    assert told.returncode == 2, told.stdout + told.stderr
    assert kept(head) == before


def test_a_run_that_dies_before_it_submits_leaves_no_sweep(
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    sweepfw: Sweepfw,
    project: Path,
    head: HeadLab,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The head never gets to answer what comes after the secrets."""
    store(sweepfw, "of a run that dies")
    before = [sweep.name for sweep in head.ledger.sweeps()]
    came = kept(head).keys()
    submitting: list[str] = []

    def silent(*_: object, **given: str) -> None:
        submitting.append(given["uid"])
        run.kill()
        raise RuntimeError("its caller is dead")

    with monkeypatch.context() as patch:
        patch.setattr(type(head.ledger), "submit", silent)
        run = start_sweepfw("run", "kept")
        until(lambda: submitting, what="a sweep to be submitted")
        run.wait(60)
    assert [sweep.name for sweep in head.ledger.sweeps()] == before
    assert kept(head).keys() - came == {submitting[0]}
    os.utime(head.place.state / "secrets" / submitting[0], (1, 1))
    assert sweepfw("run", "kept", "-q").returncode == 0
    assert submitting[0] not in kept(head)  # the next secrets that came took it away


def test_a_retry_that_is_refused_changes_none(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    store(sweepfw, "of the first run")
    (project / "trial.sh").write_text("exit 3\n")
    name = json.loads(sweepfw("run", "kept", "--json").stdout.splitlines()[-1])["sweep"]
    before = kept(head)
    store(sweepfw, "a newer one")
    project.rename(project.with_name("gone"))
    told = sweepfw("retry", name, "--current-code")
    assert told.returncode == 2 and "not there any more" in told.stderr, told.stdout + told.stderr
    assert kept(head) == before
