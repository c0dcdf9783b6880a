"""What a deployment costs, on the lab's hosts: a trial, a free slot, `up`, `run`, submission, lists.

    python benchmarks/cluster.py [--trials 2000] [--rounds 3]

Two hosts of four slots each, containers on this machine: so its CPUs are shared by everything, the
yardstick too. That is a plain Celery task that runs the same command by `subprocess`, on the same broker, in
a worker of eight threads with early acknowledgements and without results, in the same round.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from measure import HERE, machine, make_project, spread

sys.path.insert(0, str(HERE.parent / "tests" / "lab"))

from lab import Lab
from lab_host import Host
from lab_site import Site, containers

SLOTS = 4  # of each host
PLAIN = """
import os, signal, subprocess, sys, tempfile, time
from celery import Celery

N, BROKER = int(sys.argv[1]), sys.argv[2]
app = Celery("plain", broker=BROKER)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, task_default_queue="plain")
count = tempfile.NamedTemporaryFile()
mark = os.open(count.name, os.O_WRONLY | os.O_APPEND)

@app.task(name="plain.run")
def run(n):
    subprocess.run(["/bin/echo", f"--i={n}"], stdout=subprocess.DEVNULL, check=True)
    os.write(mark, b"x")

def wait(number):
    while os.stat(count.name).st_size < number:
        time.sleep(0.002)

if not (worker := os.fork()):
    os.dup2(2, 1)
    quiet = ["--without-gossip", "--without-mingle", "-l", "ERROR"]
    app.worker_main(["worker", "-P", "threads", "-c", "8", *quiet])
    os._exit(0)
run.delay(-1)
wait(1)
begun = time.perf_counter()
with app.connection_for_write() as connection:
    for n in range(N):
        run.apply_async((n,), connection=connection)
wait(N + 1)
print((time.perf_counter() - begun) / N * 1000, flush=True)
os.kill(worker, signal.SIGKILL)
os.waitpid(worker, 0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweepfw-bench-") as folder:
        print(machine(Path(folder)))
        lab = Lab.start(hosts=2)
        try:
            measure(Site(lab, Path(folder)), lab, options.trials, options.rounds)
        finally:
            lab.stop()


def measure(site: Site, lab: Lab, trials: int, rounds: int) -> None:
    site.configure(f"{{host1: {{slots: {SLOTS}}}, host2: {{slots: {SLOTS}}}}}")
    print(f"first up, image built and copied: {timed(site, 'infra', 'up', '--yes'):.1f} s")
    print(f"second up, nothing changed: {spread([timed(site, 'infra', 'up') for _ in range(rounds)])} s")
    cost(site, lab.hosts[0], trials, rounds)
    refill(site)
    unchanged(site, rounds)
    submission(site)
    lists(site, rounds)


def timed(site: Site, *words: str) -> float:
    begun = time.perf_counter()
    site.sweepfw(*words)
    return time.perf_counter() - begun


def attempts(site: Site, sweep: str) -> Iterator[dict[str, object]]:
    for trial in json.loads(site.sweepfw("show", sweep, "--json"))["trials"]:
        yield from trial["attempts"]


def cost(site: Site, head: Host, trials: int, rounds: int) -> None:
    """Per trivial trial, from the first start to the last end, beside the plain task in the same round."""
    make_project(site.workspace, "trivial", "command: [/bin/echo]\n", f"i: !!python/tuple [0, {trials}]\n")
    address = account(head)
    ours, plain = [], []
    for turn in range(1, rounds + 1):
        plain.append(plain_cost(head, address, trials))
        site.sweepfw("run", "trivial", "--quiet")
        times = list(attempts(site, f"trivial-{turn}"))
        last, first = max(float(a["ended"]) for a in times), min(float(a["started"]) for a in times)  # type: ignore[arg-type]
        ours.append((last - first) / trials * 1000)
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    print(f"\n{trials} trivial trials, {2 * SLOTS} slots, {rounds} rounds: least, median, most")
    print(f"{'plain Celery':16}{spread(plain)} ms")
    print(f"{'sweepfw':16}{spread(ours)} ms")
    print(f"{'times plain':16}{spread(ratios)}")


def account(head: Host) -> str:
    """An account at the deployment's broker that may do everything, as the yardstick needs."""
    broker = containers(head)["rabbitmq"][0]
    control = "c=/usr/lib/rabbitmq/bin/rabbitmqctl; [ -x $c ] || c=rabbitmqctl; $c -q -n rabbit@localhost"
    script = f"{control} add_user bench bench; {control} set_permissions -p sweepfw bench '.*' '.*' '.*'"
    head.run(["docker", "exec", "-e", "HOME=/var/lib/rabbitmq/home", broker, "sh", "-c", script])
    return "amqp://bench:bench@rabbitmq:5672/sweepfw"


def plain_cost(head: Host, address: str, trials: int) -> float:
    """Milliseconds of a plain Celery task with a subprocess, on the head's own network."""
    there = containers(head)["head"][0]
    python = ["docker", "exec", "-i", there, "/opt/sweepfw/bin/python", "-", str(trials), address]
    return float(head.run(python, stdin=PLAIN, seconds=600).stdout.split()[-1])


def refill(site: Site) -> None:
    """From a trial's end to the next one's start on the same slot."""
    make_project(site.workspace, "short", "command: [sleep, '0.3']\n", "i: !!python/tuple [0, 160]\n")
    (site.workspace / "projects/short/project.yml").write_text("command: [sh, -c, 'sleep 0.3', sh]\n")
    site.sweepfw("run", "short", "--quiet")
    slots: dict[tuple[object, object], list[tuple[float, float]]] = {}
    for each in attempts(site, "short-1"):
        span = float(each["started"]), float(each["ended"])  # type: ignore[arg-type]
        slots.setdefault((each["host"], each["slot"]), []).append(span)
    gaps = [
        (after[0] - before[1]) * 1000 for spans in slots.values() for before, after in pairwise(sorted(spans))
    ]
    print(f"\na free slot is refilled after: {spread(gaps, '{:.0f}')} ms (160 trials of 0.3 s)")


def unchanged(site: Site, rounds: int) -> None:
    """`run` of a project of 20 MB, the first time and again."""
    make_project(site.workspace, "heavy", "command: ['true']\n", "i: [1]\n")
    (site.workspace / "projects/heavy/data.bin").write_bytes(bytes(range(256)) * 80_000)
    first = timed(site, "run", "heavy", "--detach")
    again = [timed(site, "run", "heavy", "--detach") for _ in range(rounds)]
    print(f"run --detach, a project of 20 MB: first {first:.2f} s, unchanged {spread(again)} s")


def submission(site: Site) -> None:
    """100,000 trials; what is timed is the command, until they are in the ledger."""
    make_project(
        site.workspace,
        "many",
        "command: [sleep, '60']\nflags: space\n",
        "i: !!python/tuple [0, 100000]\n",
    )
    spent = timed(site, "run", "many", "--detach")
    site.sweepfw("stop", "many-1", "--now", code=None)
    site.sweepfw("rm", "many-1", "--stop", "--yes", code=None)
    print(f"100,000 trials submitted: {spent:.2f} s")


def lists(site: Site, rounds: int) -> None:
    """`ls`, `show` and `infra status` with a sweep of 10,000 trials that ended."""
    make_project(site.workspace, "long", "command: [/bin/echo]\n", "i: !!python/tuple [0, 10000]\n")
    site.sweepfw("run", "long", "--quiet", seconds=600)
    for words in (("ls",), ("show", "long-1"), ("infra", "status")):
        taken = [timed(site, *words) for _ in range(max(3, rounds))]
        print(f"{' '.join(words):16}{spread(taken)} s  (10,000 trials; SSH included)")


if __name__ == "__main__":
    main()
