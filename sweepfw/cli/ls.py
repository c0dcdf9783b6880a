"""`ls`: the sweeps of this workspace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.ranking import Entry

HINT = "no sweeps here yet; `sweepfw run PROJECT` starts one (`sweepfw new NAME` makes a project)"
HEADERS = ("SWEEP", "STATE", "DONE", "FAILED", "BEST", "AGE", "TASK", "NOTE")


@click.command()
@options.as_json
def ls(as_json: bool) -> None:
    """List the sweeps of this workspace, the newest last."""
    from sweepfw.cli import records

    place = options.workspace()
    ledger = options.existing(place) if place.ledger.exists() else None
    sweeps = [(sweep, records.leader(ledger, sweep)) for sweep in ledger.sweeps()] if ledger else []
    if as_json:
        import json

        click.echo(json.dumps([records.overview(*each) for each in sweeps], indent=2))
    elif not sweeps:
        click.echo(HINT)
    else:
        _print(place, sweeps)


def _print(place: Workspace, sweeps: list[tuple[Sweep, Entry | None]]) -> None:
    import sys

    from sweepfw.cli.render import Screen, table

    now = time.time()
    rows = [_row(place, sweep, best, now) for sweep, best in sweeps]
    click.echo("\n".join(table(HEADERS, rows, Screen.of(sys.stdout))))


def _row(place: Workspace, sweep: Sweep, best: Entry | None, now: float) -> list[str]:
    from sweepfw.cli.render import age

    done = sum(sweep.counts.get(state, 0) for state in ("succeeded", "failed", "cancelled"))
    failed = sweep.counts.get("failed", 0)
    return [
        sweep.name,
        shown_state(place, sweep),
        f"{done}/{sweep.total}",
        str(failed) if failed else "-",
        leads(sweep, best),
        age(now - sweep.created),
        f"{sweep.spec.project}/{sweep.spec.task}",
        sweep.note,
    ]


def leads(sweep: Sweep, best: Entry | None) -> str:
    """`val_accuracy 0.98 (7)`: the best value and its trials."""
    from sweepfw.cli.render import number, ranges

    if best is None or sweep.spec.objective is None:
        return "-"
    return f"{sweep.spec.objective.metric} {number(best.mean)} ({ranges(best.trials)})"


def shown_state(place: Workspace, sweep: Sweep) -> str:
    """The sweep's state; `interrupted` where the ledger says that it runs but nobody runs it."""
    from sweepfw.engine.lock import SweepLock

    dead = sweep.state == "running" and not SweepLock.held(place, sweep.uid)
    return "interrupted" if dead else sweep.state
