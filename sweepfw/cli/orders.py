"""`pause` and `stop`: orders for sweeps, wherever they run."""

from __future__ import annotations

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names, targets
from sweepfw.errors import SweepError


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
def pause(sweep: str) -> None:
    """Let running trials of SWEEP end and start no new ones. `sweepfw resume` goes on."""
    from sweepfw.core.naming import parse_target

    ledger = options.existing(options.workspace())
    found = ledger.sweep(parse_target(sweep, trial=False).sweep)
    if found.state in ("done", "stopped"):
        raise SweepError(f"{found.name} is {found.state}; only a sweep that runs can be paused")
    ledger.pause(found.uid)
    click.echo(f"{found.name} is paused; `sweepfw resume {found.name}` goes on")


@click.command()
@click.argument("what", metavar="[SWEEP[/N]]", required=False, shell_complete=targets)
@click.option("--all", "everything", is_flag=True, help="Stop every sweep of this workspace.")
@click.option(
    "--now", is_flag=True, help="Kill at once, without the grace that trials have to end by themselves."
)
def stop(what: str | None, everything: bool, now: bool) -> None:
    """Cancel SWEEP, or one trial of it: queued trials won't start, running ones are ended.

    Running trials get SIGTERM and, after the project's `grace`, SIGKILL. What succeeded or failed stays so.
    """
    from sweepfw.core.naming import parse_target

    if bool(what) == everything:
        raise click.UsageError("name a SWEEP, one trial SWEEP/N, or --all")
    ledger = options.existing(options.workspace())
    if what is None:
        live = [sweep for sweep in ledger.sweeps() if sweep.state in ("queued", "running", "paused")]
        for sweep in live:
            _tell(sweep.name, ledger.stop(sweep.uid, now=now))
        if not live:
            click.echo("nothing runs or waits")
        return
    target = parse_target(what)
    found = ledger.sweep(target.sweep)
    numbers = None if target.trial is None else [target.trial]
    if numbers and not list(ledger.trials(found.uid, numbers=numbers)):
        raise SweepError(f"{found.name} has no trial {target.trial}; it has {found.total}")
    _tell(what, ledger.stop(found.uid, numbers, now=now))


def _tell(name: str, touched: int) -> None:
    trials = "1 trial" if touched == 1 else f"{touched:,} trials"
    click.echo(f"{name}: {trials} cancelled" if touched else f"{name}: nothing left to stop")
