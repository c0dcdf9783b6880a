"""`export`: parameters and metrics for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger


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
def export(sweeps: tuple[str, ...], kind: str | None, history: bool, path: Path | None) -> None:
    """Write the trials of one or more sweeps: a column for each parameter and each metric.

    In csv and md, parameters are as they were written, times in UTC. In csv a text that a spreadsheet would
    take for a formula gets an apostrophe in front. FILE is replaced only when all is written.
    """
    from sweepfw.core.naming import parse_target

    kind = kind or (path.suffix[1:] if path and path.suffix[1:] in ("csv", "json", "jsonl", "md") else "csv")
    place = options.workspace()
    ledger = options.existing(place)
    found = [ledger.sweep(parse_target(name, trial=False).sweep) for name in dict.fromkeys(sweeps)]
    with _destination(path) as out:
        for line in lines(place, ledger, found, kind, history=history):
            out.write(line)


def lines(
    place: Workspace, ledger: Ledger, sweeps: list[Sweep], kind: str, *, history: bool
) -> Iterator[str]:
    """The whole export, in pieces; memory does not grow with the number of trials."""
    from sweepfw.cli import tabular

    if kind in ("json", "jsonl"):
        yield from _objects(_records(place, ledger, sweeps, history=history), as_array=kind == "json")
        return
    rows = tabular.history_rows(place, ledger, sweeps) if history else tabular.trial_rows(ledger, sweeps)
    yield from (tabular.csv_lines(rows) if kind == "csv" else tabular.markdown_lines(rows))


def _records(
    place: Workspace, ledger: Ledger, sweeps: list[Sweep], *, history: bool
) -> Iterator[dict[str, object]]:
    from sweepfw.cli import records, tabular

    for sweep in sweeps:
        if history:
            for point in tabular.points(place, ledger, sweep):
                yield {**point._asdict(), "value": records.number(point.value)}
        else:
            for record in records.trials(ledger, sweep):
                yield {"sweep": sweep.name, **record}


def _objects(found: Iterator[dict[str, object]], *, as_array: bool) -> Iterator[str]:
    if not as_array:
        yield from (json.dumps(record) + "\n" for record in found)
        return
    yield "["
    for position, record in enumerate(found):
        yield (",\n" if position else "\n") + json.dumps(record)
    yield "\n]\n"


@contextmanager
def _destination(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is replaced only when all is written."""
    if path is None:
        import sys

        yield sys.stdout
        return
    import os

    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise SweepError(f"{path}: can't be written ({error.strerror}); name a file that can") from None
    finally:
        unfinished.unlink(missing_ok=True)
