"""What people read: tables and the leaderboard. Everything in a cell is made safe for terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sweepfw.cli.terminal import SafeOutput, Screen, cut, paint, safe, width
from sweepfw.cli.words import age, duration, local_time, number, plural, ranges, size
from sweepfw.core.model import Objective
from sweepfw.core.ranking import Entry, Ranking, doubt
from sweepfw.core.values import Value, text

__all__ = [
    "SafeOutput",
    "Screen",
    "age",
    "assignments",
    "cell",
    "cut",
    "duration",
    "leaderboard",
    "local_time",
    "number",
    "objective_line",
    "paint",
    "plural",
    "ranges",
    "safe",
    "size",
    "table",
    "width",
]

_NUMERIC = r"[-+]?[\d.]+([eE][-+]?\d+)?%?|[-+]?inf|nan|-|"
_GAP = "  "
_PLAIN = Screen()
_NARROWEST = 8  # columns are not cut below this width


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen = _PLAIN) -> list[str]:
    """Aligned columns without borders, numbers to the right. Cells are made safe, and cut where the screen is
    too narrow, the widest first. A cell that names a state gets its colour."""
    cells = [[safe(header) for header in headers], *([safe(cell) for cell in row] for row in rows)]
    right = [all(re.fullmatch(_NUMERIC, row[at]) for row in cells[1:]) for at in range(len(headers))]
    widths = _fit([max(width(row[at]) for row in cells) for at in range(len(headers))], screen.width)
    return [_line(row, widths, right, screen, head=position == 0) for position, row in enumerate(cells)]


def _fit(widths: list[int], room: int | None) -> list[int]:
    """Column widths that fit into the room, as far as no column gets narrower than the narrowest."""
    if room is None:
        return widths
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    while over > 0 and max(widths) > _NARROWEST:
        widest = widths.index(max(widths))
        second = max([w for w in widths if w < widths[widest]], default=_NARROWEST)
        step = min(over, max(1, widths[widest] - max(second, _NARROWEST)))
        widths[widest] -= step
        over -= step
    return widths


def _line(
    row: Sequence[str], widths: Sequence[int], right: Sequence[bool], screen: Screen, *, head: bool
) -> str:
    parts = []
    for cell, columns, to_right in zip(row, widths, right, strict=True):
        shown = cut(cell, columns)
        blank = " " * (columns - width(shown))
        painted = screen.paint(shown, "dim" if head else None)
        parts.append(blank + painted if to_right else painted + blank)
    return _GAP.join(parts).rstrip()


# -- the leaderboard -----------------------------------------------------------------------------------


def leaderboard(ranking: Ranking, *, limit: int = 10, screen: Screen = _PLAIN) -> list[str]:
    """The best trials: the objective named above, the parameters that vary as columns, those that don't named
    once below; with repeats mean, standard deviation, number, lowest and highest."""
    lines = [screen.paint(objective_line(ranking.objective), "bold")]
    if not ranking.entries:
        lines.append(f"no trial that succeeded reported {safe(ranking.objective.metric)}")
        return lines
    names = ranking.varying()
    repeated = ranking.repeated
    values = ["MEAN", "±", "N", "MIN", "MAX"] if repeated else [ranking.objective.metric]
    shown = ranking.entries[:limit]
    rows = [_row(position, entry, names, repeated) for position, entry in enumerate(shown, 1)]
    lines += table(["", "TRIALS" if repeated else "TRIAL", *values, *names], rows, screen)
    return lines + _footnotes(ranking, limit, names)


def objective_line(objective: Objective) -> str:
    """`val_accuracy, highest first (the best report of each trial)`."""
    which = "last" if objective.at == "last" else "best"
    first = "highest" if objective.goal == "maximize" else "lowest"
    return f"{safe(objective.metric)}, {first} first (the {which} report of each trial)"


def _row(position: int, entry: Entry, names: Sequence[str], repeated: bool) -> list[str]:
    deviation = "-" if entry.deviation is None else f"{entry.deviation:.3g}"
    values = [number(entry.mean)]
    if repeated:
        values += [deviation, str(entry.n), number(entry.lowest), number(entry.highest)]
    trial = f"{entry.sweep}/{ranges(entry.trials)}{'*' if entry.mixed else ''}"
    return [str(position), trial, *values, *(cell(entry.params, name) for name in names)]


def cell(params: Mapping[str, Value], name: str) -> str:
    """A parameter in a table; `-` where the combination does not have it."""
    return text(params[name]) if name in params else "-"


def _footnotes(ranking: Ranking, limit: int, varying: Sequence[str]) -> list[str]:
    notes = []
    if len(ranking.entries) > limit:
        notes.append(f"… and {len(ranking.entries) - limit} more")
    first = ranking.entries[0].params
    if constant := {name: value for name, value in first.items() if name not in varying}:
        notes.append("the same in all: " + assignments(constant))
    if any(entry.mixed for entry in ranking.entries[:limit]):
        notes.append("* ran newer code than the rest of its sweep (retry --current-code)")
    if ranking.missing:
        metric = safe(ranking.objective.metric)
        notes.append(f"{plural(ranking.missing, 'trial')} succeeded without reporting {metric}")
    notes += doubt_line(ranking)
    return notes


def assignments(params: Mapping[str, Value]) -> str:
    """`lr=0.1 opt=adam`, safe."""
    return " ".join(f"{safe(name)}={safe(text(value))}" for name, value in params.items())


def doubt_line(ranking: Ranking) -> list[str]:
    """The plain statement that the best may be so by chance, where that is so; else nothing."""
    found = doubt(ranking)
    if found is None:
        return []
    lead, error = found
    return [
        f"The best does not lead the second by more than two standard errors "
        f"(lead {lead:.3g}, standard error {error:.3g}): it may be chance; more repeats would tell."
    ]
