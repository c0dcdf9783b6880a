"""From what a trial printed or reported to numbers: points, and one summary of each metric.

NaN and infinity are kept as a metric's last value, but never count as its lowest or highest, and never lead a
ranking: a training that diverged is no good one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sweepfw.core.model import MetricSummary, Objective

LINE_LIMIT = 64 * 1024  # bytes of a line without an end that are kept in memory
NAMES_LIMIT = 1000  # metrics of one attempt; a program that makes names up must not fill the ledger
NAME_LIMIT = 200  # characters of one name

# Possessive, but for groups: Python before 3.11.5 takes half of one that fails. `_END` refuses half a number.
_UNIT = r"(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?+\d++)?"
_NUMBER = rf"[-+]?+(?:{_UNIT}|(?i:nan|inf(?:inity)?))"
_START = r"(?<![\w./-])"  # `loss` is not in val_loss, val-loss, val/loss, val.loss
_WRAP = r"(?:(?:tensor|np\.float\d+)\()?"  # as torch and numpy print their scalars
_END = r"(?!\w|[.,:/]\d)"  # no hash, unit, version, date, time, fraction or group of thousands
# Compiled when first used (re keeps them): a run whose trials declare no metrics starts sooner.
_STEP = (
    rb"(?i)(?<![\w./-])(step|epoch)['\"]?+(?:[ \t]*+[:=][ \t]*+|[ \t]++)[\[(]?+[ \t]*+"
    rb"(\d++(?:\.\d++)?)(?!\w|\.\d)"
)
_LINE_END = rb"[\r\n]"
_ESCAPES = rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[@-Z\\^_])"


@dataclass(frozen=True, slots=True)
class Point:
    """One report of one metric. `step` is the user's own count, None where there was none."""

    name: str
    value: float
    step: float | None = None


@dataclass(frozen=True, slots=True)
class _Own:
    """A metric with the user's own pattern: group `value`, else the first that is not `step`."""

    name: str
    pattern: re.Pattern[str]
    group: int

    @classmethod
    def make(cls, name: str, text: str) -> _Own:
        pattern = re.compile(text)
        step = pattern.groupindex.get("step")
        first = next((group for group in range(1, pattern.groups + 1) if group != step), 0)
        return cls(name, pattern, pattern.groupindex.get("value", first))

    def read(self, line: str) -> Iterable[Point]:
        for match in self.pattern.finditer(line):
            value = _float(match[self.group])
            step = _float(match["step"]) if "step" in self.pattern.groupindex else _step(line.encode())
            if value is not None:
                yield Point(self.name, value, step)


class OutputMetrics:
    """Reads declared metrics from output as it comes, in pieces of any size.

    `name: number` and `name=number` are read, several to a line; `step` or `epoch` on the same line is the
    step (`step` where both are). Carriage return ends a line, colours are skipped, bytes that are no UTF-8 do
    no harm, and a line without an end is read in pieces. Costs nothing where nothing is declared.
    """

    def __init__(self, declared: Sequence[tuple[str, str | None]]) -> None:
        names = [name for name, pattern in declared if pattern is None]
        self._names = [name.encode() for name in names]
        self._own = [_Own.make(name, pattern) for name, pattern in declared if pattern is not None]
        self._active = bool(declared)
        either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        text = rf"{_START}({either})['\"]?+[ \t]*+[:=][ \t]*+{_WRAP}({_NUMBER}){_END}"
        self._pattern = re.compile(text.encode())
        self._line_end = re.compile(_LINE_END)
        self._pending = b""

    def feed(self, data: bytes) -> list[Point]:
        """The points of the lines that `data` ended."""
        if not self._active:
            return []
        data = self._pending + data if self._pending else data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > LINE_LIMIT:
            end = max(data.rfind(b" ") + 1, len(data) - LINE_LIMIT)
        self._pending = data[end:]
        return self._read(data[:end]) if end else []

    def end(self) -> list[Point]:
        """The points of a last line that has no end. Nothing is fed after this."""
        data, self._pending = self._pending, b""
        return self._read(data) if data else []

    def _read(self, block: bytes) -> list[Point]:
        if not self._own and not any(name in block for name in self._names):
            return []  # most output; this is as fast as memchr
        if b"\x1b" in block:
            block = re.sub(_ESCAPES, b"", block)
        if not self._own:
            return self._declared(block)
        points = []
        for line in re.split(rb"[\r\n]+", block):
            if self._names:
                points += self._declared(line)
            text = line.decode("utf-8", "replace")
            points += [point for own in self._own for point in own.read(text)]
        return points

    def _declared(self, block: bytes) -> list[Point]:
        """Points of a block of whole lines; only lines that have some are looked at closely."""
        points: list[Point] = []
        end, step = 0, None  # of the line of the match before
        for match in self._pattern.finditer(block):
            if match.start() >= end:
                start = 1 + max(block.rfind(brk, end, match.start()) for brk in (b"\n", b"\r"))
                found = self._line_end.search(block, match.end())
                start, end = start or end, found.end() if found else len(block)
                step = _step(block[start:end])
            points.append(Point(match[1].decode(), float(match[2]), step))
        return points


def _step(line: bytes) -> float | None:
    found = {match[1].lower(): match[2] for match in re.finditer(_STEP, line)}
    text = found.get(b"step", found.get(b"epoch"))
    return None if text is None else float(text)


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def parse_line(line: bytes) -> list[Point] | None:
    """The points of one line of metrics.jsonl, `{"step": 3, "loss": 0.2}`; None where it is no JSON object.

    NaN and infinity may be written as JSON strings or as the words that Python's json writes. What is no
    number is left out.
    """
    import json

    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    step = _json_number(found.pop("step", None))
    values = ((name, _json_number(value)) for name, value in found.items())
    return [Point(_name(name), value, step) for name, value in values if value is not None]


def parse_lines(data: bytes) -> tuple[list[Point], int]:
    """The points of whole lines of metrics.jsonl, and how many lines were no JSON object."""
    points: list[Point] = []
    bad = 0
    for line in data.split(b"\n"):
        if line.strip():
            found = parse_line(line)
            points += found or ()
            bad += found is None
    return points, bad


def _json_number(value: object) -> float | None:
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(value)
    return None


def _name(name: str) -> str:
    # JSON can hold escape sequences and half surrogate pairs; terminals and the ledger should not get them.
    return name if name.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in name)


def fold(summary: MetricSummary | None, point: Point) -> MetricSummary:
    """The summary of all reports so far and this one."""
    value, step = point.value, point.step
    if summary is None:
        return MetricSummary(value, value, value, 1, step, step, step)
    lowest, lowest_step = summary.lowest, summary.lowest_step
    highest, highest_step = summary.highest, summary.highest_step
    if math.isfinite(value):
        if not math.isfinite(lowest) or value < lowest:
            lowest, lowest_step = value, step
        if not math.isfinite(highest) or value > highest:
            highest, highest_step = value, step
    return MetricSummary(value, lowest, highest, summary.count + 1, step, lowest_step, highest_step)


@dataclass(slots=True)
class Fold:
    """Folds many points into one summary for each metric. Beyond `NAMES_LIMIT` names the new ones, and names
    beyond `NAME_LIMIT` characters, are only counted, in `dropped`."""

    summaries: dict[str, MetricSummary] = field(default_factory=dict)
    dropped: int = 0

    def add(self, points: Iterable[Point]) -> None:
        for point in points:
            summary = self.summaries.get(point.name)
            if summary is None and (len(self.summaries) >= NAMES_LIMIT or len(point.name) > NAME_LIMIT):
                self.dropped += 1
            else:
                self.summaries[point.name] = fold(summary, point)


def combine(
    reported: Mapping[str, MetricSummary], printed: Mapping[str, MetricSummary]
) -> dict[str, MetricSummary]:
    """One summary for each metric: a name that was reported is not taken from the output as well."""
    return {**printed, **reported}


def value_at(
    summary: MetricSummary, at: Literal["best", "last"], goal: Literal["minimize", "maximize"]
) -> float:
    """The one number that stands for the attempt; not finite only where every report was so, or the last."""
    if at == "last":
        return summary.last
    return summary.lowest if goal == "minimize" else summary.highest


def values(metrics: Mapping[str, MetricSummary], objective: Objective | None) -> dict[str, float]:
    """One number for each metric: the objective's at its `at`, the last report of all others."""
    return {
        name: value_at(summary, objective.at, objective.goal)
        if objective is not None and name == objective.metric
        else summary.last
        for name, summary in metrics.items()
    }
