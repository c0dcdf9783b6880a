"""`export`: parameters and metrics for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click

from sweepfw import modes
from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.site import Found, Sites


@click.command()
@click.argument("sweeps", metavar="SWEEP...", nargs=-1, required=True, shell_complete=sweep_names)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json", "jsonl", "md"]),
    help="[default: by FILE's ending, else csv]",
)
@click.option(
    "--history", is_flag=True, help="Every report of every attempt instead of a row for each trial."
)
@click.option(
    "--output", "-o", "path", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE."
)
@options.sites
def export(sites: Sites, sweeps: tuple[str, ...], kind: str | None, history: bool, path: Path | None) -> None:
    """Write the trials of one or more sweeps: a column for each parameter and each metric.

    In csv and md, parameters are as they were written, times in UTC. In csv a text that a spreadsheet would
    take for a formula gets an apostrophe in front. FILE is replaced only when all is written.
    """
    kind = kind or (path.suffix[1:] if path and path.suffix[1:] in ("csv", "json", "jsonl", "md") else "csv")
    found = sites.find_all(sweeps)
    with _destination(path) as out:
        for line in lines(found, kind, history=history):
            out.write(line)


def lines(found: list[Found], kind: str, *, history: bool) -> Iterator[str]:
    """The whole export, in pieces; memory does not grow with the number of trials."""
    from sweepfw.cli import tabular

    if kind in ("json", "jsonl"):
        yield from _objects(_records(found, history=history), as_array=kind == "json")
        return
    rows = tabular.history_rows(found) if history else tabular.trial_rows(found)
    yield from (tabular.csv_lines(rows) if kind == "csv" else tabular.markdown_lines(rows))


def _records(found: list[Found], *, history: bool) -> Iterator[dict[str, object]]:
    from sweepfw.cli import records, tabular

    for site, sweep in found:
        if history:
            for point in tabular.points(site, sweep):
                yield {**point._asdict(), "value": records.number(point.value)}
        else:
            for record in records.trials(site.ledger, sweep):
                yield {"sweep": sweep.name, **record}


def _objects(found: Iterator[dict[str, object]], *, as_array: bool) -> Iterator[str]:
    if not as_array:
        yield from (json.dumps(record) + "\n" for record in found)
        return
    yield "["
    for position, record in enumerate(found):
        yield (",\n" if position else "\n") + json.dumps(record)
    yield "\n]\n"


class _Safe:
    """A terminal, which gets what is in an export as text that does no harm. Files and pipes get it whole."""

    def __init__(self, out: IO[str]) -> None:
        from sweepfw.cli.terminal import safe

        self._out, self._safe = out, safe

    def write(self, text: str) -> None:
        self._out.write("\n".join(map(self._safe, text.split("\n"))))


@contextmanager
def _destination(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is replaced only when all is written."""
    if path is None:
        import sys

        yield cast("IO[str]", _Safe(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    import os

    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with modes.loosened():
            file = unfinished.open("w", encoding="utf-8", newline="")
        with file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise SweepError(f"{path}: can't be written ({error.strerror}); name a file that can") from None
    finally:
        unfinished.unlink(missing_ok=True)
