"""A sweep on a deployment, who follows it, who looks at it, and the faults that strike meanwhile."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cases
import witness
from cluster_bed import LEASE, SLOTS, WITNESS, Bed
from cluster_evidence import COULD_NOT, Strike
from cluster_faults import KINDS
from cluster_kinds import BrokenError, MissedError
from invariants import Sample
from lab_host import Host
from lab_watch import until
from schedule import Fault, plan
from witness import Life

SHARES = {"fail": 3, "signal": 2, "daemon": 6, "deaf": 4, "memory": 1, "disk": 0.1, "poison": 0.1}
USUAL = 60.0  # seconds of faults, for a hundred trials
PATIENCE = 300.0  # seconds without any progress, after all is healed: then it is stuck
LOOK = 4.0  # seconds between two looks at what is said of the sweep
PROJECT = "environment: inherit\ncheckpoint_every: 1s\n"


@dataclass(frozen=True)
class Options:
    """`restarts`: how often `infra up` at the beginning and `infra down` at the end are killed."""

    seed: int
    trials: int = 100
    faults: int = 10
    kinds: Sequence[str] = tuple(KINDS)
    seconds: float = USUAL
    hosts: int = 3
    restarts: int = 0
    arguments: Sequence[str] = ()


@dataclass
class Scene:
    """As a context: the sweep is there, and its first trial began; at the end nobody follows it any more."""

    bed: Bed
    options: Options
    say: Callable[[str], object]
    strikes: list[Strike] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
    sweeps: list[Mapping[str, Any]] = field(default_factory=list)  # as told at the end
    lives: list[Life] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    begun: float = 0.0
    dealt: dict[str, list[str]] = field(default_factory=dict)  # cases by project
    stalls: list[tuple[float, float]] = field(default_factory=list)  # when this machine stood still
    broken: list[str] = field(default_factory=list)  # what was seen that must not be, beside the strikes

    def __post_init__(self) -> None:
        self._locks = {host.name: threading.Lock() for host in self.bed.lab.hosts}
        self._lock = threading.Lock()
        works = (self._follow, self._look, self._watch)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> Scene:
        self._write_projects()
        for thread in self._threads:
            thread.start()
        look = ["test", "-s", f"{WITNESS}/witness.jsonl"]
        until(lambda: not self.bed.head.run(look, check=False).returncode, 300, "the first trial")
        self.begun = time.monotonic()
        return self

    def _write_projects(self) -> None:
        """`chaos`, whose trials last about as long as the faults, and `extra`."""
        o = self.options
        share = 0.7 * o.seconds * SLOTS * o.hosts / o.trials  # of a trial in the slots' time, but for losses
        dealt = cases.deal(o.seed, o.trials, SHARES, (0.2, max(0.4, 2 * share - 0.2)))
        few = [witness.case("calm", 0.5, number) for number in (1, 2, 3)]
        projects = self.bed.site.workspace / "projects"
        self.dealt = {"chaos": dealt, "extra": few}
        for name, each in self.dealt.items():
            cases.write_project(projects / name, each, "/witness", PROJECT, poison="worker")

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.bed.kill_follower()
        for thread in self._threads:
            thread.join(60)

    def faults(self) -> None:
        """Strike, each fault at its time; returns when the last one is over."""
        threads = []
        for each in self._plan():
            time.sleep(max(0.0, self.begun + each.at - time.monotonic()))
            threads.append(threading.Thread(target=self._strike, args=(each,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(300)
        self.strikes.sort(key=lambda strike: strike.began)

    def _plan(self) -> list[Fault]:
        """As the seed says; but what is lost for good is lost late: the other faults want all hosts."""
        o = self.options
        found = plan(o.seed, o.kinds, o.faults, o.seconds)
        late = [
            each._replace(at=max(each.at, 0.85 * o.seconds)) for each in found if each.kind == "host-lost"
        ]
        return sorted([each for each in found if each.kind != "host-lost"] + late)

    def _strike(self, fault: Fault) -> None:
        host = self._victim(fault)
        with self._locks[host.name]:
            began = time.monotonic()
            result, broken, struck = self._act(fault, host)
            strike = Strike(fault, host.name, began, time.monotonic(), result, broken, struck)
        with self._lock:
            self.strikes.append(strike)
        self.say(f"{began - self.begun:7.1f} s  {fault.kind:<15} {host.name:<6} {broken or result}")

    def _act(self, fault: Fault, host: Host) -> tuple[str, str, bool]:
        """What came of it, what was seen that must not be, and whether it struck."""
        if host.name in self.bed.lost:  # since it was chosen
            return "it is lost", "", False
        try:
            return KINDS[fault.kind].act(self.bed, host, fault.detail), "", True
        except BrokenError as error:
            return "", str(error), True
        except MissedError as error:
            return str(error), "", False
        except Exception as error:
            return f"{COULD_NOT}{type(error).__name__}: {error}"[:200].strip(), "", False

    def _victim(self, fault: Fault) -> Host:
        where = KINDS[fault.kind].where
        hosts = {"head": [self.bed.head], "far": self.bed.far, "any": self.bed.lab.hosts}[where]
        there = [host for host in hosts if host.name not in self.bed.lost]
        return there[fault.target % len(there)]

    @property
    def gone(self) -> set[str]:
        """The hosts that were lost for good."""
        return {each.host for each in self.strikes if each.kind == "host-lost"}

    def heal(self) -> None:
        """All but the lost hosts as they were; what was removed, `infra up` makes again."""
        lost = set(self.bed.lost)
        self.bed.heal(but=lost)
        without = ["--skip-unreachable"] if lost else []
        self._up(*without)

    def _up(self, *more: str) -> None:
        """As a person types it, three times at most: who finds all well again makes all that is missing."""
        for _ in range(3):
            try:
                self.bed.heed(["infra", "up"], self.bed.site.sweepfw("infra", "up", *more, seconds=250))
                return
            except (AssertionError, subprocess.TimeoutExpired) as error:
                why = str(error)
                self.bed.heed(["infra", "up"], why)
        self.broken.append(f"all is healed, and `infra up` fails: {why[-400:]}")

    def wait_for_the_end(self) -> None:
        """Of all sweeps. Those that get no further are judged as they are."""
        last, since = "", time.monotonic()
        while time.monotonic() - since < PATIENCE:
            found = self.bed.told("ls") or []
            if found and all(sweep["state"] in ("done", "stopped", "paused") for sweep in found):
                break
            if found and (now := str([sweep["counts"] for sweep in found])) != last:
                last, since = now, time.monotonic()
            time.sleep(1)
        if self.bed.lost:  # all else is healed already
            self.bed.heal()
            self._up()
            time.sleep(2 * LOOK)  # who was away hears what became of its trials

    # -- beside it -------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """`run`, and `attach` again and again, until the sweep has ended."""
        words, log = ["run", "chaos", "--json"], self.bed.site.folder / "follower.log"
        while not self.over.is_set():
            with log.open("ab") as out:
                process = self.bed.follower = self.bed.site.start(*words, output=out)
                code = process.wait()
            self.followed.append(f"{words[0]} {code}")
            self.bed.heed(words, log.read_text(errors="replace"))
            states = self._states()
            if states.get("chaos-1") == "done":
                return
            words = ["attach", "chaos-1", "--json"] if "chaos-1" in states else words
            self.over.wait(1)

    def _watch(self) -> None:
        """Whether this machine runs at all: what stands still for long does not renew its leases either."""
        before = time.monotonic()
        while not self.over.wait(0.2):
            now = time.monotonic()
            if now - before > LEASE / 2:
                self.stalls.append((before, now))
            before = now

    def _states(self) -> dict[str, str]:
        """The deployment's sweeps, as soon as somebody tells."""
        while not self.over.is_set():
            found = self.bed.told("ls")
            if found is not None:
                return {sweep["sweep"]: sweep["state"] for sweep in found}
            self.over.wait(1)
        return {}

    def _look(self) -> None:
        """What `ls` and `show` say of the sweeps, now and then."""
        turn = 0
        while not self.over.wait(LOOK):
            turn += 1
            found = self.bed.told("ls") if turn % 4 else [self.bed.told("show", "chaos-1")]
            now = time.monotonic()
            for one in found or []:
                if one is not None:
                    self.samples.append(Sample(now, one["sweep"], one["state"], one["counts"]))
