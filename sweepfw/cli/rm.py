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
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger

TRASH = ".removed-"  # what a folder under runs/ is renamed to before its content goes; `gc` finishes it
PATIENCE = 30.0  # seconds that a stopped run has to end


@click.command()
@click.argument("sweeps", metavar="SWEEP...", nargs=-1, required=True, shell_complete=sweep_names)
@click.option("--stop", is_flag=True, help="Stop a sweep that runs first, at once.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def rm(sweeps: tuple[str, ...], stop: bool, yes: bool) -> None:
    """Delete sweeps: their trials, logs, metrics, output files and checkpoints. Their names stay used.

    A sweep that runs is refused without --stop. On a terminal it asks first.
    """
    from sweepfw.core.naming import parse_target
    from sweepfw.engine.lock import SweepLock

    place = options.workspace()
    ledger = options.existing(place)
    found = [ledger.sweep(parse_target(name, trial=False).sweep) for name in dict.fromkeys(sweeps)]
    for sweep in found:  # all or nothing: look at every one before the first is touched
        if not stop and SweepLock.held(place, sweep.uid):
            raise BusyError(f"{sweep.name} runs; `sweepfw rm --stop {sweep.name}` stops it first")
    for sweep in found:
        if yes or not sys.stdin.isatty() or click.confirm(_question(place, sweep)):
            _remove(place, ledger, sweep, stop=stop)
            click.echo(f"{sweep.name} removed")


def _question(place: Workspace, sweep: Sweep) -> str:
    from sweepfw.cli.render import plural, size
    from sweepfw.trial.guard.files import measure

    _, count = measure(str(place.run(sweep.name)))
    return f"Delete {sweep.name}: {plural(sweep.total, 'trial')}, {size(count)}?"


def _remove(place: Workspace, ledger: Ledger, sweep: Sweep, *, stop: bool) -> None:
    from sweepfw.engine.lock import SweepLock
    from sweepfw.trial.guard.files import remove

    if stop:
        ledger.stop(sweep.uid, now=True)
    lock = SweepLock.acquire(place, sweep.uid, wait=PATIENCE if stop else 1)
    try:
        # Renamed first: killed at any moment, this leaves a sweep that can be removed again, or only rubbish.
        rubbish = _put_aside(place.run(sweep.name))
        ledger.remove(sweep.uid)
        ledger.flush()
        remove(str(rubbish))
    finally:
        lock.release()


def _put_aside(folder: Path) -> Path:
    import os

    rubbish = folder.with_name(f"{TRASH}{folder.name}-{os.urandom(4).hex()}")
    if folder.exists():
        folder.rename(rubbish)
    return rubbish
