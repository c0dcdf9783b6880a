"""scripts/chaos here: a sweep on this machine, under faults."""

from __future__ import annotations

import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import cases
import here_faults
import invariants
import schedule
from here_scene import NO_ROOM, Scene
from here_world import Sampler, World, lives
from report import Report, chosen, kinds_text, parser

JOBS = 3
USUAL = 10.0  # seconds of a hundred trials on JOBS slots, with nothing else
EACH = 2.0  # seconds that a fault takes
ROOM = 30_000_000  # bytes of the workspace's disk, and so many more a trial: a `disk` trial fills it
ROOM_EACH = 100_000


def main(arguments: list[str] | None = None) -> int:
    made = parser("here", here_faults.KINDS, seconds=USUAL)
    made.add_argument("--jobs", "-j", type=int, default=JOBS, help=f"slots [default: {JOBS}]")
    words = sys.argv[1:] if arguments is None else arguments
    options = made.parse_args(words)
    if options.list:
        print(kinds_text(here_faults.KINDS), end="")
        return 0
    if options.seed is None:
        options.seed = random.randrange(10**6)
        words = [*words, "--seed", str(options.seed)]
    report = run(options, words)
    print(report.text())
    if options.report:
        report.write(options.report)
    return bool(report.breaches)


def run(options: Namespace, words: list[str]) -> Report:
    """The whole of it; the report."""
    report = Report("here", options.seed, options.trials, words)
    for ignored in (signal.SIGINT, signal.SIGHUP):  # as who starts us in the background may have it
        if signal.getsignal(ignored) == signal.SIG_IGN:
            signal.signal(ignored, signal.SIG_DFL)
    began = time.monotonic()
    world = World(options.jobs, ROOM + ROOM_EACH * options.trials)
    try:
        kinds = _possible(world, chosen(here_faults.KINDS, options.kinds), report)
        scene = _play(world, options, kinds)
        report.strikes = scene.strikes
        report.breaches = _judged(world, scene, report)
    finally:
        world.close(options.keep)
    if options.keep:
        report.notes.append(f"its workspace: {world.workspace}")
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _possible(world: World, kinds: list[str], report: Report) -> list[str]:
    """Without what this machine does not let us do; the report says what that is."""
    if "full" in kinds and not world.mounted:
        kinds.remove("full")
        report.notes.append("left out: full (this machine lets us mount no disk)")
    if "clock" in kinds and not _make_clock(world):
        kinds.remove("clock")
        report.notes.append("left out: clock (no C compiler)")
    return kinds


def _make_clock(world: World) -> bool:
    library, source = world.root / "clock.so", Path(__file__).with_name("clock.c")
    if not shutil.which("cc"):
        return False
    done = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], capture_output=True)
    if done.returncode:
        return False
    here_faults.set_clock(world.root / "clock", 0)
    world.env |= {"CHAOS_CLOCK": str(world.root / "clock"), "LD_PRELOAD": str(library)}
    return True


def _play(world: World, options: Namespace, kinds: list[str]) -> Scene:
    seconds = options.seconds or max(USUAL * options.trials / 100, EACH * options.faults)
    mean = seconds * options.jobs / options.trials
    dealt = cases.deal(options.seed, options.trials, seconds=(0.1 * mean, 1.9 * mean))
    world.project("chaos", dealt)
    # Faults strike by how many trials have begun, not by the clock: so they find a sweep on any machine.
    faults = schedule.plan(options.seed, kinds, options.faults, 0.9 * options.trials)
    scene, sampler = Scene(world, "chaos-1"), Sampler(world)
    world.start("run", "chaos", "-q", "-j", str(options.jobs))
    scene.wait_for(1)
    sampler.start()
    for fault in faults:
        scene.wait_for(fault.at)
        here_faults.strike(scene, fault)
    scene.finish()
    scene.samples = sampler.end()
    return scene


def _judged(world: World, scene: Scene, report: Report) -> list[invariants.Breach]:
    """What witnesses, ledger and disk say, held against one another."""
    left = world.leftovers()  # before witnesses are heard: what was not ended by then has told so itself
    told, sweeps = lives(world), [world.show(one["sweep"]) for one in world.sweeps()]
    for life in told:
        if life.kind == "disk":  # it filled the disk of all; one that was killed, until its next attempt
            again = (one.started for one in told if one.key == (*life.key[:2], life.attempt + 1))
            until = life.ended or next(again, float("inf"))
            scene.struck.append(invariants.Struck("disk", life.started, until + NO_ROOM))
    story = scene.story(time.time() - time.monotonic())
    breaches = invariants.judge(told, sweeps, world.kept(), left, story)
    breaches += [invariants.Breach("commands", complaint) for complaint in world.complaints]
    ends = [
        attempt["state"] for sweep in sweeps for trial in sweep["trials"] for attempt in trial["attempts"]
    ]
    report.figures = {
        "sweeps": len(sweeps),
        "attempts": ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))),
        "witnesses": f"{len(told)} starts, {sum(life.ended is not None for life in told)} ends",
        "samples of `ls`": len(scene.samples),
    }
    after = [[life.started - death for life in told if life.started > death] for death in scene.deaths]
    if waits := [min(each) for each in after if each]:
        middle, worst = statistics.median(waits), max(waits)
        report.figures["trials start again after a death"] = f"{middle:.2f} s, at worst {worst:.2f} s"
    return breaches


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left of us either
    sys.exit(main())
