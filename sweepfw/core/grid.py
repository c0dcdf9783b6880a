"""A space's combinations: counted before they are made, made one by one.

The parameters, or groups of zipped ones, are axes. Each value that a rule names is a condition, a bit. Rows
of an axis that meet the same conditions are alike to every rule, so the grid falls into few boxes: one for
each choice of bits, in which all combinations are kept and have the same parameters, or all are excluded.
Counting multiplies and adds the sizes of boxes; a billion combinations take no longer than ten.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sweepfw.core.axes import Axis, bits_of_rows, held, product
from sweepfw.core.model import Draft
from sweepfw.core.rules import complete, order_when
from sweepfw.core.sequences import finder
from sweepfw.core.space import Space
from sweepfw.core.values import Number, Params, Value, meaning
from sweepfw.errors import SweepError

MOST_BOXES = 50_000  # beyond, the grid is walked combination by combination


class Count(NamedTuple):
    """How many trials a space has; at most so many where not `exact`."""

    number: int
    exact: bool = True


def count(space: Space) -> Count:
    """The number of trials, without making them. Not exact only where rules name very many values at once
    (more than MOST_BOXES choices between them)."""
    grid = _Grid(space)
    boxes = grid.boxes()
    if boxes is None:
        number = math.prod(axis.size for axis in grid.axes)
    else:
        number = sum(math.prod(map(len, box.rows)) for box in boxes)
    return Count((number + len(grid.added())) * space.repeats, boxes is not None)


def expand(space: Space) -> Iterator[Draft]:
    """The trials in order: the first parameter slowest, repeats innermost, what `include` adds at the end."""
    grid = _Grid(space)
    combinations = itertools.chain(grid.combinations(), grid.added())
    if space.seed is not None:
        for params in combinations:
            for repeat in range(1, space.repeats + 1):
                yield Draft({**params, space.seed: Number(str(repeat))}, repeat)
    elif space.repeats > 1:
        for params in combinations:
            for repeat in range(1, space.repeats + 1):
                yield Draft(params, repeat)
    else:
        yield from map(Draft, combinations)


def check_limit(space: Space, most: int) -> Count:
    """The count, if it is at least one and at most `most`; else SweepError."""
    counted = count(space)
    number = counted.number
    if not counted.exact:
        number = sum(1 for _ in itertools.islice(expand(space), most + 1))
    if number > most:
        shown = f"{counted.number:,}" if counted.exact else f"more than {most:,}"
        raise SweepError(
            f"the grid has {shown} trials, and --max-trials is {most:,}; "
            "give parameters fewer values, or raise --max-trials"
        )
    if number == 0:
        raise SweepError("the grid is empty: exclude leaves no combination; drop an entry of exclude")
    return Count(number)


class _Box(NamedTuple):
    """A part of the grid that rules see as one: rows for each axis, and the parameters left out there."""

    rows: tuple[Sequence[int], ...]
    idle: frozenset[str]


class _Grid:
    """A space taken apart: axes, conditions as bits, and what follows from bits."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = tuple(parameter.name for parameter in space.parameters)
        self.conditions: dict[tuple[str, Value], int] = {}
        self.excluded: dict[int, list[int]] = {}  # the lowest bit of a mask -> such masks
        for entry in space.exclude:
            mask = self.mask(entry.items())
            self.excluded.setdefault(mask & -mask, []).append(mask)
        self.needs = [(name, self.mask(space.when[name].items())) for name in order_when(space.when)]
        self.owned = {name: self.mask((n, w) for n, w in self.conditions if n == name) for name in space.when}
        self.axes = self.make_axes()

    def mask(self, conditions: Iterable[tuple[str, Value]]) -> int:
        """The bits of these conditions together; a new condition gets a new bit."""
        bits = 0
        for condition in conditions:
            bits |= self.conditions.setdefault(condition, 1 << len(self.conditions))
        return bits

    def make_axes(self) -> list[Axis]:
        groups = {group[0]: group for group in self.in_order(self.space.zip)}
        later = {name for group in groups.values() for name in group[1:]}
        values = {parameter.name: parameter.values for parameter in self.space.parameters}
        axes = []
        for name in self.names:
            if name not in later:
                columns = {each: values[each] for each in groups.get(name, (name,))}
                axes.append(Axis(columns, len(values[name]), bits_of_rows(columns, self.conditions)))
        return axes

    def in_order(self, groups: Iterable[Sequence[str]]) -> list[list[str]]:
        """Zip groups with their names in the order of the file, which decides who varies slowest."""
        return [[name for name in self.names if name in group] for group in groups]

    def judge(self, bits: int) -> frozenset[str] | None:
        """The parameters that combinations with these bits go without; None if they are excluded."""
        idle = set()
        for name, mask in self.needs:
            if bits & mask != mask:
                idle.add(name)
                bits &= ~self.owned[name]
        rest = bits
        while rest:  # bits are few, excluded combinations may be many
            lowest = rest & -rest
            if any(bits & mask == mask for mask in self.excluded.get(lowest, ())):
                return None
            rest ^= lowest
        return frozenset(idle)

    def boxes(self) -> list[_Box] | None:
        """The boxes that are kept; None if there are more than MOST_BOXES."""
        choices = [sorted({0, *axis.bits.values()}) for axis in self.axes]
        if math.prod(map(len, choices)) > MOST_BOXES:
            return None
        boxes = []
        for choice in itertools.product(*choices):
            idle = self.judge(sum(choice))  # each bit belongs to one axis
            if idle is not None:
                rows = tuple(axis.rows(bits, idle) for axis, bits in zip(self.axes, choice, strict=True))
                if all(rows):
                    boxes.append(_Box(rows, idle))
        return boxes

    def combinations(self) -> Iterator[dict[str, Value]]:
        """The parameters of every combination of the grid, without seed and repeats."""
        if not self.conditions and not self.space.zip:
            yield from self.product()
            return
        cells = {
            name: (place, held(column))
            for place, axis in enumerate(self.axes)
            for name, column in axis.columns.items()
        }
        ordered = [(name, *cells[name]) for name in self.names]
        for rows, idle in self.rows():
            yield {name: column[rows[place]] for name, place, column in ordered if name not in idle}

    def product(self) -> Iterator[dict[str, Value]]:
        """The combinations of a space without rules."""
        columns = [held(parameter.values) for parameter in self.space.parameters]
        if not columns:
            yield {}
            return
        # Copying a mapping and setting one value is several times faster than making one.
        fastest = max((place for place, column in enumerate(columns) if len(column) > 1), default=0)
        name, values = self.names[fastest], columns[fastest]
        columns[fastest] = (None,)
        for slower in product(columns):
            base = dict(zip(self.names, slower, strict=True))
            for value in values:
                yield {**base, name: value}

    def rows(self) -> Iterator[tuple[tuple[int, ...], frozenset[str]]]:
        """The row on each axis, ascending, with the parameters left out."""
        boxes = self.boxes()
        if boxes is None:
            return self.walk()
        if len(boxes) == 1:
            return zip(product(boxes[0].rows), itertools.repeat(boxes[0].idle))
        # Boxes have no combination in common, so only the rows are ever compared.
        return heapq.merge(*(zip(product(box.rows), itertools.repeat(box.idle)) for box in boxes))

    def walk(self) -> Iterator[tuple[tuple[int, ...], frozenset[str]]]:
        """The same as `rows`, by looking at every combination."""
        known = functools.cache(Axis.rows)
        for rows in product([range(axis.size) for axis in self.axes]):
            each = [axis.bits.get(row, 0) for axis, row in zip(self.axes, rows, strict=True)]
            idle = self.judge(sum(each))
            if idle is not None and all(
                row in known(axis, bits, idle) for axis, row, bits in zip(self.axes, rows, each, strict=True)
            ):
                yield rows, idle

    def added(self) -> list[dict[str, Value]]:
        """What `include` adds: its combinations, each once, less those that the grid has."""
        if not self.space.include:
            return []
        known = self.space.values
        find = {name: finder(values) for name, values in known.items()}
        added: dict[frozenset[tuple[str, object]], dict[str, Value]] = {}
        for entry in self.space.include:
            params = complete(entry, known, self.space.when)
            if not self.has(params, find):
                key = frozenset((name, meaning(value)) for name, value in params.items())
                added.setdefault(key, self.with_seed(params))
        return list(added.values())

    def with_seed(self, params: dict[str, Value]) -> dict[str, Value]:
        """A seed that stands among the parameters keeps its place there; its value comes later."""
        seed = self.space.seed
        return {name: params.get(name) for name in self.names if name in params or name == seed}

    def has(self, params: Params, find: Mapping[str, Callable[[Value], Iterable[int]]]) -> bool:
        """Whether the grid has this combination, which lacks exactly what `when` leaves out."""
        bits = 0
        for axis in self.axes:
            found: set[int] | None = None
            for name in axis.columns:
                if name in params:
                    rows = set(find[name](params[name]))
                    found = rows if found is None else found & rows
            if found is not None:
                if not found:
                    return False
                bits |= axis.bits.get(min(found), 0)
        return self.judge(bits) is not None
