"""Trials and reports as rows, for csv and Markdown."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sweepfw.cli import records
from sweepfw.core.metrics import Point, parse_line, values
from sweepfw.core.values import is_number, text

if TYPE_CHECKING:
    from sweepfw.cli.site import Found, Site
    from sweepfw.core.model import Attempt, Sweep, Trial

OWN = ("sweep", "trial", "repeat", "state", "reason", "attempts", "host", "started", "ended", "seconds")
HISTORY = ("sweep", "trial", "attempt", "metric", "step", "value")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # full-width signs count as well
# What Markdown, and HTML in it, take for more than text; `_` is none within a word, as in val_loss.
_MARKS = re.compile(r"[\\|<>&`*\[\]~]|(?<![^\W_])_|_(?![^\W_])")
_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


class Report(NamedTuple):
    """One point of the history."""

    sweep: str
    trial: int
    attempt: int
    metric: str
    step: float | None
    value: float


def trial_rows(found: Sequence[Found]) -> Iterator[list[str]]:
    """A head, then a row for each trial: about it, its parameters as written, its metrics.

    A parameter and a metric of one name, or with a name of ours, are told apart as `params.x`, `metrics.x`.
    """
    # The first walk finds the columns: trials may have different ones.
    params: dict[str, None] = {}
    metrics: dict[str, None] = {}
    for site, sweep in found:
        for trial in site.ledger.trials(sweep.uid):
            params.update(dict.fromkeys(trial.params))
            metrics.update(dict.fromkeys(trial.metrics))
    yield [
        *OWN,
        *(f"params.{name}" if name in OWN or name in metrics else name for name in params),
        *(f"metrics.{name}" if name in OWN or name in params else name for name in metrics),
    ]
    for site, sweep in found:
        for trial, attempts in records.with_attempts(site.ledger, sweep):
            numbers = values(trial.metrics, sweep.spec.objective)
            yield [
                *_own(sweep, trial, attempts),
                *(text(trial.params[name]) if name in trial.params else "" for name in params),
                *(repr(numbers[name]) if name in numbers else "" for name in metrics),
            ]


def _own(sweep: Sweep, trial: Trial, attempts: Sequence[Attempt]) -> list[str]:
    last = attempts[-1] if attempts else None
    took = last.ended - last.started if last and last.ended is not None else None
    return [
        sweep.name,
        str(trial.number),
        str(trial.repeat),
        trial.state,
        trial.reason,
        str(len(attempts)),
        last.host if last else "",
        _utc(last.started if last else None),
        _utc(last.ended if last else None),
        "" if took is None else f"{took:.3f}",
    ]


def _utc(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def history_rows(found: Sequence[Found]) -> Iterator[list[str]]:
    """A head, then a row for each report."""
    yield list(HISTORY)
    for site, sweep in found:
        for point in points(site, sweep):
            step = "" if point.step is None else f"{point.step:.15g}"
            yield [point.sweep, str(point.trial), str(point.attempt), point.metric, step, repr(point.value)]


def points(site: Site, sweep: Sweep) -> Iterator[Report]:
    """Every report of every attempt, in the order of the files: first what was reported, then what was read
    from the output. A metric that was reported is not taken from the output as well."""
    for attempt in site.ledger.attempts(sweep.uid):
        which = (sweep, attempt.trial, attempt.number)
        reported = set()
        for point in _read(site.lines(*which, "metrics.jsonl")):
            reported.add(point.name)
            yield Report(sweep.name, attempt.trial, attempt.number, point.name, point.step, point.value)
        for point in _read(site.lines(*which, "parsed.jsonl")):
            if point.name not in reported:
                yield Report(sweep.name, attempt.trial, attempt.number, point.name, point.step, point.value)


def _read(lines: Iterable[bytes]) -> Iterator[Point]:
    for line in lines:
        yield from parse_line(line) or ()


def csv_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows as csv (RFC 4180, but lines end as everywhere here). What a spreadsheet would run is defused."""
    import csv
    import io

    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow([_defused(cell) for cell in row])  # with \r\n, or it would not quote a \r
        yield line.getvalue().removesuffix("\r\n") + "\n"


def _defused(cell: str) -> str:
    # OWASP's CSV injection: these make a spreadsheet take the cell for a formula. Numbers are none.
    return f"'{cell}" if _FORMULA.match(cell) and not (is_number(cell) or cell == "-inf") else cell


def markdown_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for position, row in enumerate(rows):
        cells = [_marked(cell) for cell in row]
        yield f"| {' | '.join(cells)} |\n"
        if position == 0:
            yield f"|{' --- |' * len(row)}\n"


def _marked(cell: str) -> str:
    """The text as itself in a cell of Markdown, whatever would be a link, a picture or HTML in it."""
    plain = _MARKS.sub(lambda mark: _HTML.get(mark[0], f"\\{mark[0]}"), cell)
    return re.sub(r"\r\n|[\r\n]", "<br>", plain)
