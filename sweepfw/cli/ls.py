"""`ls`: the sweeps of this workspace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.site import Site, Sites
    from sweepfw.core.model import Sweep
    from sweepfw.core.ranking import Entry

HINT = "no sweeps here yet; `sweepfw run PROJECT` starts one (`sweepfw new NAME` makes a project)"
HEADERS = ("SWEEP", "STATE", "DONE", "FAILED", "BEST", "AGE", "TASK", "NOTE")


@click.command()
@options.as_json
@options.sites
def ls(sites: Sites, as_json: bool) -> int:
    """List the sweeps of this workspace and of the deployment, the newest last.

    A deployment that does not answer is named, with exit code 4; this machine's sweeps are listed all the
    same.
    """
    from sweepfw.cli import records

    found: list[tuple[Site, Sweep, Entry | None]] = []
    failure = _collect(sites, found)
    if as_json:
        import json

        told = [{**records.overview(sweep, best), "place": site.name} for site, sweep, best in found]
        click.echo(json.dumps(told, indent=2))
    elif found:
        _print(found)
    elif not failure:
        click.echo(HINT)
    if failure:
        from sweepfw.cli.terminal import safe

        click.echo(f"sweepfw: {safe(str(failure))}", err=True)
        return failure.exit_code
    return 0


def _collect(sites: Sites, found: list[tuple[Site, Sweep, Entry | None]]) -> SweepError | None:
    """Every sweep with its best trial; what kept us from asking the deployment."""
    from sweepfw.cli import records

    failure: SweepError | None = None
    for ask in (sites.local, sites.deployment):
        try:
            if site := ask():
                found += [(site, each, records.leader(site.ledger, each)) for each in site.ledger.sweeps()]
        except SweepError as error:
            if ask == sites.local:
                raise
            failure = error
    return failure


def _print(found: list[tuple[Site, Sweep, Entry | None]]) -> None:
    import sys

    from sweepfw.cli.render import Screen, table

    now = time.time()
    rows = [_row(*each, now) for each in found]
    headers = list(HEADERS)
    if any(site.remote for site, *_ in found):  # else it would say `here` in every row
        headers.insert(1, "PLACE")
        for row, (site, *_) in zip(rows, found, strict=True):
            row.insert(1, site.name)
    click.echo("\n".join(table(headers, rows, Screen.of(sys.stdout))))


def _row(site: Site, sweep: Sweep, best: Entry | None, now: float) -> list[str]:
    from sweepfw.cli.render import age

    done = sum(sweep.counts.get(state, 0) for state in ("succeeded", "failed", "cancelled"))
    failed = sweep.counts.get("failed", 0)
    return [
        sweep.name,
        shown_state(site, sweep),
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


def shown_state(site: Site, sweep: Sweep) -> str:
    """The sweep's state; `interrupted` where the ledger says that it runs but nobody runs it."""
    dead = sweep.state == "running" and not site.live(sweep)
    return "interrupted" if dead else sweep.state
