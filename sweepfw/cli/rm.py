"""`rm`: delete sweeps with all their files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import BusyError

if TYPE_CHECKING:
    from sweepfw.cli.site import Site, Sites
    from sweepfw.core.model import Sweep


@click.command()
@click.argument("sweeps", metavar="SWEEP...", nargs=-1, required=True, shell_complete=sweep_names)
@click.option("--stop", is_flag=True, help="Stop a sweep that runs first, at once.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@options.sites
def rm(sites: Sites, sweeps: tuple[str, ...], stop: bool, yes: bool) -> None:
    """Delete sweeps: their trials, logs, metrics, output files and checkpoints. Their names stay used.

    A sweep that runs is refused without --stop. On a terminal it asks first.
    """
    found = sites.find_all(sweeps)
    for site, sweep in found:  # all or nothing: look at every one before the first is touched
        if not stop and site.live(sweep):
            raise BusyError(f"{sweep.name} runs; `sweepfw rm --stop {sweep.name}` stops it first")
    for site, sweep in found:
        if yes or not sys.stdin.isatty() or click.confirm(_question(site, sweep)):
            site.forget(sweep, stop=stop)
            click.echo(f"{sweep.name} removed")


def _question(site: Site, sweep: Sweep) -> str:
    from sweepfw.cli.render import plural, size
    from sweepfw.trial.guard.files import measure

    if site.remote:
        return f"Delete {sweep.name}: {plural(sweep.total, 'trial')} on {site.name}?"
    _, count = measure(str(site.place.run(sweep.name)), lenient=True)
    return f"Delete {sweep.name}: {plural(sweep.total, 'trial')}, {size(count)}?"
