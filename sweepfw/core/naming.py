"""Names: how sweeps and trials are written, and read back."""

from __future__ import annotations

import re
from typing import NamedTuple

from sweepfw.errors import SweepError

_SWEEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Target(NamedTuple):
    """What a person points at: a sweep, or one trial of it (`digits-3/17`)."""

    sweep: str
    trial: int | None = None


def parse_target(text: str, *, trial: bool | None = None) -> Target:
    """`SWEEP` or `SWEEP/N`. `trial` True: it must name a trial; False: it must not; None: either.

    SweepError says what was expected.
    """
    sweep, slash, number = text.partition("/")
    wanted = {
        True: "SWEEP/N, such as digits-3/17",
        False: "SWEEP, such as digits-3",
        None: "SWEEP or SWEEP/N",
    }
    plausible = _SWEEP.fullmatch(sweep) and (not slash or (number.isascii() and number.isdigit()))
    if not plausible or (trial is True and not slash) or (trial is False and slash):
        raise SweepError(f"{text!r}: expected {wanted[trial]}")
    if slash and int(number) < 1:
        raise SweepError(f"{text!r}: trials are numbered from 1")
    return Target(sweep, int(number) if slash else None)


def parse_numbers(text: str, what: str = "--only") -> tuple[int, ...]:
    """`3` or `1,4,7-9` as trial numbers, ascending, each once. SweepError otherwise."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last or last - first > 1_000_000:
            raise SweepError(f"{what} {text}: expected trial numbers from 1, such as 3 or 1,4,7-9")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def label(sweep: str, trial: int, attempt: int | None = None) -> str:
    """`digits-3/17`, or `digits-3/17/2` for its second attempt."""
    return f"{sweep}/{trial}" if attempt is None else f"{sweep}/{trial}/{attempt}"
