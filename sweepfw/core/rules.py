"""What the rules of a space must keep: names that exist, lengths that match, nothing twice."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from sweepfw.core.sequences import Computed
from sweepfw.core.values import Params, Value, meaning, text
from sweepfw.errors import SweepError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

When: TypeAlias = Mapping[str, Params]


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SweepError(
            f"{name!r} can't name a parameter; a name is letters, digits, _ . - and begins with a letter or _"
        )


def check_repeats(repeats: int) -> None:
    if repeats < 1:
        raise SweepError(f"repeats is {repeats}; it is 1 or more")


def check_known(rule: str, name: str, known: Collection[str], seed: str | None = None) -> None:
    """SweepError where a rule names no parameter of the space, or the seed."""
    if name == seed:
        raise SweepError(f"{rule} can't name the seed {name}; it gets the number of the repeat")
    if name not in known:
        raise SweepError(f"{rule} names {name!r}, which is no parameter{suggest(name, known)}")


def check_seed(seed: str, values: Mapping[str, Sequence[Value]]) -> None:
    check_name(seed)
    if seed in values and len(values[seed]) > 1:
        raise SweepError(
            f"seed: {seed} gets the number of the repeat, but has {len(values[seed])} values among the "
            "parameters; leave them out and set repeats"
        )


def check_zip(
    groups: Sequence[Sequence[str]], known: Mapping[str, Sequence[Value]], seed: str | None
) -> None:
    """Each group names two or more parameters of the same length; none stands in two."""
    seen: set[str] = set()
    for group in groups:
        for name in group:
            check_known("zip", name, known, seed)
            if name in seen:
                raise SweepError(f"zip names {name} twice; a parameter is in one group, once")
            seen.add(name)
        if len(group) < 2:
            raise SweepError("a group of zip names two or more parameters, as in zip: [[lr, warmup]]")
        sizes = {name: len(known[name]) for name in group}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} has {number}" for name, number in sizes.items())
            raise SweepError(f"zip needs as many values in each of its group: {shown}")


def check_duplicates(values: Mapping[str, Sequence[Value]], groups: Sequence[Sequence[str]]) -> None:
    """No value twice in a parameter, no row twice in a group of zip."""
    zipped = {name for group in groups for name in group}
    for name, items in values.items():
        if name not in zipped and (twice := duplicate(items)):
            raise SweepError(f"{name}: {same_values(items[twice[0]], items[twice[1]])}")
    for group in groups:
        columns = [values[name] for name in group]
        if any(isinstance(column, Computed) for column in columns):
            continue  # its numbers differ, so the rows do
        if twice := duplicate([tuple(row) for row in zip(*columns, strict=True)]):
            raise SweepError(
                f"zip: rows {twice[0] + 1} and {twice[1] + 1} of [{', '.join(group)}] are the same; "
                "use repeats to run a combination several times"
            )


def same_values(first: Value, second: Value) -> str:
    one, other = text(first), text(second)
    what = f"{one} stands here twice" if one == other else f"{one} and {other} are the same value"
    return f"{what}; use repeats to run a combination several times"


def duplicate(values: Sequence[Value]) -> tuple[int, int] | None:
    """The positions of the first two values that mean the same."""
    if isinstance(values, Computed):
        return None
    seen: dict[object, int] = {}
    for position, value in enumerate(values):
        first = seen.setdefault(meaning(value), position)
        if first != position:
            return first, position
    return None


def check_entry(rule: str, entry: Collection[str], known: Collection[str], seed: str | None) -> None:
    """An entry of exclude, include or when names at least one parameter, and only parameters."""
    if not entry:
        raise SweepError(f"an entry of {rule} is empty; name parameters with their values")
    for name in entry:
        check_known(rule, name, known, seed)


def check_when(when: When, known: Collection[str], seed: str | None) -> None:
    for name, conditions in when.items():
        check_known("when", name, known, seed)
        check_entry("when", conditions, known, seed)
    order_when(when)


def order_when(when: When) -> list[str]:
    """The conditional parameters, each after those it depends on. SweepError where they form a circle."""
    order: list[str] = []
    waiting = list(when)
    while waiting:
        ready = [name for name in waiting if not any(other in waiting for other in when[name])]
        if not ready:
            each = (
                f"{' and '.join(waiting)} wait for each other"
                if waiting[1:]
                else f"{waiting[0]} waits for itself"
            )
            raise SweepError(f"when goes in a circle: {each}")
        order += ready
        waiting = [name for name in waiting if name not in ready]
    return order


def suggest(name: str, known: Collection[str]) -> str:
    """`; did you mean lr?`, or the names there are."""
    from difflib import get_close_matches

    if near := get_close_matches(name, known, 1, 0.5):
        return f"; did you mean {near[0]}?"
    listed = ", ".join(list(known)[:8]) + (", ..." if len(known) > 8 else "")
    return f"; there {'are ' + listed if known else 'are none'}"


def matches(value: Value, wanted: Value) -> bool:
    """Whether a rule's value means this one: the same, or a list with the same in it."""
    return any(meaning(value) == meaning(each) for each in alternatives(wanted))


def alternatives(wanted: Value) -> tuple[Value, ...]:
    """The values that a rule's value stands for: itself, and each item where it is a list."""
    return (wanted, *wanted) if isinstance(wanted, tuple) else (wanted,)


def complete(entry: Params, values: Mapping[str, Sequence[Value]], when: When) -> dict[str, Value]:
    """The combination that an entry of include stands for: parameters with one value need not be named.

    SweepError where a name is missing, or `when` leaves out one that is there.
    """
    whole: dict[str, Value] = {}
    for name, items in values.items():
        if name in entry:
            whole[name] = entry[name]
        elif len(items) == 1:
            whole[name] = items[0]
    out = idle(whole, when)
    for name in values:
        if name in entry and name in out:
            raise SweepError(f"an entry of include names {name}, which when leaves out there; drop it")
        if name not in whole and name not in out:
            raise SweepError(
                f"an entry of include does not say {name}; it names every parameter that has several values"
            )
    return {name: value for name, value in whole.items() if name not in out}


def idle(params: Params, when: When) -> set[str]:
    """The parameters that `when` leaves out of a combination. One that is left out meets no condition."""
    out: set[str] = set()
    for name in order_when(when):
        for other, wanted in when[name].items():
            if other in out or other not in params or not matches(params[other], wanted):
                out.add(name)
    return out
