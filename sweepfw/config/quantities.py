"""Simple values of project.yml: numbers, words, durations, sizes. Each complaint says what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from sweepfw.config.node import Node
from sweepfw.config.scalars import clip
from sweepfw.core.values import Number, text

T = TypeVar("T")

# Patterns are compiled when first used: most never are.
_DURATION = (
    r"(?:(?P<d>\d+(?:\.\d+)?)d)? *(?:(?P<h>\d+(?:\.\d+)?)h)? *"
    r"(?:(?P<m>\d+(?:\.\d+)?)m)? *(?:(?P<s>\d+(?:\.\d+)?)s)?"
)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LONGEST = 1000 * 86400
_SIZE = r"(\d+(?:\.\d+)?) *([kmgt]i?)?b"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_LARGEST = 10**18


def duration(node: Node) -> float:
    """Seconds above 0: `90`, `30m`, `2h`, `1h30m`, `1d`."""
    seconds = duration_or_zero(node)
    if seconds == 0:
        raise node.error("must be longer than 0; such as 90 (seconds), 30m or 1h30m")
    return seconds


def duration_or_zero(node: Node) -> float:
    seconds = _seconds(node.value)
    if seconds is None:
        raise node.error(f"{shown(node)} is not a duration; write seconds, or such as 30m, 2h or 1h30m")
    if seconds > _LONGEST:
        raise node.error(f"{shown(node)} is too long; at most 1000d")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, Number):
        return float(value.exact) if value.exact >= 0 else None
    match = (
        re.fullmatch(_DURATION, value, re.ASCII) if isinstance(value, str) and 0 < len(value) < 50 else None
    )
    if match is None:
        return None
    return sum(float(number) * _SECONDS[unit] for unit, number in match.groupdict().items() if number)


def size(node: Node) -> int:
    """Bytes above 0: `500MB` is 500,000,000 and `8GiB` is 8 * 2**30; a bare number is bytes."""
    value = node.value
    match = re.fullmatch(_SIZE, value, re.ASCII | re.IGNORECASE) if isinstance(value, str) else None
    if match is not None:
        unit = (match[2] or "").lower()
        count = float(match[1]) * (_BINARY_UNITS.get(unit) or _UNITS[unit])
    elif isinstance(value, Number) and value.exact == int(value.exact):
        count = float(value.exact)
    else:
        raise node.error(f"{shown(node)} is not a size; write such as 500MB, 8GB or 8GiB")
    if not 1 <= count <= _LARGEST:
        raise node.error(f"{shown(node)} is out of range; from 1 byte to {_LARGEST // 10**12:,}TB")
    return int(count)


def whole(node: Node, least: int = 0) -> int:
    """An integer, `least` or more, and at most a billion."""
    value = node.value
    if not isinstance(value, Number) or value.exact != int(value.exact) or not least <= value.exact <= 10**9:
        raise node.error(
            f"{shown(node)} is not a whole number from {least} up; write such as {max(least, 2)}"
        )
    return int(value.exact)


def positive(node: Node) -> float:
    value = node.value
    if not isinstance(value, Number) or not 0 < value.exact <= 10**6:
        raise node.error(f"{shown(node)} is not a number above 0; write such as 1 or 0.5")
    return float(value.exact)


def switch(node: Node) -> bool:
    if not isinstance(node.value, bool):
        raise node.error(f"{shown(node)} is neither true nor false; write one of them")
    return node.value


def word(node: Node) -> str:
    """A scalar as text that is not empty. Numbers keep what the user wrote."""
    value = node.value
    if value is None or isinstance(value, (tuple, Mapping)) or text(value) == "":
        raise node.error(f"{shown(node)} is not text; write one value here")
    return text(value)


def choice(*options: str) -> Callable[[Node], str]:
    """A reader of one of these words."""

    def read(node: Node) -> str:
        if isinstance(node.value, str) and node.value in options:
            return node.value
        raise node.error(f"{shown(node)} is not known here; write {' or '.join(options)}")

    return read


def optional(read: Callable[[Node], T]) -> Callable[[Node], T | None]:
    """The same reader, to which null says None: no limit."""
    return lambda node: None if node.value is None else read(node)


def words(node: Node) -> tuple[str, ...]:
    """One text or a list of texts."""
    return tuple(word(item) for item in items(node))


def items(node: Node) -> tuple[Node, ...]:
    """The nodes of a list; a single value counts as a list of one."""
    if node.interval or isinstance(node.value, Mapping):
        raise node.error(f"{shown(node)} is not a list; write such as [first, second]")
    if isinstance(node.value, tuple):
        return tuple(item if isinstance(item, Node) else Node(item, node.place) for item in node.value)
    return (node,)


def entries(node: Node, example: str) -> Mapping[str, Node]:
    if not isinstance(node.value, Mapping):
        raise node.error(f"{shown(node)} is not a mapping; write such as {example}")
    return node.value


def shown(node: Node) -> str:
    """What stands there, for a message of one line."""
    if isinstance(node.value, Mapping):
        return "a mapping"
    if isinstance(node.value, tuple):
        return "an interval" if node.interval else "a list"
    return repr(clip(node.value)) if isinstance(node.value, str) else clip(text(node.value))


def refuse_unknown(given: Mapping[str, Node], known: Collection[str], where: str = "") -> None:
    """SweepError for the first key that is not known, with the nearest one that is."""
    for key, node in given.items():
        if key not in known:
            raise node.error(f"unknown key {clip(key)!r}{where}; {suggest(key, known)}")


def suggest(given: str, known: Collection[str]) -> str:
    """What would be right instead of `given`: the nearest known name, else all of them."""
    from difflib import get_close_matches

    near = get_close_matches(given.lower()[:100], list(known), n=1, cutoff=0.6)
    few = [*list(known)[:30], "..."] if len(known) > 30 else known
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(few) or 'none'}"
