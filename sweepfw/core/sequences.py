"""Values that are computed when asked for: intervals and ranges. A billion of them cost nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Literal, overload

from sweepfw.core.values import Number, Value, meaning
from sweepfw.errors import SweepError

_SHOWN = Context(prec=15)  # what a double keeps of a decimal
_EXACT = Context(prec=10_000)
_FINE = Context(prec=40)
ONE = Number("1")
MOST = 10**15  # values of one parameter
_APART = Decimal("1e-13")  # neighbours nearer than this, relatively, might be written the same


class Computed(Sequence[Number]):
    """Numbers that rise or fall strictly, so no two are equal and `find` need not look at all of them."""

    def at(self, position: int) -> Number:
        """The number at a position from 0 to len - 1."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Number: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Number, ...]: ...
    def __getitem__(self, index: int | slice) -> Number | tuple[Number, ...]:
        positions = range(len(self))[index]
        return self.at(positions) if isinstance(positions, int) else tuple(map(self.at, positions))

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Number) and self.find(value) is not None

    def find(self, value: Number) -> int | None:
        """The position of the number that means the same, in logarithmic time."""
        wanted, last = value.exact, len(self) - 1
        falls = self.at(0).exact > self.at(last).exact
        # Only comparisons of decimals are exact (even a minus rounds), so what falls is read from its end.
        place = bisect_left(range(last + 1), wanted, key=lambda i: self.at(last - i if falls else i).exact)
        if place > last:
            return None
        position = last - place if falls else place
        return position if self.at(position).exact == wanted else None


@dataclass(frozen=True)
class Interval(Computed):
    """[start, end) by step, in exact decimals. SweepError if the step is 0 or leads away from the end."""

    start: Number
    end: Number
    step: Number = ONE
    _units: range = field(init=False, repr=False, compare=False)  # the values × 10^_places
    _places: int = field(init=False, repr=False, compare=False)
    _whole: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        start, end, step = (number.exact for number in (self.start, self.end, self.step))
        shown = f"[{self.start.text}, {self.end.text}, {self.step.text}]"
        if not step:
            raise SweepError(f"the interval {shown} has step 0; the step must lead from start to end")
        if start == end:
            raise SweepError(f"the interval {shown} is empty: it ends before its end, where it starts")
        if (step > 0) != (end > start):
            raise SweepError(f"the interval {shown} leads away from its end; give the step the other sign")
        places = max(0, *(-_split(number)[1] for number in (start, end, step)))
        first, stop, stride = (_units(number, places) for number in (start, end, step))
        if (stop - first) // stride > MOST:
            raise SweepError(f"the interval {shown} has more than {MOST:.0e} values; make the step larger")
        whole = isinstance(self.start.typed, int) and isinstance(self.step.typed, int) and not places
        for name, value in {"_units": range(first, stop, stride), "_places": places, "_whole": whole}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self._units)

    def at(self, position: int) -> Number:
        unit = self._units.start + position * self._units.step
        return Number(str(unit) if self._whole else written(Decimal(unit).scaleb(-self._places, _EXACT)))

    def __iter__(self) -> Iterator[Number]:
        if self._whole:
            return map(Number, map(str, self._units))
        return map(self.at, range(len(self)))


@dataclass(frozen=True)
class Range(Computed):
    """`num` numbers from `min` to `max`, both included, evenly spaced on a linear or logarithmic scale.

    What has no end as a decimal is rounded to 15 significant digits. SweepError where the bounds make no
    sense.
    """

    min: Number
    max: Number
    num: int
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        low, high = self.min.exact, self.max.exact
        if not low < high:
            raise SweepError(f"min ({self.min.text}) must be below max ({self.max.text})")
        if not 2 <= self.num <= MOST:
            raise SweepError(f"num is {self.num}; a range includes both ends, so num is 2 or more")
        if self.scale == "log" and low <= 0:
            raise SweepError(f"min is {self.min.text}; on a log scale it must be above 0")
        if self.scale == "log":
            apart = _FINE.divide(_FINE.ln(_FINE.divide(high, low)), self.num - 1)
        else:
            apart = _FINE.divide(_FINE.subtract(high, low), max(abs(low), abs(high)) * (self.num - 1))
        if apart < _APART:
            raise SweepError(f"num is {self.num}; so many numbers between min and max can't be told apart")

    def __len__(self) -> int:
        return self.num

    def at(self, position: int) -> Number:
        if position in {0, self.num - 1}:
            return Number(written((self.max if position else self.min).exact))
        steps = self.num - 1
        if self.scale == "linear":
            from fractions import Fraction

            low, high = Fraction(self.min.exact), Fraction(self.max.exact)
            exact = low + (high - low) * position / steps
            return Number(written(_SHOWN.divide(Decimal(exact.numerator), Decimal(exact.denominator))))
        ratio = _FINE.ln(_FINE.divide(self.max.exact, self.min.exact))
        factor = _FINE.exp(_FINE.divide(_FINE.multiply(ratio, position), steps))
        return Number(written(_SHOWN.multiply(self.min.exact, factor)))


def finder(values: Sequence[Value]) -> Callable[[Value], Sequence[int]]:
    """What finds all positions of the values that mean the same as a given one; quick when asked often."""
    if isinstance(values, Computed):
        return lambda wanted: _found(values, wanted)
    positions: dict[object, list[int]] = {}
    for position, value in enumerate(values):
        positions.setdefault(meaning(value), []).append(position)
    return lambda wanted: positions.get(meaning(wanted), ())


def _found(values: Computed, wanted: Value) -> Sequence[int]:
    position = values.find(wanted) if isinstance(wanted, Number) else None
    return () if position is None else (position,)


def written(number: Decimal) -> str:
    """A computed number for the command: exact, without trailing zeros, and without an exponent from 1e-6
    to 1e15."""
    units, exponent = _split(number)
    if not units:
        return "0"
    sign, digits = "-" if units < 0 else "", str(abs(units))
    point = len(digits) + exponent  # the digits before the decimal point
    if not -5 <= point <= 15 and not (point == 16 and digits == "1"):
        fraction = f".{digits[1:]}" if digits[1:] else ""
        return f"{sign}{digits[0]}{fraction}e{point - 1}"
    if exponent >= 0:
        return sign + digits + "0" * exponent
    if point > 0:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    return f"{sign}0.{'0' * -point}{digits}"


def _split(number: Decimal) -> tuple[int, int]:
    """(units, exponent) with number = units × 10^exponent and no trailing zeros in units."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    bare = text.rstrip("0")
    if not bare or not isinstance(exponent, int):
        return 0, 0
    return (-int(bare) if sign else int(bare)), exponent + len(text) - len(bare)


def _units(number: Decimal, places: int) -> int:
    """number × 10^places, exactly."""
    units, exponent = _split(number)
    return int(units * 10 ** max(0, exponent + places))
