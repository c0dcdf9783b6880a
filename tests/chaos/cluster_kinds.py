"""What strikes a deployment: a table of faults, filled by the modules cluster_faults_*.

Each fault strikes a host, lasts, and heals; it returns what it did, in a word, or raises MissedError. `where`
it strikes: `head` the head's host; `far` one that the head reaches over a link; `any`. `costs`: whose trials
may have to run again: `nobody`'s, those on that `host`, or `all`. Where that is nobody, a product shows what
it is worth.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cluster_bed import LEASE, RENEW, Bed
from lab_host import Host

TOO_LONG = "too long, "  # how a result begins where a short fault was none: who is behind it is excused

Act: TypeAlias = Callable[[Bed, Host, float], str]
Where: TypeAlias = Literal["head", "far", "any"]
Costs: TypeAlias = Literal["nobody", "host", "all"]


class BrokenError(Exception):
    """What was seen while a fault struck breaks a promise."""


class MissedError(Exception):
    """There was nobody to strike."""


@dataclass(frozen=True)
class Kind:
    act: Act
    what: str
    where: Where
    costs: Costs


KINDS: dict[str, Kind] = {}


def fault(name: str, where: Where, costs: Costs) -> Callable[[Act], Act]:
    """Put the function into the table; its docstring tells people what it does."""

    def keep(act: Act) -> Act:
        KINDS[name] = Kind(act, " ".join((act.__doc__ or "").split()), where, costs)
        return act

    return keep


def beyond(detail: float) -> float:
    """Seconds after which a lease has run out."""
    return LEASE + 4 + 6 * detail


def within(detail: float) -> float:
    """Seconds that a lease outlasts by far."""
    return 2 + (LEASE / 2 - 2) * detail


def briefly(seconds: float, end: Callable[[], object]) -> str:
    """As `lasting`. Where this machine makes it so long that leases may run out, the result says so."""
    begun = time.monotonic()
    told = lasting(seconds, end)
    lasted = time.monotonic() - begun
    return told if lasted < LEASE - 2 * RENEW else f"{TOO_LONG}{lasted:.1f} s"


def hit(bed: Bed, host: Host, number: str, *pids: int | None) -> None:
    """Signal these; MissedError where none is there."""
    if not bed.signal(host, number, *pids):
        raise MissedError("it did not run")


def one_of(victims: Sequence[int], detail: float) -> int:
    """MissedError where there are none."""
    if not victims:
        raise MissedError("none ran")
    return victims[int(detail * len(victims))]


def freeze(bed: Bed, host: Host, role: str, detail: float) -> str:
    """A service, beyond the lease."""
    main = bed.main(host, role)
    hit(bed, host, "STOP", main)
    return lasting(beyond(detail), lambda: bed.signal(host, "CONT", main))


def pretend(bed: Bed, host: Host, role: str, seconds: float, *, clock: int = 0, disk: str = "whole") -> str:
    """How clock and disk look in the container, for a while."""
    if not bed.pretend(host, role, clock=clock, disk=disk):
        raise MissedError("it did not run")
    return lasting(seconds, lambda: bed.pretend(host, role))


def lasting(seconds: float, end: Callable[[], object]) -> str:
    """What has begun goes on for so long, and is ended then."""
    time.sleep(seconds)
    end()
    return f"{seconds:.1f} s"


def mend_by_up(bed: Bed) -> str:
    """What a person does about what is missing."""
    process = bed.site.start("infra", "up", "--skip-unreachable")
    try:
        printed, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        return "infra up did not end"
    finally:
        process.kill()
    bed.heed(["infra", "up"], printed)
    return f"infra up: exit {process.returncode}"
