"""`rm`: delete sweeps with all their files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import BusyError

if TYPE_CHECKING:
    from sweepfw.cli.site import Site, Sites
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger

TRASH = ".removed-"  # what a folder under runs/ is renamed to before its content goes; `gc` finishes it
PATIENCE = 30.0  # seconds that a stopped run has to end


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
    _, count = measure(str(site.place.run(sweep.name)))
    return f"Delete {sweep.name}: {plural(sweep.total, 'trial')}, {size(count)}?"


def remove(place: Workspace, ledger: Ledger, sweep: Sweep, *, stop: bool) -> None:
    """Delete a sweep of this machine with all its files. BusyError where it runs and `stop` was not said."""
    from sweepfw.engine.lock import SweepLock
    from sweepfw.trial.guard.files import remove as delete

    if stop:
        ledger.stop(sweep.uid, now=True)
    lock = SweepLock.acquire(place, sweep.uid, wait=PATIENCE if stop else 1)
    try:
        # Renamed first: killed at any moment, this leaves a sweep that can be removed again, or only rubbish.
        rubbish = _put_aside(place.run(sweep.name))
        ledger.remove(sweep.uid)
        ledger.flush()
        delete(str(rubbish))
    finally:
        lock.release()


def _put_aside(folder: Path) -> Path:
    import os

    rubbish = folder.with_name(f"{TRASH}{folder.name}-{os.urandom(4).hex()}")
    if folder.exists():
        folder.rename(rubbish)
    return rubbish
