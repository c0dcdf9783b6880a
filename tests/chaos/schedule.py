"""When which fault strikes: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
    """`at`: seconds after the sweep began. `target` and `detail` are for who strikes: a large number to
    choose a victim by (modulo their count), and one in [0, 1) for what the kind leaves open, as how long."""

    at: float
    kind: str
    target: int
    detail: float


def plan(seed: int, kinds: Sequence[str], number: int, span: float) -> list[Fault]:
    """So many faults within the span, in the order of their times. Each kind comes as often as any other, or
    once more; in each part of the span of equal length there is one fault."""
    chance = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < number and kinds:
        deck = list(kinds)
        chance.shuffle(deck)
        chosen += deck[: number - len(chosen)]
    part = span / max(1, number)
    return [
        Fault(round((position + chance.random()) * part, 3), kind, chance.randrange(10**6), chance.random())
        for position, kind in enumerate(chosen)
    ]
