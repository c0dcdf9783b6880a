"""`pause` and `stop`: orders for sweeps, wherever they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names, targets
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.site import Site, Sites
    from sweepfw.core.model import Sweep


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@options.sites
def pause(sites: Sites, sweep: str) -> None:
    """Let running trials of SWEEP end and start no new ones. `sweepfw resume` goes on."""
    from sweepfw.core.naming import parse_target

    site, found = sites.find(parse_target(sweep, trial=False).sweep)
    if found.state in ("done", "stopped"):
        raise SweepError(f"{found.name} is {found.state}; only a sweep that runs can be paused")
    site.ledger.pause(found.uid)
    click.echo(f"{found.name} is paused; `sweepfw resume {found.name}` goes on")


@click.command()
@click.argument("what", metavar="[SWEEP[/N]]", required=False, shell_complete=targets)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every sweep of this workspace; with --on, of D.",
)
@click.option(
    "--now", is_flag=True, help="Kill at once, without the grace that trials have to end by themselves."
)
@options.sites
def stop(sites: Sites, what: str | None, everything: bool, now: bool) -> None:
    """Cancel SWEEP, or one trial of it: queued trials won't start, running ones are ended.

    Running trials get SIGTERM and, after the project's `grace`, SIGKILL. What succeeded or failed stays so.
    """
    from sweepfw.core.naming import parse_target

    if bool(what) == everything:
        raise click.UsageError("name a SWEEP, one trial SWEEP/N, or --all")
    if what is None:
        _stop_all(sites, now=now)
        return
    target = parse_target(what)
    site, found = sites.find(target.sweep)
    ledger = site.ledger
    numbers = None if target.trial is None else [target.trial]
    if numbers and not list(ledger.trials(found.uid, numbers=numbers)):
        raise SweepError(f"{found.name} has no trial {target.trial}; it has {found.total}")
    touched = ledger.stop(found.uid, numbers, now=now)
    _see_to_it(site, found)
    _tell(what, touched)


def _stop_all(sites: Sites, *, now: bool) -> None:
    """Every sweep that runs or waits: of this workspace, or of the deployment that was named."""
    site = sites.local() or sites.named()
    if site is None:
        options.existing(sites.place)
        return
    live = [sweep for sweep in site.ledger.sweeps() if sweep.state in ("queued", "running", "paused")]
    told = [(sweep, site.ledger.stop(sweep.uid, now=now)) for sweep in live]
    for sweep, touched in told:
        _see_to_it(site, sweep)
        _tell(sweep.name, touched)
    if not live:
        click.echo("nothing runs or waits")


def _see_to_it(site: Site, sweep: Sweep) -> None:
    """A run that lives obeys, and so does a head. A run that was killed is settled, once what it left has
    ended."""
    if site.remote:
        return
    from sweepfw.engine.lock import SweepLock

    place, ledger = site.place, site.ledger

    def obeyed() -> bool:
        return SweepLock.heeded(place, sweep.uid) or not ledger.running(sweep.uid)

    lock = SweepLock.try_acquire(place, sweep.uid, obeyed)
    if lock is not None:
        from sweepfw.engine.session import settle

        settle(place, ledger, sweep)
        lock.release()


def _tell(name: str, touched: int) -> None:
    trials = "1 trial" if touched == 1 else f"{touched:,} trials"
    click.echo(f"{name}: {trials} cancelled" if touched else f"{name}: nothing left to stop")
