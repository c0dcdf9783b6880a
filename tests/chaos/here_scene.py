"""One run of chaos on this machine: a sweep, the faults that strike it, and what a person does after each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import cases
from here_world import LONG, World
from invariants import Sample, Story, Struck
from report import Strike
from schedule import Fault
from witness import ENDS

NOBODY = "nobody"  # the victim of a fault that struck none
SLACK = 0.3  # seconds after a strike in which a process still dies of it
NO_ROOM = 10.0  # the same, where it was the disk that was full: who found no room may take its time to end
END = 120.0  # seconds for a run to end that was asked to
STALL = 90.0  # seconds without any trial's start after which a run counts as stuck
BUSY = 75  # how a command ends that finds the sweep held
ROUNDS = 12  # times that a person goes on with what is left


class Scene:
    """What the faults did, kept for the judge. `sweep`: the main one; others come from the faults."""

    def __init__(self, world: World, sweep: str) -> None:
        self.world, self.sweep = world, sweep
        self.began = time.monotonic()
        self.strikes: list[Strike] = []
        self.struck: list[Struck] = []
        self.reopened: set[tuple[str, int]] = set()
        self.cancelled: set[tuple[str, int]] = set()
        self.deaths: list[float] = []  # of runs, against everybody's will
        self.samples: list[Sample] = []  # what `ls` said meanwhile
        self.clock_jumped = False
        self._began_at = -1  # how many had begun when the run began
        self.stopped_at: int | None = None  # how many had begun when somebody stopped the sweep

    # -- what faults use -------------------------------------------------------------------------------

    def hit(self, kind: str, since: float, until: float | None = None, **whom: Any) -> None:
        """From then to now (or `until`) this may have cost attempts: of any trial, unless `whom` says so."""
        self.struck.append(Struck(kind, since, (until or time.monotonic()) + SLACK, **whom))

    def died(self) -> None:
        """The run is over against everybody's will; we see when trials start again."""
        self.deaths.append(time.monotonic())

    def tell(self, fault: Fault, victim: str, result: str) -> None:
        at = time.monotonic() - self.began
        self.strikes.append(Strike(round(at, 2), fault.kind, victim, result, victim != NOBODY))

    def resume(self, **more: str) -> None:
        """What a person types after the death of a run, or of one that was stopped."""
        words = ["--cancelled"] if self.stopped_at is not None else []
        self._began_at = self.world.starts()
        self.world.start("resume", self.sweep, "-q", "-j", str(self.world.jobs), *words, **more)

    def go_on(self) -> None:
        """If the run has ended, whyever, resume."""
        if self.world.run is None or not self.world.run.alive:
            self.world.make_room()
            self.resume()

    def at_work(self, seconds: float = STALL) -> None:
        """A run is there, with trials; but for one that has nothing left to run."""
        self.go_on()
        deadline = time.monotonic() + seconds
        while self.world.starts() == self._began_at and time.monotonic() < deadline:
            code = self.ended(0)
            if code == BUSY:  # the guardian of the one before takes its time to end
                self.go_on()
            elif code is not None:
                break
            time.sleep(0.01)
        self._note(self.world.starts())

    # -- the course of events --------------------------------------------------------------------------

    def wait_for(self, starts: float) -> None:
        """Until so many trials have begun; where the run ends meanwhile, a person goes on once, and where
        nothing is left to run the fault strikes a sweep that is done."""
        resumed, seen, since = False, self.world.starts(), time.monotonic()
        while (now := self.world.starts()) < starts:
            if self.world.run is None or not self.world.run.alive:
                if resumed:
                    break
                resumed = True
                self.go_on()
            self.world.make_room()
            if now != seen:
                resumed, seen, since = False, now, time.monotonic()
            elif time.monotonic() - since > STALL:
                self.world.complaints.append(f"nothing started within {STALL:g} s while the run lived")
                break
            self._note(now)
            time.sleep(0.02)

    def _note(self, starts: int) -> None:
        """Trials start: so what was stopped is queued again."""
        if self.stopped_at is not None and starts > self.stopped_at:
            self.stopped_at = None

    def finish(self) -> None:
        """What a person does until all have their ends: resume what is left, retry what the faults broke."""
        self.wait_for(float("inf"))
        self.world.let_go()
        for round_ in range(ROUNDS):
            again = [words for one in self.world.sweeps() for words in self._left(one, round_)]
            for words in again:
                self.world.make_room()
                self.world.call(*words)
            if not again:
                return
        self.world.complaints.append(f"not all had an end after {ROUNDS} rounds of resume and retry")

    def _left(self, sweep: dict[str, Any], round_: int) -> Iterable[tuple[str, ...]]:
        name, counts = sweep["sweep"], sweep["counts"]
        how = ("-q", "-j", str(self.world.jobs))
        if sweep["state"] != "done" or {"queued", "running", "held"} & set(counts):
            if not (sweep["state"] == "stopped" and round_):
                yield (
                    ("resume", name, "--cancelled", *how)
                    if sweep["state"] == "stopped"
                    else (
                        "resume",
                        name,
                        *how,
                    )
                )
        elif counts.get("failed") and round_ < ROUNDS // 2:
            broken = self._broken(name)
            self.reopened |= {(name, number) for number in broken}
            if broken:
                yield ("retry", name, *map(str, broken), *how)

    def _broken(self, sweep: str) -> list[int]:
        """Trials that failed, and would not have if nothing had struck them."""
        return [
            trial["trial"]
            for trial in self.world.show(sweep)["trials"]
            if trial["state"] == "failed" and kind(trial) not in ENDS
        ]

    def side_project(self, name: str, seed: int) -> None:
        """Another project, whose files are no other's."""
        folder = self.world.workspace / "projects" / name
        self.world.project(name, cases.deal(seed, 3, {}, (0.05, 0.3)))
        (folder / "new.txt").write_text(f"{name} {seed}\n")

    def story(self, wall: float) -> Story:
        return Story(
            struck=self.struck,
            samples=self.samples,
            wall=None if self.clock_jumped else wall,
            reopened=self.reopened,
            cancelled=self.cancelled,
            dealt=self.world.dealt,
        )

    def ended(self, seconds: float = LONG) -> int | None:
        """The run's exit code once it has ended; None: it has not, within the time."""
        deadline = time.monotonic() + seconds
        while self.world.run is not None and self.world.run.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        return None if self.world.run is None else self.world.run.process.poll()


def kind(trial: Any) -> str:
    return str(trial["params"]["case"]).split(" ")[0]
