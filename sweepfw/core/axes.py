"""The axes of a grid: what varies together, and how rows of them are told apart and combined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sweepfw.core.rules import alternatives
from sweepfw.core.sequences import Computed, finder
from sweepfw.core.values import Value, meaning

T = TypeVar("T")

LONG = 10_000  # a pool beyond is never held in memory


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Parameters that go together, row by row. `bits`: the conditions that a row meets, if any."""

    columns: dict[str, Sequence[Value]]
    size: int
    bits: dict[int, int]

    def with_bits(self, bits: int) -> Sequence[int]:
        if bits:
            return [row for row in sorted(self.bits) if self.bits[row] == bits]
        return _Others(self.size, sorted(self.bits)) if self.bits else range(self.size)

    def rows(self, bits: int, idle: frozenset[str]) -> Sequence[int]:
        """The rows with these bits, one for each difference that remains without the idle parameters."""
        active = [column for name, column in self.columns.items() if name not in idle]
        if not active:
            return range(int(self.bits.get(0, 0) == bits))
        if len(active) == len(self.columns) or any(isinstance(column, Computed) for column in active):
            return self.with_bits(bits)
        first: dict[tuple[object, ...], int] = {}
        for row in range(self.size):
            first.setdefault(tuple(meaning(column[row]) for column in active), row)
        return [row for row in first.values() if self.bits.get(row, 0) == bits]


@dataclass(frozen=True, slots=True)
class _Others(Sequence[int]):
    """The numbers below `size` that are not among `holes` (ascending)."""

    size: int
    holes: Sequence[int]

    def __len__(self) -> int:
        return self.size - len(self.holes)

    def __iter__(self) -> Iterator[int]:
        starts = (0, *(hole + 1 for hole in self.holes))
        return itertools.chain.from_iterable(map(range, starts, (*self.holes, self.size)))

    def __contains__(self, row: object) -> bool:
        return row in range(self.size) and row not in self.holes

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # nobody slices it
        return next(itertools.islice(self, index, None))


def bits_of_rows(
    columns: Mapping[str, Sequence[Value]], conditions: Mapping[tuple[str, Value], int]
) -> dict[int, int]:
    """The conditions, as bits, that each row of these columns meets; rows that meet none are left out."""
    bits: dict[int, int] = {}
    find = {name: finder(column) for name, column in columns.items()}
    for (name, wanted), bit in conditions.items():
        if name in columns:
            for row in {row for each in alternatives(wanted) for row in find[name](each)}:
                bits[row] = bits.get(row, 0) | bit
    return bits


def held(values: Sequence[T]) -> Sequence[T]:
    """Short sequences in memory; what is computed and long stays so."""
    return tuple(values) if len(values) <= LONG else values


def product(pools: Sequence[Sequence[T]]) -> Iterator[tuple[T, ...]]:
    """itertools.product, but long pools are iterated instead of held."""
    last = max((place for place, pool in enumerate(pools) if len(pool) > LONG), default=None)
    tail = pools[0 if last is None else last + 1 :]
    if last is None:
        yield from itertools.product(*tail)
        return
    for head in product(pools[:last]):
        for value in pools[last]:
            for rest in itertools.product(*tail):
                yield (*head, value, *rest)
