"""`--set NAME=VALUE[,VALUE]`: values of the command line, put in place of a space's own or joined to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sweepfw.config.forms import read_value, read_values
from sweepfw.config.node import Node
from sweepfw.config.scalars import clip
from sweepfw.core import rules
from sweepfw.core.sequences import finder
from sweepfw.core.space import Parameter, Space
from sweepfw.core.values import Value, meaning
from sweepfw.errors import SweepError

Read = Callable[[str, str], Node]

MOST_UNITED = 1_000_000
_FLOW = ("[", "{", "!!")
# A quoted text with what follows it, or anything without a comma.
_PIECE = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')[^,]*|[^,]*""", re.DOTALL)


def apply_sets(space: Space, sets: Sequence[str], read: Read) -> Space:
    """The space with these values in place of its own. `read` turns text and place into a Node.

    SweepError for unknown names, for values that are none, and where a rule no longer fits.
    """
    return _with_values(space, _parse(space, sets, read))


def unite(space: Space, sets: Sequence[str], read: Read) -> Space:
    """The space with these values joined to its own: its own first, then those that mean something new.

    Zipped parameters grow by rows, so all of a group are set together.
    """
    given = _parse(space, sets, read)
    values = space.values
    united = {name: _join(name, values[name], new) for name, new in given.items()}
    for group in space.zip:
        united |= _join_rows(group, values, given)
    # What an entry of include did not say was the one value there was; it stays that.
    include = tuple(rules.complete(entry, values, space.when) for entry in space.include)
    return _with_values(replace(space, include=include), united)


def _parse(space: Space, sets: Sequence[str], read: Read) -> dict[str, Sequence[Value]]:
    given: dict[str, Sequence[Value]] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        name = name.strip()
        shown = f"--set {clip(name)}"
        if not equals:
            raise SweepError(f"{shown}: no value; write --set NAME=VALUE, as in --set lr=0.1,0.01")
        if name == space.seed:
            raise SweepError(f"{shown}: it is the seed and gets the number of the repeat; use --repeats")
        if name not in space.values:
            known = rules.suggest(name, space.values)
            raise SweepError(f"{shown}: the project has no such parameter{known}")
        if name in given:
            raise SweepError(f"{shown}: set twice; separate its values with commas, as in --set lr=0.1,0.01")
        try:
            given[name] = _read(name, text.strip(), shown, read)
        except SweepError as error:  # the place says the name already
            raise SweepError(str(error).replace(f"{shown}: {name}: ", f"{shown}: ", 1)) from None
    return given


def _read(name: str, text: str, shown: str, read: Read) -> Sequence[Value]:
    """The values of one `--set`: as in the file where it begins so, else scalars between commas."""
    if text.startswith(_FLOW):
        return read_values(name, read(text, shown))
    values = []
    for piece in split_commas(text):
        if not piece:
            raise SweepError(f"{shown}: a value is empty; write '' for an empty text, null for none")
        if piece.startswith(_FLOW):
            raise SweepError(
                f"{shown}: a list stands in one of values, as in --set 'layers=[[64, 64], [128]]'"
            )
        values.append(read_value(name, read(piece, shown)))
    return tuple(values)


def split_commas(text: str) -> list[str]:
    """The pieces between commas; commas in a quoted piece are part of it."""
    pieces, position = [], 0
    while True:
        match = _PIECE.match(text, position)
        assert match is not None  # it matches nothing, too
        pieces.append(match[0].strip())
        if match.end() >= len(text):
            return pieces
        position = match.end() + 1


def _with_values(space: Space, values: Mapping[str, Sequence[Value]]) -> Space:
    parameters = tuple(Parameter(each.name, values.get(each.name, each.values)) for each in space.parameters)
    try:
        return replace(space, parameters=parameters)
    except SweepError as error:
        raise SweepError(f"--set: {error}") from None


def _join(name: str, old: Sequence[Value], new: Sequence[Value]) -> Sequence[Value]:
    """The old values, then the new ones that they lack."""
    if len(new) > MOST_UNITED:
        raise SweepError(f"--set {name}: {len(new):,} values are too many to add; give fewer")
    added: dict[object, Value] = {}
    find = finder(old)
    for value in new:
        if not find(value):
            added.setdefault(meaning(value), value)
    if not added:
        return old
    if len(old) > MOST_UNITED:
        raise SweepError(f"--set {name}: it has {len(old):,} values already, too many to add to")
    return (*old, *added.values())


def _join_rows(
    group: Sequence[str], old: Mapping[str, Sequence[Value]], given: Mapping[str, Sequence[Value]]
) -> dict[str, Sequence[Value]]:
    """The columns of a zip group with the rows that it lacks."""
    if not any(name in given for name in group):
        return {}
    if missing := [name for name in group if name not in given]:
        raise SweepError(f"--set: {', '.join(group)} are zipped; set {' and '.join(missing)} as well")
    columns = {name: given[name] for name in group}
    if len({len(column) for column in columns.values()}) > 1:
        shown = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        raise SweepError(f"--set: zip needs as many values in each of its group: {shown}")
    rows: dict[tuple[object, ...], tuple[Value, ...]] = {}
    for source in (old, given):
        for row in zip(*(source[name] for name in group), strict=True):
            rows.setdefault(tuple(map(meaning, row)), row)
    return {name: tuple(row[place] for row in rows.values()) for place, name in enumerate(group)}
