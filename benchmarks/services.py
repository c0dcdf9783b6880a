"""What a trial costs a deployment's services, beside a plain Celery task on the same broker, part by part.

    python benchmarks/services.py [--trials 1000] [--slots 8] [--rounds 5] [--folder DIR] [--quick]

Broker, head and worker are processes of this machine, without containers and tunnel (cluster.py measures
those). Each round runs the plain tasks and the sweep in turn: the same command with a line of output. Of a
plain task nothing is kept; sweepfw keeps output, exit code, outcome and parameters at the head, in a ledger
that survives a crash. CPU is counted too: other work on the machine disturbs it less than the clock.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import plain
from deployment import (
    TRIAL,
    TRIVIAL,
    Deployment,
    MissingBrokerError,
    broker_cpu,
    children,
    direct,
    drafts,
    own,
    running,
)
from measure import machine, spread

from sweepfw.core.broker import VHOST
from sweepfw.core.model import Attempt, Spec

PARTS = ("worker", "keepers", "head", "broker", "trials")
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work (default: $TMPDIR)")
    parser.add_argument("--quick", action="store_true", help="only the cost of a trial")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="sweepfw-bench-") as made:
        folder = Path(made)
        print(machine(folder))
        try:
            with running(folder, options.slots) as deployment:
                compare(deployment, options.trials, options.rounds)
                if not options.quick:
                    refill(deployment)
                    large(deployment)
        except MissingBrokerError as error:
            sys.exit(str(error))


# -- a trial, beside a plain task ----------------------------------------------------------------------


def compare(deployment: Deployment, trials: int, rounds: int) -> None:
    """A small round to warm up, then in turn."""
    taken: dict[str, list[float]] = {"plain Celery": [], "sweepfw": []}
    used: dict[str, list[dict[str, float]]] = {"plain Celery": [], "sweepfw": []}
    with plain_tasks(deployment) as run_plain:
        runs = {"plain Celery": run_plain, "sweepfw": lambda count: run_sweep(deployment, count)}
        for turn in range(-1, rounds):
            for name, run in runs.items():
                seconds, cpu = run(trials if turn >= 0 else 100)
                if turn >= 0:
                    taken[name].append(seconds / trials * 1000)
                    used[name].append({part: spent / trials * 1000 for part, spent in cpu.items()})
    show(taken, used, f"{trials} trivial trials, {deployment.slots} slots, {rounds} rounds; ms a trial")


def show(taken: dict[str, list[float]], used: dict[str, list[dict[str, float]]], what: str) -> None:
    parts = " ".join(part.rjust(8) for part in PARTS)
    print(f"\n{what}\n\n{'':14}{'min':>9}  {'median':>9}  {'max':>9}    CPU: {parts}")
    for name, values in taken.items():
        shares = [statistics.median(each.get(part, 0) for each in used[name]) for part in PARTS]
        print(f"{name:14}{spread(values)}         " + " ".join(f"{share:8.2f}" for share in shares))
    ratios = [ours / theirs for ours, theirs in zip(taken["sweepfw"], taken["plain Celery"], strict=True)]
    print(f"{'times plain':14}{spread(ratios)}", flush=True)


def run_sweep(deployment: Deployment, trials: int) -> tuple[float, dict[str, float]]:
    """Seconds from the submission to the last end, and the CPU of each part."""
    before, begun = deployment.cpu(), time.time()
    sweep = deployment.submit(trials)
    deployment.wait(sweep)
    last = max(attempt.ended or 0 for attempt in deployment.ledger.attempts(sweep.uid))
    time.sleep(0.1)  # the worker hears of the last ones
    return last - begun, {part: spent - before[part] for part, spent in deployment.cpu().items()}


@contextmanager
def plain_tasks(deployment: Deployment) -> Iterator[Callable[[int], tuple[float, dict[str, float]]]]:
    """Runs so many plain tasks in a worker of their own."""
    broker = deployment.broker
    broker.ctl("add_user", "plain", "plain-secret")
    broker.ctl("set_permissions", "-p", VHOST, "plain", ".*", ".*", ".*")
    broker.passwords["plain"] = "plain-secret"
    address = direct(broker, "plain")
    command = [sys.executable, plain.__file__, address, str(deployment.slots)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = worker.stdout
    assert told is not None

    def run(tasks: int) -> tuple[float, dict[str, float]]:
        """By the hundred: it tells of each."""
        before, begun = _used(worker.pid, deployment), time.time()
        plain.publish(address, TRIAL, tasks)
        for _ in range(tasks // 100):
            told.readline()
        seconds, after = time.time() - begun, _used(worker.pid, deployment)
        return seconds, {part: spent - before[part] for part, spent in after.items()}

    try:
        yield run
    finally:
        worker.terminate()
        worker.wait()


def _used(worker: int, deployment: Deployment) -> dict[str, float]:
    return {"worker": own(worker), "broker": broker_cpu(deployment.broker), "trials": children(worker)}


# -- the rest ------------------------------------------------------------------------------------------


def refill(deployment: Deployment, trials: int = 100) -> None:
    """How long a slot is free between two trials that take a moment."""
    sweep = deployment.submit(trials, Spec("p", "t", ("sh", "-c", "sleep 0.2")))
    deployment.wait(sweep)
    gaps = [gap * 1000 for gap in gaps_between(list(deployment.ledger.attempts(sweep.uid)))]
    told = f"(min, median, max; {trials} trials of 0.2 s)"
    print(f"\nfree slot refilled, ms: {spread(gaps, '{:.1f}')}   {told}")


def gaps_between(attempts: Sequence[Attempt]) -> list[float]:
    """Seconds from each attempt's end to the next one's grant on the same slot."""
    slots: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda each: each.started):
        slots.setdefault(attempt.slot, []).append(attempt)
    return [late.started - (early.ended or 0) for each in slots.values() for early, late in pairwise(each)]


def large(deployment: Deployment) -> None:
    """Many trials at the head, while nobody runs any."""
    deployment.end("worker")
    ledger, desk = deployment.ledger, deployment.desk
    ten = deployment.submit(10_000)
    ledger.stop(ten.uid)
    print()
    timed("all sweeps (ls), one of 10,000", ledger.sweeps)
    timed("10,000 trials (show)", lambda: list(ledger.trials(ten.uid)))
    timed("status (infra status)", desk.status)
    many = timed("100,000 trials submitted", lambda: ledger.submit(TRIVIAL, "", drafts(100_000)), 1)
    timed("extended by 1 to 100,001", lambda: ledger.extend(many.uid, TRIVIAL, drafts(100_001)), 1)


def timed(what: str, act: Callable[[], T], times: int = 5) -> T:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        found = act()
        taken.append(time.perf_counter() - begun)
    print(f"{what:34} {statistics.median(taken):8.3f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
