"""What sweepfw costs around the trials: start-up, first trial, exit, memory, expansion, submission, queries.

    python benchmarks/startup.py [--rounds 10] [--trials 10000] [--folder DIR]

Times stand beside a bare `python3 -c pass` of the same Python in the same round: a slow or busy machine
slows both. The goals are those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import HERE, QUIET, SWEEPFW, compiled, machine, make_project, seconds, spread

BARE = (sys.executable, "-c", "pass")
GRID = "\n".join(f"{name}: !!python/tuple [0, {{}}]" for name in "abc") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=10_000, help="of the sweep that ls and show look at")
    parser.add_argument("--folder", type=Path, help="where to work (default: $TMPDIR)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="sweepfw-bench-") as made:
        folder = Path(made)
        print(machine(folder))
        print(f"{options.rounds} rounds; ms, and times `python3 -c pass` in the same round\n")
        print(f"{'':30}{'min ms':>9}  {'median':>9}  {'max':>9}   median ratio   goal")
        commands(options.rounds)
        first_and_last(folder / "first", options.rounds)
        print()
        memory(folder / "memory")
        inner(folder, "expand", 100, "10^6 combinations expanded", "under 1 s, flat memory")
        inner(folder, "submit", 0, "100,000 trials submitted", "under 3 s")
        queries(folder / "queries", options.trials, options.rounds)


def row(what: str, values: list[float], bare: list[float], goal: str) -> None:
    ratio = statistics.median(value / base for value, base in zip(values, bare, strict=True))
    print(f"{what:30}{spread([1000 * each for each in values], '{:.1f}')}   {ratio:9.1f} x    {goal}")


def commands(rounds: int) -> None:
    """`--help` and `--version`, beside the bare interpreter."""
    asked = {"sweepfw --help": "--help", "sweepfw --version": "--version"}
    bare, taken = [], {name: [] for name in asked}
    for _ in range(rounds):
        bare.append(seconds(BARE))
        for name, option in asked.items():
            taken[name].append(seconds([*SWEEPFW, option]))
    row("python3 -c pass", bare, bare, "")
    for name, values in taken.items():
        row(name, values, bare, "under 100 ms")


def first_and_last(place: Path, rounds: int) -> None:
    """From the command to the first line of the first trial's code, and from the last trial's to the exit."""
    place.mkdir()
    witness = place / "stamps"
    stamp = compiled("stamp", place)
    make_project(place, "first", f"command: [{stamp}, {witness}]\n", "i: !!python/tuple [0, 8]\n")
    bare, first, last = [], [], []
    for _ in range(rounds):
        bare.append(seconds(BARE))
        witness.unlink(missing_ok=True)
        begun = time.monotonic()
        seconds([*SWEEPFW, "run", "first", "-j", "2", "--quiet"], cwd=place)
        ended = time.monotonic()
        stamps = [int(line) / 1e9 for line in witness.read_text().split()]
        first.append(min(stamps) - begun)
        last.append(ended - max(stamps))
    row("run: to the first trial", first, bare, "at most 12 x")
    row("run: from the last to the exit", last, bare, "at most 5 x")


def memory(place: Path) -> None:
    """The most that all our processes took (PSS, trials left out), for few trials and for many."""
    place.mkdir()
    make_project(place, "memory", "command: [/bin/sleep, '0.0{i}']\n", "i: 1\n")
    for trials in (100, 2000):
        command = [
            *SWEEPFW,
            "run",
            "memory",
            "-j",
            "2",
            "--quiet",
            "--set",
            f"i=!!python/tuple [1000, {1000 + trials}]",
        ]
        running = subprocess.Popen(command, cwd=place, **QUIET)
        most = 0.0
        while running.poll() is None:
            most = max(most, sum(map(pss, ours(running.pid))))
            time.sleep(0.05)
        print(f"{f'PSS at most, {trials:,} trials':30}{most:9.1f} MB{'':31}at most 40 MB, flat")


def ours(pid: int) -> Iterator[int]:
    """The process and its descendants, but the trials (`sleep`)."""
    try:
        if Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
            return
        children = " ".join(each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return  # it just ended
    yield pid
    for child in children.split():
        yield from ours(int(child))


def pss(pid: int) -> float:
    """Its proportional share of memory, in MB; 0 where it ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0)


def inner(folder: Path, part: str, side: int, what: str, goal: str) -> None:
    """What inner.py measures in a process of its own."""
    place = folder / part
    parameters = GRID.replace("{}", str(side)) if side else "a: !!python/tuple [0, 100000]\n"
    make_project(place, part, "command: [/bin/true]\n", parameters)
    done = subprocess.run(
        [sys.executable, HERE / "inner.py", part, place], check=True, capture_output=True, text=True
    )
    said = json.loads(done.stdout)
    print(f"{what:30}{said['seconds']:9.2f} s, {said['grown_mb']:.0f} MB more{'':21}{goal}")


def queries(place: Path, trials: int, rounds: int) -> None:
    """`ls` and `show` beside a sweep of many trials that all reported a metric."""
    place.mkdir()
    project = (
        "command: [/bin/echo, 'loss=0.{i}']\nmetrics: [loss]\nobjective: {metric: loss, goal: minimize}\n"
    )
    make_project(place, "many", project, f"i: !!python/tuple [0, {trials}]\n")
    spent = seconds([*SWEEPFW, "run", "many", "-j", "2", "--quiet"], cwd=place)
    print(f"{f'{trials:,} trials run':30}{spent:9.1f} s")
    asked: dict[str, Callable[[], float]] = {
        "ls": lambda: seconds([*SWEEPFW, "ls"], cwd=place),
        "show": lambda: seconds([*SWEEPFW, "show", "many-1"], cwd=place),
        "best": lambda: seconds([*SWEEPFW, "best", "many-1"], cwd=place),
    }
    bare, taken = [], {name: [] for name in asked}
    for _ in range(rounds):
        bare.append(seconds(BARE))
        for name, ask in asked.items():
            taken[name].append(ask())
    for name, values in taken.items():
        row(f"{name}, {trials:,} trials", values, bare, "under 300 ms" if name != "best" else "")


if __name__ == "__main__":
    main()
