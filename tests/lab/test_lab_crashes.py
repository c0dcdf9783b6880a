"""`infra up`, `pull` and `infra down`, killed at every point of a crash: the same again finishes it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from crash_cases import DOWN, DRAFTS, LATER, UP, Case
from lab import Lab
from lab_handmade import MODEL, Handmade, fill
from lab_host import Host
from lab_machine import forget_builds
from lab_site import ROLES, Site, containers

from sweepfw import crash

DOWN_WORDS = ("infra", "down", "--yes", "--outputs", "all")


def strike(case: Case, words: tuple[str, ...], cwd: Path, environment: Mapping[str, str], file: Path) -> None:
    """The command, until it dies at the point."""
    told, begun = f"{case.id}:{file}", time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sweepfw", *words],
        cwd=cwd,
        env={**environment, crash.VARIABLE: told},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == -9 and file.exists(), (case, done.returncode)
    file.unlink()
    print(f"{case.id}: {time.monotonic() - begun:.1f} s", flush=True)


def test_down_is_finished_whatever_it_dies_of(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    for case in DOWN:
        strike(case, DOWN_WORDS, handmade.workspace, handmade.environment, tmp_path / "struck")
    assert [handmade.left(host) for host in handmade.lab.hosts] == [[], []]
    [sweep] = json.loads(handmade.sweepfw("ls", "--json").stdout)
    assert (sweep["sweep"], sweep["state"]) == ("digits-1", "queued")
    assert os.listdir(handmade.state.folder.parent) == []  # no key is left

    shown = json.loads(handmade.sweepfw("show", "digits-1", "--json").stdout)
    assert shown["counts"] == {"succeeded": 2, "queued": 2}
    assert [len(trial["attempts"]) for trial in shown["trials"]] == [1, 1, 1, 0]
    runs = handmade.workspace / "runs"
    assert [path.name for path in runs.iterdir()] == ["digits-1"]
    assert (runs / "digits-1/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert (runs / "digits-1/trials/3/checkpoint/epoch.txt").read_text() == "17"
    assert not [*runs.rglob("checkpoint.*")]


@pytest.mark.slow
def test_up_is_finished_whatever_it_dies_of(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = start_lab(hosts=2)
    for host in lab.hosts:
        forget_builds(host)
    site, file = Site(lab, tmp_path), tmp_path / "struck"
    for case in DRAFTS:
        site.configure()
        rename(site, case.point.replace(".", "-"))
        strike(case, ("infra", "up"), site.workspace, site.environment, file)
        assert "steps on 2 hosts" in site.sweepfw("infra", "up", "--dry-run")
    site.configure()
    for case in UP:
        strike(case, ("infra", "up"), site.workspace, site.environment, file)
        if case.point == "up.configured":
            killed_at_work(site)
    assert "t is up: head on host1" in site.sweepfw("infra", "up")
    assert "nothing to do" in site.sweepfw("infra", "up")
    assert {host.name: set(containers(host)) for host in lab.hosts} == ROLES
    work(site)
    site.configure("[host1]")
    elsewhere = site.folder / "elsewhere"
    (elsewhere / ".sweepfw").mkdir(parents=True, mode=0o700)
    for case in LATER:
        words = (*case.verb.split(), *(("--on", "t") * ("up" not in case.verb)))
        cwd = elsewhere if "pull" in words else site.workspace
        strike(case, words, cwd, site.environment, file)
        if case.after:
            again(words, cwd, site.environment)
        if case.point == "up.taken-off":
            assert left(lab["host2"]) == ""
            assert set(containers(lab["host1"])) == ROLES["host1"] - {"tunnel"}
    assert len([*elsewhere.rglob("files/big")]) == 2
    again(("infra", "down", "--yes", "--outputs", "none", "--on", "t"), site.workspace, site.environment)
    assert left(lab["host1"]) == ""


def killed_at_work(site: Site) -> None:
    """`infra up`, killed at some moment of its first seconds of work: it builds, and copies nothing yet."""
    moment = random.uniform(0, 8)
    print(f"killed {moment:.1f} s after its steps were told")
    process = site.start("infra", "up")
    try:
        assert process.stdout
        while line := process.stdout.readline():
            if "start worker" in line:
                break
        time.sleep(moment)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


LEFT = """
docker ps -aq --filter label=sweepfw.deployment
docker volume ls -q
docker network ls -q --filter label=sweepfw.deployment
grep sweepfw: /home/lab/.ssh/authorized_keys
ls -A /home/lab/.sweepfw 2>/dev/null
ls -d /dev/shm/sweepfw* 2>/dev/null
"""


def left(host: Host) -> str:
    """What is still there of a deployment."""
    return host.run(["sh", "-c", LEFT], check=False).stdout


def again(words: tuple[str, ...], cwd: Path, environment: Mapping[str, str]) -> None:
    """The same once more, to its end."""
    command = [sys.executable, "-m", "sweepfw", *words]
    subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=600)


def work(site: Site) -> None:
    """Two trials with files that are too large for the head."""
    folder = site.workspace / "projects/p"
    folder.mkdir(parents=True)
    (folder / "project.yml").write_text(
        "command: [sh, -c, 'head -c 11000000 /dev/zero > $SWEEPFW_OUTPUT/big']\n"
    )
    (folder / "parameters.yml").write_text("i: [1, 2]\n")
    site.sweepfw("run", "p", "--on", "t", "-q")


def rename(site: Site, name: str) -> None:
    site.config.write_text(site.config.read_text().replace("name: t\n", f"name: {name}\n"))
