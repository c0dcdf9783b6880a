"""Every verb on a deployment: real command line, head, broker, workers; only the containers are left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_lab import Broker, Line
from worker_fixtures import announced
from worker_lab import HeadLab, WorkerLab, until

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import LOCAL, SERVICE_PORT, Advert, Deployment, Host
from sweepfw.core.model import Worker
from sweepfw.fleet.credentials import ensure_credentials

Sweepfw = Callable[..., subprocess.CompletedProcess[str]]
MakeProject = Callable[..., Path]

PROJECT = """
command: [python3, train.py]
objective: {metric: acc, goal: maximize}
metrics: [acc]
max_failures: null
"""
PARAMETERS = "lr: [0.1, 0.2, 0.3]\n"
TRAIN = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
print(f"training with {lr}", flush=True)
print(f"acc={lr}", flush=True)
pathlib.Path(os.environ["SWEEPFW_OUTPUT"], "model.txt").write_text(str(lr))
"""
SLOW = 'import time, pathlib, sys\nprint("begun", flush=True)\ntime.sleep(600)\n'
GATED = """
import pathlib, time
end = time.monotonic() + 250
while not pathlib.Path({!r}).exists() and time.monotonic() < end:
    time.sleep(0.05)
"""
FAILING = 'import sys\nprint("about to fail")\nsys.exit(3)\n'


@pytest.fixture(scope="module")
def head(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadLab]:
    head = HeadLab(tmp_path_factory.mktemp("deployed"), broker)
    head.roster.patience = 300  # a slow worker lives
    workers = [WorkerLab(head, host) for host in ("a", "b")]
    for worker in workers:
        announced(head, worker)
    yield head
    for worker in workers:
        worker.stop()
    head.stop()


@pytest.fixture(scope="module")
def address(head: HeadLab) -> str:
    """A loopback address of its own, where the service has the port that deployments give it."""
    for last in range(2, 250):
        found = f"127.77.{os.getpid() % 250}.{last}"
        try:
            Line(head.service.address, (found, SERVICE_PORT))
        except OSError:
            continue
        return found
    raise AssertionError("no address is free")


@pytest.fixture
def deployment(head: HeadLab, address: str, no_deployments: None) -> DeploymentState:
    """The user's state folder, as `infra up` leaves it."""
    hosts = (Host(LOCAL, LOCAL), Host("a", "a"), Host("b", "b"))
    state = DeploymentState.create(Deployment("lab", hosts, LOCAL, ("a", "b")))
    ensure_credentials(state.credentials, ("a", "b"))
    told = json.loads(state.credentials.read_text())
    told |= {"people": "people", "certificate": (head.folder / "certificate.pem").read_text()}
    state.credentials.write_text(json.dumps(told))
    state.complete, state.head_addresses = True, {"head": address}
    state.save()
    return state


@pytest.fixture
def project(make_project: MakeProject, deployment: DeploymentState) -> Path:
    return make_project("demo", PROJECT, PARAMETERS, {"train.py": TRAIN})


def started(sweepfw: Sweepfw, *words: str) -> str:
    """The name of a sweep that was begun in the background."""
    told = sweepfw("run", "demo", "--detach", "--json", *words)
    assert told.returncode == 0, told.stderr
    return str([json.loads(line) for line in told.stdout.splitlines()][-1]["sweep"])


def wait_for(sweepfw: Sweepfw, name: str, ready: Callable[[dict[str, int]], bool]) -> None:
    until(
        lambda: ready(json.loads(sweepfw("show", name, "--json").stdout)["counts"]), what=f"{name} is ready"
    )


def test_run_shows_hosts_output_and_the_leaderboard(sweepfw: Sweepfw, project: Path) -> None:
    done = sweepfw("run", "demo", "--logs", "all")
    assert done.returncode == 0, done.stderr
    assert "running on lab; trials use the Python of the workers' image" in done.stdout
    for lr in ("0.1", "0.2", "0.3"):
        line = next(each for each in done.stdout.splitlines() if f"training with {lr}" in each)
        assert line[0] in "ab"
    assert "acc, highest first" in done.stdout


def test_looking_works_in_the_same_words(sweepfw: Sweepfw, project: Path, tmp_path: Path) -> None:
    name = started(sweepfw)
    assert sweepfw("attach", name).returncode == 0
    listed = {each["sweep"]: each for each in json.loads(sweepfw("ls", "--json").stdout)}
    assert (listed[name]["place"], listed[name]["state"]) == ("lab", "done")
    assert "PLACE" in sweepfw("ls").stdout
    assert "on lab" in sweepfw("show", name).stdout
    assert sweepfw("logs", f"{name}/2").stdout == "training with 0.2\nacc=0.2\n"
    assert sweepfw("logs", "-f", f"{name}/2").stdout == "training with 0.2\nacc=0.2\n"
    assert json.loads(sweepfw("best", name, "--json").stdout)[0]["trials"] == [3]
    rows = sweepfw("export", name).stdout.splitlines()
    assert len(rows) == 4
    assert "acc" in rows[0]
    history = sweepfw("export", name, "--history", "--format", "jsonl").stdout.splitlines()
    assert sorted(json.loads(line)["value"] for line in history) == [0.1, 0.2, 0.3]
    told = sweepfw("show", f"{name}/3")
    assert "model.txt" in told.stdout
    assert sweepfw("debug", f"{name}/3").stdout.endswith("acc=0.3\n")


def test_names_are_free_here_and_there(sweepfw: Sweepfw, project: Path) -> None:
    here = sweepfw("run", "demo", "--here", "-q")
    assert here.returncode == 0, here.stderr
    mine = [each["sweep"] for each in json.loads(sweepfw("ls", "--here", "--json").stdout)]
    assert started(sweepfw) not in mine


def test_an_unchanged_project_is_not_sent_again(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    assert sweepfw("attach", started(sweepfw)).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in head.place.snapshots.glob("objects/*/*")}
    assert sweepfw("attach", started(sweepfw)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in head.place.snapshots.glob("objects/*/*")} == before


def test_stop_reaches_a_running_trial(sweepfw: Sweepfw, project: Path) -> None:
    (project / "train.py").write_text(SLOW)
    name = started(sweepfw)
    wait_for(sweepfw, name, lambda counts: counts.get("running", 0) == 3)
    assert sweepfw("stop", f"{name}/1").returncode == 0
    wait_for(sweepfw, name, lambda counts: counts.get("cancelled", 0) == 1)
    assert "2 trials cancelled" in sweepfw("stop", name, "--now").stdout
    assert sweepfw("attach", name).returncode == 3
    assert "nothing left to run" in sweepfw("resume", name).stdout
    assert json.loads(sweepfw("show", name, "--json").stdout)["state"] == "stopped"  # as it was


def test_pause_and_resume(sweepfw: Sweepfw, project: Path, tmp_path: Path) -> None:
    (project / "parameters.yml").write_text("lr: !!python/tuple [1, 13]\n")  # three for each slot
    (project / "train.py").write_text(GATED.format(str(tmp_path / "go")) + TRAIN)
    name = started(sweepfw)
    wait_for(sweepfw, name, lambda counts: counts.get("running", 0) > 0)
    assert sweepfw("pause", name).returncode == 0
    (tmp_path / "go").touch()
    assert sweepfw("attach", name, "-q").returncode == 3
    counts = json.loads(sweepfw("show", name, "--json").stdout)["counts"]
    assert counts.get("queued", 0) > 0
    done = sweepfw("resume", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(sweepfw("show", name, "--json").stdout)["counts"] == {"succeeded": 12}
    assert "nothing left to run" in sweepfw("resume", name).stdout


def test_retry_with_current_code_and_extend(sweepfw: Sweepfw, project: Path) -> None:
    (project / "train.py").write_text(FAILING)
    name = started(sweepfw)
    failed = sweepfw("attach", name)
    assert failed.returncode == 1
    (project / "train.py").write_text(TRAIN)
    done = sweepfw("retry", name, "--current-code")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "some trials ran snapshot" in sweepfw("show", name).stdout
    more = sweepfw("extend", name, "--set", "lr=0.9")
    assert more.returncode in (0, 1)  # the new trial runs the sweep's own snapshot, which fails
    assert json.loads(sweepfw("show", name, "--json").stdout)["counts"]["succeeded"] == 3


def test_what_was_faster_than_the_command_is_told_all_the_same(
    sweepfw: Sweepfw, project: Path, head: HeadLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their end comes before the command's next look."""
    (project / "train.py").write_text(FAILING)
    name = started(sweepfw)
    assert sweepfw("attach", name).returncode == 1
    reopen = type(head.ledger).reopen

    def slowly(*given: Any, **named: Any) -> Any:
        found = reopen(*given, **named)
        until(lambda: all(t.state == "failed" for t in head.ledger.trials(named["uid"])), what="their end")
        return found

    monkeypatch.setattr(type(head.ledger), "reopen", slowly)
    again = sweepfw("retry", name)
    assert again.returncode == 1, again.stdout + again.stderr
    assert again.stdout.count("about to fail") == 3, again.stdout


def test_only_some_of_the_trials(sweepfw: Sweepfw, project: Path) -> None:
    done = sweepfw("run", "demo", "--only", "2", "--json")
    assert done.returncode == 3
    name = json.loads(done.stdout.splitlines()[-1])["sweep"]
    counts = json.loads(sweepfw("show", name, "--json").stdout)["counts"]
    assert counts == {"succeeded": 1, "held": 2}
    assert sweepfw("resume", name, "--only", "3").returncode == 3
    assert sweepfw("resume", name).returncode == 0
    trials = json.loads(sweepfw("show", name, "--json").stdout)["trials"]
    assert [len(trial["attempts"]) for trial in trials] == [1, 1, 1]


def test_so_many_at_once(sweepfw: Sweepfw, project: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "alone")
    alone = f"import os, time\nos.mkdir({place!r})\ntime.sleep(0.3)\nos.rmdir({place!r})\n"
    (project / "train.py").write_text(alone + TRAIN)
    done = sweepfw("run", "demo", "-j", "1")
    assert done.returncode == 0, done.stdout  # nobody met another


def test_fail_fast_pauses(sweepfw: Sweepfw, project: Path) -> None:
    (project / "train.py").write_text(FAILING)
    (project / "parameters.yml").write_text("lr: !!python/tuple [1, 40]\n")
    done = sweepfw("run", "demo", "--fail-fast", "-j", "1")
    assert done.returncode == 3
    assert "--fail-fast" in done.stdout


def test_a_failed_trials_last_lines_are_shown(sweepfw: Sweepfw, project: Path) -> None:
    (project / "train.py").write_text(FAILING)
    told = sweepfw("run", "demo", "--logs", "failed")
    assert told.returncode == 1
    assert told.stdout.count("about to fail") == 3


def test_ctrl_c_leaves_the_sweep_and_it_goes_on(
    start_sweepfw: Callable[..., subprocess.Popen[str]], sweepfw: Sweepfw, project: Path, tmp_path: Path
) -> None:
    (project / "train.py").write_text(GATED.format(str(tmp_path / "go")) + TRAIN)
    run = start_sweepfw("run", "demo", "--json", stdout=subprocess.PIPE)
    assert run.stdout is not None
    name = ""
    for line in run.stdout:
        event = json.loads(line)
        name = event.get("sweep", name)
        if event["event"] == "started":
            break
    run.send_signal(signal.SIGINT)
    rest, told = run.communicate(timeout=60)
    (tmp_path / "go").touch()
    assert run.returncode == 130, rest + told
    assert f"left {name}; it goes on on lab" in told
    assert sweepfw("attach", name, "-q").returncode == 0


def test_rm_forgets_it_everywhere(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    name = started(sweepfw)
    assert sweepfw("attach", name, "-q").returncode == 0
    assert head.place.run(name).is_dir()
    assert sweepfw("rm", name).returncode == 0
    assert sweepfw("show", name).returncode == 2
    assert not head.place.run(name).exists()
    until(lambda: not any((head.folder / f"host-{h}/runs/{name}").exists() for h in "ab"), what="no files")


def test_no_answer_is_exit_4_and_nothing_runs_here(
    sweepfw: Sweepfw, project: Path, deployment: DeploymentState
) -> None:
    deployment.head_addresses = {"head": "127.78.0.1"}  # nobody listens there
    deployment.save()
    told = sweepfw("run", "demo")
    assert told.returncode == 4, told.stdout + told.stderr
    assert told.stderr.count("\n") == 1
    assert not (project.parents[1] / ".sweepfw/ledger.db").exists()
    assert sweepfw("run", "demo", "--here", "-q").returncode == 0
    listed = sweepfw("ls", "--json")
    assert listed.returncode == 4
    assert len(json.loads(listed.stdout)) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "demo", "--on", "other"], "other"),
        (["run", "demo", "--on", "lab", "--here"], "rule each other out"),
        (["show", "nothing-1"], "nothing-1"),
        (["run", "demo", "--set", "nope=1"], "nope"),
    ],
)
def test_bad_words_are_one_line(sweepfw: Sweepfw, project: Path, words: list[str], said: str) -> None:
    told = sweepfw(*words)
    assert told.returncode == 2
    assert said in told.stderr
    assert told.stderr.count("\n") == 1


def test_needs_that_no_host_meets_are_refused(sweepfw: Sweepfw, project: Path, head: HeadLab) -> None:
    (project / "project.yml").write_text(PROJECT + "needs: {labels: [unheard-of]}\n")
    before = len(head.ledger.sweeps())
    told = sweepfw("run", "demo")
    assert told.returncode == 2
    assert "needs.labels" in told.stderr
    assert len(head.ledger.sweeps()) == before


def test_needs_that_only_a_silent_host_meets_let_the_trials_wait(
    sweepfw: Sweepfw, project: Path, head: HeadLab
) -> None:
    """As of one that restarts just now."""
    gone = Worker("c", "c0c0")
    head.roster.announce(gone, Advert(1, 1, labels=("rare",)))
    head.roster.heard(gone, connected=False)
    (project / "project.yml").write_text(PROJECT + "needs: {labels: [rare]}\n")
    told = sweepfw("run", "demo", "--detach")
    assert told.returncode == 0, told.stderr
    assert "wait for c, whose worker is silent" in told.stdout + told.stderr
    sweep = max(head.ledger.sweeps(), key=lambda sweep: sweep.created)
    assert sweep.counts == {"queued": 3}
    head.ledger.stop(sweep.uid)


def test_a_deployment_that_an_infra_down_has_left_says_so(
    sweepfw: Sweepfw, project: Path, head: HeadLab
) -> None:
    for host in ("a", "b"):
        head.roster.drain(host, off=False)
    try:
        told = sweepfw("run", "demo")
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert "`sweepfw infra up` undoes that" in told.stderr
    finally:
        for host in ("a", "b"):
            head.roster.drain(host, off=True)
    assert sweepfw("run", "demo", "-q").returncode == 0
