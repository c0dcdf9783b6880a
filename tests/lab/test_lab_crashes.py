"""`infra up`, `pull` and `infra down`, killed at every point of a crash: the same again finishes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from crash_cases import DOWN, DRAFTS, LATER, UP, Case
from lab import Lab
from lab_host import Host
from lab_site import Site, containers
from test_lab_down import MODEL, Handmade, fill, handmade

from sweepfw import crash
from sweepfw.core.deployment import Host as Former

__all__ = ["handmade"]

NETWORK = "left-behind"
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
        timeout=280,
    )
    assert done.returncode == -9 and file.exists(), (case, done.returncode, done.stdout, done.stderr)
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
@pytest.mark.timeout(600)
def test_up_is_finished_whatever_it_dies_of(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = start_lab(hosts=2)
    site, file = Site(lab, tmp_path), tmp_path / "struck"
    for case in DRAFTS:
        site.configure("[host1]")
        rename(site, case.point.replace(".", "-"))
        strike(case, ("infra", "up"), site.workspace, site.environment, file)
        assert "steps on 1 host" in site.sweepfw("infra", "up", "--dry-run")
    site.configure("[host1]")
    for case in UP:
        strike(case, ("infra", "up"), site.workspace, site.environment, file)
    assert "t is up: head on host1" in site.sweepfw("infra", "up")
    assert "nothing to do" in site.sweepfw("infra", "up")
    assert set(containers(lab["host1"])) == {"rabbitmq", "head", "flower", "worker"}
    add_former(site, lab["host2"])
    work(site)
    elsewhere = site.folder / "elsewhere"
    (elsewhere / ".sweepfw").mkdir(parents=True, mode=0o700)
    for case in LATER:
        words = (*case.verb.split(), *(("--on", "t") * ("up" not in case.verb)))
        cwd = elsewhere if "pull" in words else site.workspace
        strike(case, words, cwd, site.environment, file)
        if case.after:
            again(words, cwd, site.environment)
    assert len([*elsewhere.rglob("files/big")]) == 2
    assert NETWORK not in lab["host2"].run(["docker", "network", "ls"]).stdout
    again(("infra", "down", "--yes", "--outputs", "none", "--on", "t"), site.workspace, site.environment)
    assert containers(lab["host1"]) == {}
    assert "sweepfw:" not in lab["host1"].read("/home/lab/.ssh/authorized_keys")
    assert lab["host1"].run(["ls", "-A", "/home/lab/.sweepfw"], check=False).stdout == ""


def again(words: tuple[str, ...], cwd: Path, environment: Mapping[str, str]) -> None:
    """The same once more, to its end."""
    command = [sys.executable, "-m", "sweepfw", *words]
    subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=280)


def add_former(site: Site, host: Host) -> None:
    """A host that was of the deployment, and still holds a network of it."""
    state = site.state
    host.run(["docker", "network", "create", "--label", f"sweepfw.deployment={state.uid}", NETWORK])
    state.records[host.name] = replace(
        state.records["host1"], machine_id=host.read("/etc/machine-id").strip()
    )
    state.former = (Former(host.name, host.name),)
    state.save()


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
