"""Chaos on a deployment of three hosts: a sweep runs there while faults strike, then all is judged.

A person follows the sweep, and does what a person does: looks again when the connection is lost, and types
`infra up` when something is missing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cluster_evidence as evidence
import report
import witness
from cluster_bed import Bed, made
from cluster_restarts import kill_often, lose_ssh
from cluster_scene import Options, Scene
from invariants import Breach, Story, judge
from lab_watch import until

Told = Mapping[str, Any]  # what `show --json` prints of a sweep


def run(options: Options, folder: Path, say: Callable[[str], object] = print) -> report.Report:
    """All of it, in this folder. The lab is gone afterwards."""
    told = report.Report("lab", options.seed, options.trials, options.arguments)
    begun = time.monotonic()
    with made(folder, options.hosts) as bed:
        bed.patience = min(1.0, options.seconds / 300)
        chance = random.Random(options.seed + 2)
        told.notes += kill_often(bed, ("infra", "up"), options.restarts, 25, chance)
        if options.restarts:
            told.notes.append(lose_ssh(bed, ("infra", "up"), 15, chance))
        bed.site.sweepfw("infra", "up")
        say(f"{options.hosts} hosts and a deployment are up after {time.monotonic() - begun:.0f} s")
        with Scene(bed, options, say) as scene:
            scene.faults()
            scene.heal()
            scene.wait_for_the_end()
        seen = _there(bed, scene, folder)
        told.notes += _down(bed, chance, options.restarts)
        told.breaches += seen + [Breach("nothing left", what) for what in bed.remains()]
        told.breaches += _here(bed, scene, folder, told.breaches)
        told.breaches += [Breach("commands", what) for what in dict.fromkeys(bed.complaints)]
    _tell(told, scene)
    told.seconds = time.monotonic() - begun
    return told


def _there(bed: Bed, scene: Scene, folder: Path) -> list[Breach]:
    """What the deployment says and keeps, before it is taken down."""
    left = _strangers(bed)
    bed.keep_logs(folder / "logs")
    evidence.fetch(bed, folder / "head")  # before it is told: so a late result is known there
    names = sorted(sweep["sweep"] for sweep in bed.asked("ls") or [])
    scene.sweeps = [sweep for sweep in map(partial(bed.asked, "show"), names) if sweep]
    scene.lives = witness.read(folder / "head" / "witness")
    broken = [strike.broken for strike in scene.strikes if strike.broken]
    found = [Breach("what was seen", what) for what in (*broken, *scene.broken)]
    if "chaos-1" not in names or len(names) != len(scene.sweeps):
        found.append(Breach("lost", f"sweeps: {', '.join(names)}"))
    kept = evidence.kept(folder / "head" / "runs", scene.sweeps, home=False, gone=scene.gone)
    return found + judge(scene.lives, scene.sweeps, kept, left, _story(scene))


def _story(scene: Scene) -> Story:
    jumped = any(strike.kind == "clock" for strike in scene.strikes)
    return Story(
        struck=[*evidence.struck(scene.strikes, scene.lives), *evidence.stalled(scene.stalls)],
        samples=scene.samples,
        leases=True,
        wall=None if jumped else time.time() - time.monotonic(),
        may_fail=evidence.may_fail(scene.strikes, scene.lives, scene.sweeps),
        dealt=scene.dealt,
    )


def _strangers(bed: Bed) -> list[str]:
    """What still runs in workers' containers a minute after all: daemons that nobody ends live longer."""
    with suppress(AssertionError):
        until(lambda: not bed.strangers(), 60, "an end")
    return bed.strangers()


def _down(bed: Bed, chance: random.Random, restarts: int) -> list[str]:
    """Results home, all else gone; killed now and then on the way."""
    words = ("infra", "down", "--yes", "--outputs", "all")
    notes = kill_often(bed, words, restarts, 8, chance)
    if not any(note.endswith("exit 0") for note in notes):
        bed.site.sweepfw(*words)
    return notes


def _here(bed: Bed, scene: Scene, folder: Path, known: Sequence[Breach]) -> list[Breach]:
    """What was true on the deployment is true here afterwards, with all files."""
    names = [sweep["sweep"] for sweep in scene.sweeps]
    home = [sweep for sweep in (bed.asked("show", name, "--here", patience=60) for name in names) if sweep]
    after = {sweep["sweep"]: _facts(sweep) for sweep in home}
    found = [
        Breach("came home", "the ledger here tells something else than the head's did", sweep["sweep"])
        for sweep in scene.sweeps
        if _facts(sweep) != after.get(sweep["sweep"])
    ]
    kept = evidence.kept(bed.site.workspace / "runs", home, home=True, gone=scene.gone)
    again = judge(scene.lives, home, kept, (), replace(_story(scene), samples=()))
    return found + [
        each._replace(invariant=f"{each.invariant}, at home") for each in again if each not in known
    ]


def _facts(sweep: Told) -> object:
    """What does not change any more; but a lost attempt is stale as soon as its late result is there."""
    return sweep["counts"], [
        [
            trial["trial"],
            trial["state"],
            trial["metrics"],
            *((a["attempt"], "lost" if a["state"] == "stale" else a["state"]) for a in trial["attempts"]),
        ]
        for trial in sweep["trials"]
    ]


def _tell(told: report.Report, scene: Scene) -> None:
    told.strikes = [
        report.Strike(
            each.began - scene.begun,
            each.kind,
            each.host,
            f"{each.result} [{each.ended - each.began:.1f} s]",
            each.struck,
        )
        for each in scene.strikes
    ]
    struck = [each for each in scene.strikes if each.struck]
    told.figures = evidence.figures(struck, scene.lives, scene.sweeps)
    if scene.stalls:
        longest = max(until - since for since, until in scene.stalls)
        told.notes.append(f"this machine stood still {len(scene.stalls)} times, {longest:.1f} s at most")
    told.notes.append(f"the follower: {', '.join(scene.followed)}; {len(scene.samples)} looks")
