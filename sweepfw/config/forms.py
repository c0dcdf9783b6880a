"""The forms of a parameter's values: single, list, interval, range, and the long form of W&B sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sweepfw.config.node import Node
from sweepfw.config.scalars import clip, control_at, describe_control
from sweepfw.core.rules import suggest
from sweepfw.core.sequences import Interval, Range
from sweepfw.core.values import Number, Value, text
from sweepfw.errors import SweepError

_LONG_FORM = ("values", "value", "min", "max", "num", "scale")
_FORMS = "a list is {values: [...]}, a range {min: ..., max: ..., num: ...}"
_INTERVAL = "!!python/tuple [start, end] or [start, end, step]"


@contextmanager
def placed(node: Node) -> Iterator[None]:
    """Puts the node's place in front of what `core` complains about."""
    try:
        yield
    except SweepError as error:
        raise node.error(str(error)) from None


def read_values(name: str, node: Node) -> Sequence[Value]:
    """One parameter's values, in any of the forms: single, list, interval, range, long form."""
    if node.interval:
        return _read_interval(name, node)
    if isinstance(node.value, Mapping):
        return _read_long_form(name, node, node.value)
    items = items_of(node)
    if items is None:
        return (read_value(name, node),)
    if not items:
        raise node.error(f"{name} has no values; give it at least one, or leave it out")
    return tuple(read_value(name, item) for item in items)


def read_value(name: str, node: Node) -> Value:
    """One value: a scalar, or a list of scalars."""
    if node.interval:
        raise node.error(f"{name}: an interval stands alone, not in a list; write {name}: {_INTERVAL}")
    items = items_of(node)
    if items is None:
        return _read_scalar(name, node)
    if not items:
        raise node.error(f"{name}: a value that is a list has at least one item; write '' for an empty text")
    if any(items_of(item) is not None for item in items):
        raise node.error(f"{name}: a value that is a list holds single values, not lists")
    return tuple(_read_scalar(name, item) for item in items)


def _read_scalar(name: str, node: Node) -> Value:
    value = node.value
    if isinstance(value, Mapping):
        raise node.error(f"{name}: a mapping can't be a value; put it in quotes to pass it as text")
    assert value is None or isinstance(value, str | bool | Number)
    if isinstance(value, str) and (at := control_at(value)) is not None:
        raise node.error(f"{name}: {describe_control(value[at])}")
    return value  # numbers are finite and of a sane length, as the reader made them


def _read_number(name: str, node: Node) -> Number:
    value = read_value(name, node)
    if not isinstance(value, Number):
        raise node.error(f"{name}: {describe(value)} is not a number; numbers are such as 5, 0.1 or 1e-5")
    return value


def _read_interval(name: str, node: Node) -> Interval:
    items = items_of(node) or ()
    if len(items) not in {2, 3}:
        raise node.error(
            f"{name}: an interval is {_INTERVAL}; this has {len(items)} item{'s' * (len(items) != 1)}"
        )
    numbers = [_read_number(name, item) for item in items]
    with placed(node), named(name):
        return Interval(*numbers)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts the parameter's name in front of what `core` complains about."""
    try:
        yield
    except SweepError as error:
        raise SweepError(f"{name}: {error}") from None


def _read_long_form(name: str, node: Node, keys: Mapping[str, Node]) -> Sequence[Value]:
    for key, inner in keys.items():
        if key not in _LONG_FORM:
            near = suggest(key, _LONG_FORM)
            right = near if near.endswith("?") else f"; {_FORMS}, and text is put in quotes"
            raise inner.error(f"{name}: unknown key {clip(key)!r}{right}")
    given = set(keys)
    if given == {"values"}:
        if items_of(keys["values"]) is None:
            raise keys["values"].error(f"{name}: values takes a list, as in {{values: [1, 2]}}")
        return read_values(name, keys["values"])
    if given == {"value"}:
        return (read_value(name, keys["value"]),)
    if {"min", "max"} <= given and not given & {"values", "value"}:
        return _read_range(name, node, keys)
    raise node.error(f"{name}: {' with '.join(sorted(given)) or 'an empty mapping'} says no values; {_FORMS}")


def _read_range(name: str, node: Node, keys: Mapping[str, Node]) -> Range:
    if "num" not in keys:
        raise node.error(f"{name}: num is missing; say how many values, as in {{min: 0, max: 1, num: 5}}")
    low, high = _read_number(name, keys["min"]), _read_number(name, keys["max"])
    num = read_whole(f"{name}: num", keys["num"])
    scale = keys["scale"].value if "scale" in keys else "linear"
    if scale not in {"linear", "log"}:
        raise keys["scale"].error(f"{name}: scale is linear or log, not {describe(scale)}")
    with placed(node), named(name):
        return Range(low, high, num, "log" if scale == "log" else "linear")


def read_whole(what: str, node: Node) -> int:
    value = node.value
    if not (isinstance(value, Number) and len(value.text) <= 18 and isinstance(value.typed, int)):
        raise node.error(f"{what} is a whole number, not {describe(value)}")
    return value.typed


def items_of(node: Node) -> tuple[Node, ...] | None:
    """The nodes of a list; None for anything else."""
    if not isinstance(node.value, tuple):
        return None
    return tuple(item for item in node.value if isinstance(item, Node))


def describe(value: object) -> str:
    """What stands there, for a message."""
    if isinstance(value, Number):
        return clip(value.text)
    if isinstance(value, tuple | Mapping):
        return "a list" if isinstance(value, tuple) else "a mapping"
    if value is None or isinstance(value, bool):
        return text(value)
    return repr(clip(str(value)))
