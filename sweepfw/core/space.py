"""The space of a sweep: its parameters with their values, and the rules that combine them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweepfw.core.rules import (
    When,
    check_duplicates,
    check_entry,
    check_name,
    check_repeats,
    check_seed,
    check_when,
    check_zip,
    complete,
)
from sweepfw.core.sequences import Interval, Range
from sweepfw.core.values import Number, Params, Value, from_json, to_json
from sweepfw.errors import SweepError


@dataclass(frozen=True, slots=True)
class Parameter:
    """A name and its values, in the user's order: a tuple, or an Interval or Range computed when asked."""

    name: str
    values: Sequence[Value]


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters and rules as the user wrote them. One that exists is valid: SweepError says what is not.

    `zip`: groups whose parameters go together, row by row. `exclude`: combinations left out. `include`:
    combinations added after that. `when`: a parameter -> the values of others at which it takes part.
    `seed`: the parameter that gets the repeat's number; its own value, if it has one, only gives its place.
    """

    parameters: tuple[Parameter, ...] = ()
    zip: tuple[tuple[str, ...], ...] = ()
    exclude: tuple[Params, ...] = ()
    include: tuple[Params, ...] = ()
    when: When = field(default_factory=dict)
    repeats: int = 1
    seed: str | None = None

    def __post_init__(self) -> None:
        values: dict[str, Sequence[Value]] = {}
        for parameter in self.parameters:
            check_name(parameter.name)
            if parameter.name in values:
                raise SweepError(f"{parameter.name} stands here twice; a parameter has one name")
            if isinstance(parameter.values, tuple) and not parameter.values:
                raise SweepError(f"{parameter.name} has no values; give it at least one, or leave it out")
            values[parameter.name] = parameter.values
        check_repeats(self.repeats)
        if self.seed is not None:
            check_seed(self.seed, values)
        known = self.values
        check_zip(self.zip, known, self.seed)
        check_duplicates(known, self.zip)
        for rule, entries in (("exclude", self.exclude), ("include", self.include)):
            for entry in entries:
                check_entry(rule, entry, known, self.seed)
        check_when(self.when, known, self.seed)
        for entry in self.include:
            complete(entry, known, self.when)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that trials have, in order; the seed last unless it has a place of its own."""
        names = tuple(parameter.name for parameter in self.parameters)
        return names if self.seed is None or self.seed in names else (*names, self.seed)

    @property
    def values(self) -> dict[str, Sequence[Value]]:
        """The values of all parameters but the seed."""
        return {each.name: each.values for each in self.parameters if each.name != self.seed}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, as compact as what the user wrote; `from_json` gives an equal Space."""
        return {
            "parameters": [[each.name, _pack(each.values)] for each in self.parameters],
            "zip": [list(group) for group in self.zip],
            "exclude": [_pack_params(entry) for entry in self.exclude],
            "include": [_pack_params(entry) for entry in self.include],
            "when": {name: _pack_params(entry) for name, entry in self.when.items()},
            "repeats": self.repeats,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The Space of `to_json`'s data. Keys that are missing have their defaults."""
        return cls(
            tuple(Parameter(name, _unpack(values)) for name, values in data.get("parameters", ())),
            tuple(tuple(group) for group in data.get("zip", ())),
            tuple(_unpack_params(entry) for entry in data.get("exclude", ())),
            tuple(_unpack_params(entry) for entry in data.get("include", ())),
            {name: _unpack_params(entry) for name, entry in data.get("when", {}).items()},
            data.get("repeats", 1),
            data.get("seed"),
        )


def _pack(values: Sequence[Value]) -> Any:
    if isinstance(values, Interval):
        return {"interval": [values.start.text, values.end.text, values.step.text]}
    if isinstance(values, Range):
        return {"range": [values.min.text, values.max.text, values.num, values.scale]}
    return [to_json(value) for value in values]


def _unpack(data: Any) -> Sequence[Value]:
    if isinstance(data, list):
        return tuple(from_json(value) for value in data)
    if "interval" in data:
        return Interval(*map(Number, data["interval"]))
    low, high, num, scale = data["range"]
    return Range(Number(low), Number(high), num, scale)


def _pack_params(params: Params) -> dict[str, Any]:
    return {name: to_json(value) for name, value in params.items()}


def _unpack_params(data: Mapping[str, Any]) -> dict[str, Value]:
    return {name: from_json(value) for name, value in data.items()}
