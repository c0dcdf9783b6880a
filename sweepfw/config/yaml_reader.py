"""YAML as sweepfw reads it: places for every value, texts kept, nothing constructed, nothing unbounded.

PyYAML parses; the meaning of scalars is ours (see `plain`), so `1e-5` is a number that stays `1e-5`, and
`yes`, `0x1F`, `1_000` and dates are strings. Merge keys (`<<`) are refused: they hide where a value is from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from sweepfw.config.node import Node
from sweepfw.config.scalars import clip, control_at, describe_control, plain
from sweepfw.core.values import Number
from sweepfw.errors import SweepError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 100_000  # what is read within a second; intervals and ranges hold more in one line
MAX_ALIASED = 10_000  # nodes that aliases may add: a bomb has billions

_CORE = "tag:yaml.org,2002:"
_TUPLE = _CORE + "python/tuple"
_BREAKS = "\u2028\u2029\ufffe\uffff"
_OPENERS = ("[", "{", "!!", '"', "'")


def read_file(path: Path, shown: str | None = None) -> Node:
    """The one document of a file; null where it is empty. SweepError for all that is wrong with it."""
    shown = shown or show_path(path)
    return read_document(_load(path, shown), shown)


def read_document(text: str, shown: str) -> Node:
    """The same for text that came from elsewhere than a file."""
    return _compose(text, shown, lines=True)


def read_text(text: str, place: str) -> Node:
    """One value from the command line: YAML where it begins like a list, a mapping, a tag or a quote.

    Anything else is a plain scalar as it stands, so `#`, `: ` and `*` in it are only characters.
    """
    text = text.strip()
    if (at := control_at(text)) is not None:
        raise SweepError(f"{place}: {describe_control(text[at])}")
    if text.startswith(_OPENERS):
        return _compose(text, place, lines=False)
    return Node(plain(text, place), place)


def show_path(path: Path) -> str:
    """The path as people see it: relative to the current folder where that is shorter."""
    absolute = str(path.absolute())
    relative = os.path.relpath(absolute)
    return relative if len(relative) < len(absolute) else absolute


def _load(path: Path, shown: str) -> str:
    """The text of a file, never more than MAX_BYTES of it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SweepError(f"{shown}: is not a file; name a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SweepError(f"{shown}: can't be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise SweepError(f"{shown}: is larger than 1 MB; a project's YAML files are small")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_column(data[: error.start].decode("utf-8", "replace"))
        raise SweepError(f"{shown}:{line}:{column}: is not UTF-8; save the file as UTF-8") from None
    text = text.replace("\r\n", "\n")
    if (at := control_at(text)) is not None:
        line, column = _line_column(text[:at])
        raise SweepError(f"{shown}:{line}:{column}: {describe_control(text[at])}")
    return text


def _line_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Built(NamedTuple):
    """A node with what it weighs: aliases are weighed before anything walks them."""

    node: Node
    size: int
    depth: int


class _Composer:
    """Builds nodes from parse events, one recursion per level down to MAX_DEPTH."""

    def __init__(self, events: Iterator[yaml.Event], shown: str, lines: bool) -> None:
        self.events, self.shown, self.lines = events, shown, lines
        self.anchors: dict[str, _Built] = {}
        self.values = 0
        self.aliased = 0

    def document(self) -> Node:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Node(None, self.place(event))
        built = self.value(next(self.events), 1)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.fail(event, "a second document begins; one file holds one document")
        return built.node

    def place(self, event: yaml.Event) -> str:
        return _place(self.shown, event.start_mark if self.lines else None)

    def fail(self, event: yaml.Event, what: str) -> NoReturn:
        raise SweepError(f"{self.place(event)}: {what}")

    def value(self, event: yaml.Event, depth: int) -> _Built:
        if depth > MAX_DEPTH:
            self.fail(event, f"nested deeper than {MAX_DEPTH} levels; write it flatter")
        self.values += 1
        if self.values > MAX_VALUES:
            self.fail(event, f"more than {MAX_VALUES:,} values; write them as an interval or a range")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(self.scalar(event), 1, 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self.sequence(event, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            built = self.mapping(event, depth)
        else:
            raise AssertionError(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = built
        return built

    def alias(self, event: yaml.AliasEvent, depth: int) -> _Built:
        name = event.anchor or ""
        built = self.anchors.get(name)
        if built is None:
            self.fail(
                event, f"*{clip(name)} stands for nothing; name a value &{clip(name)} before (or quote it)"
            )
        self.aliased += built.size
        if self.aliased > MAX_ALIASED:
            self.fail(event, f"aliases add more than {MAX_ALIASED:,} values; write out what is needed")
        if depth + built.depth - 1 > MAX_DEPTH:
            self.fail(event, f"nested deeper than {MAX_DEPTH} levels by an alias; write it flatter")
        return built._replace(node=replace(built.node, place=self.place(event)))

    def scalar(self, event: yaml.ScalarEvent) -> Node:
        place, text, tag = self.place(event), event.value, event.tag
        if (at := control_at(text)) is not None:  # an escape such as "\\x07" brought it
            self.fail(event, describe_control(text[at]))
        if tag is None:
            return Node(plain(text, place) if event.implicit[0] else text, place)
        if tag in {"!", _CORE + "str"}:
            return Node(text, place)
        value = plain(text, place)
        kinds = {"int": Number, "float": Number, "bool": bool, "null": type(None)}
        kind = kinds.get(tag.removeprefix(_CORE)) if tag.startswith(_CORE) else None
        if kind is None:
            self.refuse_tag(event, tag)
        if not isinstance(value, kind):
            self.fail(event, f"{clip(text)!r} is not what its tag {_short(tag)} says")
        return Node(value, place)

    def refuse_tag(self, event: yaml.Event, tag: str) -> NoReturn:
        if tag == _TUPLE:
            self.fail(event, "an interval is a list: !!python/tuple [start, end] or [start, end, step]")
        self.fail(event, f"unknown tag {clip(_short(tag))}; only !!python/tuple [start, end, step] is known")

    def sequence(self, event: yaml.SequenceStartEvent, depth: int) -> _Built:
        if event.tag not in {None, "!", _CORE + "seq", _TUPLE}:
            self.refuse_tag(event, event.tag)
        items: list[_Built] = []
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(inner, depth + 1))
        node = Node(tuple(item.node for item in items), self.place(event), interval=event.tag == _TUPLE)
        return _weigh(node, items)

    def mapping(self, event: yaml.MappingStartEvent, depth: int) -> _Built:
        if event.tag not in {None, "!", _CORE + "map"}:
            self.refuse_tag(event, event.tag)
        pairs: dict[str, _Built] = {}
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            key = self.key(inner, pairs)
            pairs[key] = self.value(next(self.events), depth + 1)
        values: Mapping[str, Node] = {key: built.node for key, built in pairs.items()}
        return _weigh(Node(values, self.place(event)), list(pairs.values()))

    def key(self, event: yaml.Event, pairs: Mapping[str, _Built]) -> str:
        """A key keeps its text, whatever it looks like: `1` and `true` are names here."""
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in {None, "!", _CORE + "str"}:
            self.fail(event, "a key must be a plain name, not a list, a mapping, an alias or a tagged value")
        key = event.value
        if not key.isprintable():
            self.fail(event, f"{clip(key)!r} can't be a key; use printable characters")
        if key == "<<" and event.implicit[0]:
            self.fail(event, "merge keys (<<) are not supported; write the keys out")
        if key in pairs:
            first = pairs[key].node.place.rsplit(":", 2)[1] if self.lines else ""
            also = f" (first on line {first})" if first else ""
            self.fail(event, f"{clip(key)!r} stands here a second time{also}; keep one of them")
        return key


def _weigh(node: Node, items: list[_Built]) -> _Built:
    return _Built(
        node, 1 + sum(item.size for item in items), 1 + max((item.depth for item in items), default=0)
    )


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag


def _compose(text: str, shown: str, *, lines: bool) -> Node:
    _refuse_breaks(text, shown, lines)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, from C where PyYAML has it
    try:
        return _Composer(iter(yaml.parse(text, Loader=loader)), shown, lines).document()
    except yaml.YAMLError as error:
        place = _place(shown, getattr(error, "problem_mark", None) if lines else None)
        raise SweepError(f"{place}: {_explain(error, text)}") from None


def _refuse_breaks(text: str, shown: str, lines: bool) -> None:
    """YAML takes these for line breaks and would drop blanks beside them, or can't take them at all."""
    for character in _BREAKS:
        if character in text:
            place = "{}:{}:{}".format(shown, *_line_column(text[: text.index(character)])) if lines else shown
            code = f"{ord(character):04X}"
            raise SweepError(f'{place}: the character U+{code} can\'t stand here as it is; write "\\u{code}"')


def _place(shown: str, mark: Any) -> str:
    return shown if mark is None else f"{shown}:{mark.line + 1}:{mark.column + 1}"


def _explain(error: yaml.YAMLError, text: str) -> str:
    """PyYAML's complaint in one line, with what would be right for the frequent ones."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be parsed"
    context = getattr(error, "context", None) or ""
    mark = getattr(error, "problem_mark", None)
    if "cannot start any token" in problem and mark is not None:
        line = text.split("\n")[mark.line]
        character = line[mark.column : mark.column + 1]
        if character == "\t":
            return "a tab can't indent; use spaces"
        return f"a value can't begin with {character!r}; put it in quotes"
    if "mapping values are not allowed" in problem:
        return "a ':' is not expected here; put the value in quotes, or mend the indentation"
    if "end of stream" in problem:
        return "a quoted value is never closed; add the quote"
    if "flow mapping" in context:
        return "a mapping that { began is not continued with ',' or closed with '}' here"
    if "flow" in context:
        return "a list that [ began is not continued with ',' or closed with ']' here"
    if "document start" in problem:
        return "text stands behind the end of the value; one value is expected"
    return f"is not valid YAML: {context}, {problem}" if context else f"is not valid YAML: {problem}"
