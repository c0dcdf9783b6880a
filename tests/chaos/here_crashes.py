"""Faults that name the step: a command line or a keeper kills itself between two durable writes."""

from __future__ import annotations

import runpy
import shutil
import signal
import time
from errno import ENOSPC

from here_scene import Scene
from here_world import REPOSITORY
from schedule import Fault

REACHED = 10.0  # seconds for a run to come to the point; then it is killed there where it is
# Points that a run passes, and those of a submit, of a commit, of each trial.
RUN = ("claim.", "attempt.", "keeper.", "finish.", "recover.", "close.", "session.", "run.opened", "run.held")
SUBMIT = ("snapshot.", "submit.", "run.", "record.")
COMMIT = ("claim.rows", "finish.rows")
END = ("close.", "session.")  # a run that is told to end passes these
OFTEN = ("claim.", "attempt.", "keeper.", "finish.")


def crash(scene: Scene, fault: Fault) -> tuple[str, str]:
    return _crash(scene, fault, RUN)


def commit(scene: Scene, fault: Fault) -> tuple[str, str]:
    return _crash(scene, fault, COMMIT)


def _crash(scene: Scene, fault: Fault, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """The run is ended, and goes on as one that will die at the point."""
    point = _point(fault, prefixes)
    since = time.monotonic()
    died = scene.world.root / f"crashed-{since}"
    scene.world.let_go()
    scene.resume(SWEEPFW_CRASH=f"{point}:{died}")
    starts, asked = scene.world.starts(), not point.startswith(END)
    deadline = time.monotonic() + REACHED
    while time.monotonic() < deadline and not died.exists() and scene.ended(0) is None:
        if not asked and scene.world.starts() > starts and scene.world.run:
            asked = True
            scene.world.run.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    reached = died.exists()
    if not point.startswith("keeper."):
        if reached:
            scene.ended(30)
        scene.world.let_go()
    elif not reached:
        scene.world.let_go()
    scene.hit(fault.kind, since, time.monotonic() + 0.5)
    scene.died()
    return point, "killed there" if reached else "not reached; killed"


def _make(scene: Scene, name: str, seed: int) -> None:
    """The project, once a trial that fills the disk leaves room for it."""
    deadline = time.monotonic() + REACHED
    while True:
        try:
            return scene.side_project(name, seed)
        except OSError as error:
            if error.errno != ENOSPC or time.monotonic() > deadline:
                raise
        shutil.rmtree(scene.world.workspace / "projects" / name, ignore_errors=True)
        time.sleep(0.1)


def submit(scene: Scene, fault: Fault) -> tuple[str, str]:
    """A second sweep, of a project that was never frozen before, killed at a step, or at any moment."""
    name = f"side{len(scene.strikes)}"
    _make(scene, name, fault.target)
    point = _point(fault, SUBMIT) if fault.target % 3 else ""
    since = time.monotonic()
    died = scene.world.root / f"crashed-{since}"
    more = {"SWEEPFW_CRASH": f"{point}:{died}"} if point else {}
    line = scene.world.spawn("run", name, "-q", "-j", "1", **more)
    deadline = time.monotonic() + (REACHED if point else fault.detail)
    while time.monotonic() < deadline and line.alive:
        time.sleep(0.01)
    line.process.kill()
    scene.world.end(line)
    scene.hit(fault.kind, since, sweep=f"{name}-1")
    known = any(each["sweep"] == f"{name}-1" for each in scene.world.sweeps())
    where = point or f"after {fault.detail:.2f} s"
    return where, "the sweep is there" if known else "there is no sweep"


def _point(fault: Fault, prefixes: tuple[str, ...]) -> str:
    points = runpy.run_path(str(REPOSITORY / "sweepfw/crash.py"))["POINTS"]
    names = [name for name in points if name.startswith(prefixes)]
    name = names[fault.target % len(names)]
    passes = 1 + int(fault.detail * 8) if name.startswith(OFTEN) else 1
    return f"{name}:{passes}"
