"""What a worker has of sweeps: of a sweep's secrets one copy, which serves all its snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Spec, Sweep
from sweepfw.core.secrets import Need, Secrets
from sweepfw.engine.stores import Stores
from sweepfw.trial import secrets
from sweepfw.trial.attempt import Job

SPEC = Spec("p", "t", ("true",), secrets=(Need("KEY", "env"),))
OLD, NEW = Secrets({"KEY": b"hunter22"}), Secrets({"KEY": b"hunter23"})


class World:
    """A worker's stores, with two snapshots of a project that are here already."""

    def __init__(self, root: Path) -> None:
        place = Workspace(root / "workspace")
        place.root.mkdir()
        place.prepare()
        project = root / "project"
        project.mkdir()
        self.snapshots = []
        for text in ("first", "second"):
            (project / "file").write_text(text)
            self.snapshots.append(snapshots.freeze(project, place.snapshots, 10**6).id)
        nobody: Any = None  # nothing is asked of the head
        self.stores = Stores(place, nobody, nobody, {"PATH": os.environ["PATH"]}, lambda _: None)
        self.sweep = Sweep("uid", "p-1", SPEC, self.snapshots[0], "running", 0)

    def job(self, snapshot: int, values: Secrets) -> Job:
        return self.stores.job(self.sweep, self.snapshots[snapshot], lambda: False, values)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def key(job: Job) -> bytes:
    assert job.setup.secrets
    return job.setup.secrets.variables["KEY"]


def test_what_is_hidden_is_found_and_kept_once(world: World) -> None:
    """Keepers are told anew of a setup that is another object."""
    first, second = world.job(0, OLD), world.job(1, OLD)
    assert first.setup.secrets is second.setup.secrets
    assert world.job(0, Secrets(OLD)).setup is first.setup
    assert world.job(1, Secrets(OLD)).setup is second.setup


def test_everybody_gets_what_he_brought(world: World) -> None:
    assert [key(world.job(snapshot, OLD)) for snapshot in (0, 1)] == [b"hunter22"] * 2
    assert [key(world.job(snapshot, NEW)) for snapshot in (0, 1)] == [b"hunter23"] * 2
    assert key(world.job(0, OLD)) == b"hunter22"


def test_nobody_else_waits_while_what_is_hidden_is_sought(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large files that takes long."""
    seeking, go = Event(), Event()
    hidden: Callable[..., Any] = secrets.hidden

    def slow(*args: Any) -> Any:
        if args[1] == NEW:
            seeking.set()
            assert go.wait(150)
        return hidden(*args)

    world.job(0, OLD)
    for module in ("sweepfw.trial.secrets", "sweepfw.engine.stores", "sweepfw.engine.jobs"):
        monkeypatch.setattr(f"{module}.hidden", slow, raising=False)
    thread = Thread(target=world.job, args=(0, NEW))
    thread.start()
    try:
        assert seeking.wait(60)
        open_sweep = world.sweep._replace(uid="other", name="p-2", spec=Spec("p", "t", ("true",)))
        others = Thread(target=world.stores.job, args=(open_sweep, world.snapshots[0], lambda: False))
        others.start()
        others.join(60)
        assert not others.is_alive()
    finally:
        go.set()
        thread.join()
