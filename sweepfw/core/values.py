"""Parameter values: what the user wrote, and what it means.

A value is a string, a boolean, null, a `Number`, or a tuple of values. A number keeps the text that the
user wrote, for the command, beside its exact meaning, for sorting and matching.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_DIGITS = re.compile(r"[-+]?\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite decimal number. Two numbers are the same text; `exact` compares their meaning."""

    text: str

    @property
    def exact(self) -> Decimal:
        return Decimal(self.text)

    @property
    def typed(self) -> int | float:
        """As JSON gives it: an int where the text has neither point nor exponent."""
        return int(self.text) if _DIGITS.fullmatch(self.text) else float(self.text)


Value: TypeAlias = "str | bool | Number | tuple[Value, ...] | None"
Params: TypeAlias = Mapping[str, Value]


def is_number(text: str) -> bool:
    """Whether a plain scalar is a number: decimal digits, point, exponent (`1e-5`, `010`, `.5`)."""
    return _NUMBER.fullmatch(text) is not None


def meaning(value: Value) -> object:
    """A hashable key under which values that mean the same are equal: 0.1 and 0.10, but not 1 and "1"."""
    if isinstance(value, Number):
        return ("number", value.exact)
    if isinstance(value, tuple):
        return ("list", *map(meaning, value))
    return (type(value).__name__, value)


def typed(value: Value) -> Any:
    """The value as JSON shows it to people and programs: numbers as numbers, lists as lists."""
    if isinstance(value, Number):
        return value.typed
    if isinstance(value, tuple):
        return [typed(item) for item in value]
    return value


def text(value: Value) -> str:
    """The value as the command line shows it, and as `{name}` in a command gets it."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, tuple):
        return " ".join(map(text, value))
    if isinstance(value, str):
        return value
    return {True: "true", False: "false", None: "null"}[value]


def to_json(value: Value) -> Any:
    """JSON that `from_json` turns into the same value; numbers keep their text."""
    if isinstance(value, Number):
        return {"n": value.text}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Value:
    if isinstance(value, dict):
        return _number(value["n"])
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    return value  # type: ignore[no-any-return]  # str, bool or null, as to_json left it


_number = lru_cache(maxsize=4096)(Number)  # the trials of a grid share their values


def encode(params: Params) -> str:
    """JSON that `decode` turns into the same parameters, texts included. Equal parameters: equal JSON."""
    return json.dumps({name: to_json(value) for name, value in params.items()}, separators=(",", ":"))


def decode(stored: str) -> dict[str, Value]:
    return decode_all([stored])[0]


def decode_all(stored: Iterable[str]) -> list[dict[str, Value]]:
    """What `decode` makes of each, in a third of the time."""
    return [
        {name: value if type(value) is str else from_json(value) for name, value in params.items()}
        for params in json.loads(f"[{','.join(stored)}]")
    ]
