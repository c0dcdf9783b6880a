"""What a trial costs: the same trivial trials in a C loop, xargs, task-spooler, GNU parallel and sweepfw.

    python benchmarks/trials.py [--trials 1000] [--slots 2] [--rounds 5] [--folder DIR]

Each round runs all of them in turn, and each is divided by the C loop of its own round. What a peer keeps
of a trial differs: the C loop and xargs nothing, GNU parallel its output in passing, task-spooler output and
exit code until its server ends, sweepfw output, exit code, outcome and a durable ledger.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import SWEEPFW, compiled, machine, make_project, seconds, spread

TRIAL = "/bin/echo"
Run = Callable[[Path], float]  # an empty folder -> seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work: this disk is measured (default: $TMPDIR)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(
        dir=options.folder, prefix="sweepfw-bench-", ignore_cleanup_errors=True
    ) as made:
        folder = Path(made)
        runs = peers(folder, options.trials, options.slots)
        print(machine(folder))
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(options.rounds):
            for name, run in runs.items():
                place = folder / f"{turn}-{name.replace(' ', '-')}"
                place.mkdir()
                taken[name].append(run(place))
                shutil.rmtree(place, ignore_errors=True)  # task-spooler's processes end a moment later
    show(taken, options.trials, options.slots, options.rounds)


def show(taken: dict[str, list[float]], trials: int, slots: int, rounds: int) -> None:
    print(f"{trials} trials, {slots} slots, {rounds} rounds; times the C loop of the same round\n")
    print(f"{'':14}{'min':>9}  {'median':>9}  {'max':>9}     ms a trial")
    for name, values in taken.items():
        ratios = [value / yardstick for value, yardstick in zip(values, taken["C loop"], strict=True)]
        print(f"{name:14}{spread(ratios)}  {statistics.median(values) / trials * 1000:13.3f}")


def peers(folder: Path, trials: int, slots: int) -> dict[str, Run]:
    """Who takes part here, in their order; who is missing is named, with how to install it."""
    loop = compiled("loop", folder)
    numbers = folder / "numbers"
    numbers.write_text("".join(f"--i={number}\n" for number in range(trials)))
    runs: dict[str, Run] = {"C loop": lambda _: seconds([loop, str(trials), str(slots), TRIAL])}
    if shutil.which("xargs"):
        runs["xargs"] = lambda _: seconds(
            ["xargs", "-a", str(numbers), "-n", "1", "-P", str(slots), TRIAL], stdin=subprocess.DEVNULL
        )
    tsp = shutil.which("tsp") or shutil.which("ts")
    if tsp and b"Task Spooler" in subprocess.run([tsp, "-V"], capture_output=True, check=False).stdout:
        runs["task-spooler"] = lambda place: spool(tsp, place, trials, slots)
    else:
        print("task-spooler is missing (Debian, Ubuntu: apt install task-spooler)", file=sys.stderr)
    if shutil.which("parallel"):
        command = ["parallel", "--will-cite", "-j", str(slots), "-a", str(numbers), TRIAL]
        runs["GNU parallel"] = lambda place: seconds(command, env={**os.environ, "HOME": str(place)})
    else:
        print("GNU parallel is missing (Debian, Ubuntu: apt install parallel)", file=sys.stderr)
    runs["sweepfw"] = lambda place: sweep(place, trials, slots)
    return runs


def spool(tsp: str, place: Path, trials: int, slots: int) -> float:
    """Queue each trial as its manual shows, from a shell's loop, and wait for all of them."""
    world = {**os.environ, "TS_SOCKET": str(place / "socket"), "TMPDIR": str(place), "TS_SLOTS": str(slots)}
    world["TS_MAXFINISHED"] = str(trials)
    # The last to end is among the last that were queued, one for each slot.
    script = f"""
        i=0
        while [ $i -lt {trials} ]; do {tsp} {TRIAL} --i=$i; i=$((i + 1)); done >/dev/null
        i={max(trials - slots, 0)}
        while [ $i -lt {trials} ]; do {tsp} -w $i; i=$((i + 1)); done
    """
    try:
        return seconds(["sh", "-c", script], env=world)
    finally:
        subprocess.run([tsp, "-K"], env=world, check=False)


def sweep(place: Path, trials: int, slots: int) -> float:
    """`sweepfw run` in a new workspace, from the command to its end; exit code 0: all succeeded."""
    make_project(place, "trivial", f"command: [{TRIAL}]\n", f"i: !!python/tuple [0, {trials}]\n")
    return seconds([*SWEEPFW, "run", "trivial", "-j", str(slots), "--quiet"], cwd=place)


if __name__ == "__main__":
    main()
