"""`infra down` of a deployment made by hand: what is ours comes home and goes; what is not ours stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab
from lab_handmade import CODE, ID, MODEL, SPEC, Handmade, fill
from lab_others import inventory, move_in, move_out

from sweepfw import snapshot
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Draft
from sweepfw.ledger.local import open_ledger


@pytest.fixture
def others(lab: Lab) -> Iterator[None]:
    """Others have things on the hosts."""
    move_in(lab)
    yield
    move_out(lab)


@pytest.mark.usefixtures("others")
def test_all_comes_home_and_all_goes_and_nothing_else(handmade: Handmade, tmp_path: Path) -> None:
    before = inventory(handmade.lab)
    fill(handmade, tmp_path)

    refused = handmade.sweepfw("infra", "down", "--yes")
    assert refused.returncode == 2, refused.stderr
    assert "--outputs all|best:N|none" in refused.stderr
    assert all(len(handmade.left(host)) > 5 for host in handmade.lab.hosts)

    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert [handmade.left(host) for host in handmade.lab.hosts] == [[], []]
    assert inventory(handmade.lab) == before
    assert not handmade.state.folder.exists()

    runs = handmade.workspace / "runs/digits-1"
    assert (runs / "trials/2/1/files/model.bin").read_bytes() == MODEL
    assert (runs / "trials/3/checkpoint/epoch.txt").read_text() == "17"
    assert not (runs / "trials/3/checkpoint.tar").exists()
    assert snapshot.read(handmade.workspace / ".sweepfw/snapshots", ID, "train.py") == CODE
    [sweep] = json.loads(handmade.sweepfw("ls", "--json").stdout)
    assert (sweep["sweep"], sweep["state"]) == ("digits-1", "queued")
    shown = json.loads(handmade.sweepfw("show", "digits-1", "--json").stdout)
    assert shown["counts"] == {"succeeded": 2, "queued": 2}
    assert shown["trials"][2]["attempts"][0]["state"] == "interrupted"
    assert handmade.sweepfw("logs", "digits-1/1").stdout == "hello from 1\n"
    assert "digits-1/2" in handmade.sweepfw("best", "digits-1").stdout.splitlines()[2]


def test_the_best_alone(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "best:1")
    assert done.returncode == 0, done.stderr
    found = [path.parts[-3] for path in (handmade.workspace / "runs").rglob("model.bin")]
    assert [
        path.relative_to(handmade.workspace).parts[3] for path in handmade.workspace.rglob("model.bin")
    ] == ["2"]
    assert found


def test_a_host_out_of_reach_is_named_and_the_next_down_finishes(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    first, second = handmade.lab.hosts
    second.kill()
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 4, done.stderr
    assert "is not gone from host2" in done.stderr
    assert "digits-1/2: 1 of 1 output files, made on host2, can't be reached now" in done.stderr
    assert handmade.left(first) == []
    assert (handmade.workspace / "runs/digits-1/trials/2/1/output.log").exists()

    second.boot()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all", "--on", "hand", cwd=elsewhere)
    assert refused.returncode == 2
    assert str(handmade.workspace) in refused.stderr
    first.kill()  # it holds nothing any more, and is not missed
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert handmade.left(second) == []
    assert (handmade.workspace / "runs/digits-1/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert not handmade.state.folder.exists()


def test_a_name_that_another_sweep_has_here(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    ledger = open_ledger(Workspace(handmade.workspace), create=True)
    own = ledger.submit(SPEC, "s" * 24, [Draft({})])
    ledger.disconnect()
    assert own.name == "digits-1"
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert "came home: digits-1-hand" in done.stderr
    assert (handmade.workspace / "runs/digits-1-hand/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert handmade.sweepfw("logs", "digits-1-hand/1").stdout == "hello from 1\n"
    assert not (handmade.workspace / "runs/digits-1").exists()
