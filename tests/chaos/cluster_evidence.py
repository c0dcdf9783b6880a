"""What is left to judge by, after a sweep on a deployment: gathered without the product where that can be."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attempt_folder
from cluster_bed import LEASE, WITNESS, Bed
from cluster_kinds import KINDS, TOO_LONG
from invariants import Kept, Key, Struck
from schedule import Fault
from witness import Life

HEARD = 4.0  # seconds in which what was late is still told, after a fault is over
COULD_NOT = "could not: "


class Strike(NamedTuple):
    """A fault as it happened, by CLOCK_MONOTONIC. `broken`: what was seen that must not be. `struck` False:
    there was nobody to strike, or it could not be done, maybe not to its end."""

    fault: Fault
    host: str
    began: float
    ended: float
    result: str
    broken: str = ""
    struck: bool = True

    @property
    def kind(self) -> str:
        return self.fault.kind

    @property
    def costs(self) -> str:
        if self.result.startswith(TOO_LONG):
            return "all"
        return KINDS[self.kind].costs

    @property
    def failed(self) -> bool:
        """It could not be done."""
        return self.result.startswith(COULD_NOT)

    @property
    def trial(self) -> tuple[str, int] | None:
        """The one that was struck, where it was one."""
        name, _, number = self.result.removeprefix("trial ").rpartition("/")
        return (name, int(number)) if self.result.startswith("trial ") else None


# -- what was kept ---------------------------------------------------------------------------------------


def fetch(bed: Bed, folder: Path) -> None:
    """The witnesses' folder, and what the head keeps of attempts."""
    bed.bring(bed.head, WITNESS, folder / "witness")
    bed.bring(bed.head, f"{bed.state_folder()}/runs", folder / "runs")


def kept(
    runs: Path, sweeps: Iterable[Mapping[str, Any]], *, home: bool, gone: Collection[str]
) -> dict[Key, Kept]:
    """What lies of each attempt in such a folder. `home`: all files were brought there; else large ones are
    on the hosts that made them. `gone`: hosts that were lost, maybe before they could tell of an end."""
    found: dict[Key, Kept] = {}
    for sweep in sweeps:
        for trial in sweep["trials"]:
            for attempt in trial["attempts"]:
                place = runs / sweep["sweep"] / "trials" / str(trial["trial"]) / str(attempt["attempt"])
                if place.is_dir():
                    large = not home and str(trial["params"].get("case", "")).startswith("disk ")
                    untold = attempt["state"] == "lost" and attempt["host"] in gone
                    key = sweep["sweep"], trial["trial"], attempt["attempt"]
                    found[key] = _without(attempt_folder.read(place), files=large, outcome=untold)
    return found


def _without(found: Kept, *, files: bool, outcome: bool) -> Kept:
    return found._replace(files=None if files else found.files, outcome=None if outcome else found.outcome)


# -- whom the faults may have cost something -------------------------------------------------------------


def struck(strikes: Sequence[Strike], lives: Sequence[Life]) -> list[Struck]:
    found = []
    for strike in strikes:
        if strike.costs != "nobody" and (strike.struck or strike.failed):
            host = strike.host if strike.costs == "host" or strike.host != "host1" else None
            until = strike.ended + LEASE + HEARD
            found.append(Struck(strike.kind, strike.began, until, host, strike.trial))
    poison = [(life.killed, life.host) for life in lives if life.killed is not None]
    return found + [Struck("poison", killed, killed + LEASE + HEARD, host) for killed, host in poison]


def stalled(stalls: Iterable[tuple[float, float]]) -> list[Struck]:
    """Where the whole machine stood still, so did those who renew their leases."""
    return [Struck("this machine", since, until + LEASE + HEARD) for since, until in stalls]


def may_fail(
    strikes: Sequence[Strike], lives: Sequence[Life], sweeps: Iterable[Mapping[str, Any]]
) -> set[tuple[str, int]]:
    """Trials that faults may have let fail for good: killed by hand, or by the kernel beside its choice; and
    those that were lost again and again, as often as makes a trial poison."""
    found = set()
    for strike in strikes:
        if strike.kind == "trial-kill" and strike.trial:
            found.add(strike.trial)
        if strike.kind == "worker-oom":
            found |= {
                (life.sweep, life.trial)
                for life in lives
                if life.host == strike.host and life.exit is None and life.started < strike.ended + 1
            }
    for sweep in sweeps:
        for trial in sweep["trials"]:
            lost = sum(one["state"] in ("lost", "stale") for one in trial["attempts"])
            if trial["reason"] == "host lost" and lost >= 4:
                found.add((sweep["sweep"], trial["trial"]))
    return found


# -- figures ---------------------------------------------------------------------------------------------


def figures(
    strikes: Sequence[Strike], lives: Sequence[Life], sweeps: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    attempts = [one for sweep in sweeps for trial in sweep["trials"] for one in trial["attempts"]]
    states = {
        state: sum(one["state"] == state for one in attempts) for state in ("lost", "stale", "interrupted")
    }
    again = redispatch(strikes, lives)
    told: dict[str, Any] = {
        "attempts": len(attempts),
        "of them " + ", ".join(states): ", ".join(str(n) for n in states.values()),
        f"sent again after (s, lease {LEASE})": _spread(again),
        "dispatch resumed after a broker fault (s)": _spread(resumed(strikes, lives, "broker")),
        "dispatch resumed after a head fault (s)": _spread(resumed(strikes, lives, "head")),
    }
    ran, cost = through(strikes, lives, sweeps)
    told["running when head, ledger or its disk was struck"] = (
        f"{ran}, of them not ended well by that attempt: {len(cost)}{''.join(f'; {one}' for one in cost)}"
    )
    return told


def through(
    strikes: Sequence[Strike], lives: Sequence[Life], sweeps: Sequence[Mapping[str, Any]]
) -> tuple[int, list[str]]:
    """How many attempts ran while the head was struck, on hosts that nothing else struck meanwhile; and which
    of them were lost all the same, each in words."""
    attempts = {
        (sweep["sweep"], trial["trial"], one["attempt"]): one
        for sweep in sweeps
        for trial in sweep["trials"]
        for one in trial["attempts"]
    }
    others = struck(strikes, lives)
    first = {life.key: life.started for life in reversed(lives)}
    ran: dict[Key, str] = {}
    for strike in strikes:
        if not strike.kind.startswith(("head", "ledger", "disk")):
            continue
        for life in lives:
            # Where another attempt came, this one's end was not told: until then it could be struck.
            after = first.get((*life.key[:2], life.attempt + 1))
            until = after or life.ended or float("inf")
            here = [each for each in others if each.host in (None, life.host)]
            excused = any(each.since < until and life.started < each.until for each in here)
            if life.started < strike.began < until and not excused:
                ran[life.key] = f"ran {strike.began - life.started:.1f} s on {life.host} before {strike.kind}"
    told = {key: attempts[key] for key in ran if key in attempts}
    return len(ran), [
        "{}/{}/{} {} ({}; {})".format(*key, one["state"], one["reason"], ran[key])
        for key, one in told.items()
        if one["state"] in ("lost", "stale", "interrupted")
    ]


def redispatch(strikes: Sequence[Strike], lives: Sequence[Life]) -> list[float]:
    """From a fault that cost a trial its attempt to the start of its next one."""
    first: dict[Key, float] = {life.key: life.started for life in reversed(lives)}
    found = []
    for strike in strikes:
        if strike.costs == "nobody":
            continue
        for life in lives:
            after = first.get((life.sweep, life.trial, life.attempt + 1))
            hit = life.host == strike.host and life.started < strike.began
            if hit and after is not None and after > strike.began and (life.ended or after) > strike.began:
                found.append(after - strike.began)
    return found


def resumed(strikes: Sequence[Strike], lives: Sequence[Life], what: str) -> list[float]:
    """From the end of a fault to the next trial's start, where one came."""
    starts = sorted(life.started for life in lives)
    found = []
    for strike in strikes:
        if strike.kind.startswith(what):
            after = next((start for start in starts if start > strike.ended), None)
            found += [] if after is None else [after - strike.ended]
    return found


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"median {statistics.median(values):.1f}, at most {max(values):.1f}, of {len(values)}"
