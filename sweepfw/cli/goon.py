"""`resume`, `retry` and `extend`: go on with a sweep. Whatever they add to the ledger, a run that lives picks
up; where none does, they run it in the foreground."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweepfw import crash
from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import BusyError, SweepError

if TYPE_CHECKING:
    from sweepfw.cli.options import Running
    from sweepfw.cli.site import Found, Site, Sites
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.secrets import Secrets
    from sweepfw.ledger.interface import Ledger


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@click.option("--cancelled", is_flag=True, help="Run trials that were stopped, too.")
@click.option("--only", metavar="N[,N]", help="Run these trials; the others stay queued.")
@options.running
@options.sites
def resume(sites: Sites, sweep: str, cancelled: bool, only: str | None, how: Running) -> int:
    """Run what SWEEP lacks: trials that are queued, were interrupted, or wait after a pause."""
    from sweepfw.cli.leftover import work
    from sweepfw.core.naming import parse_numbers
    from sweepfw.engine.lock import SweepLock
    from sweepfw.ledger.names import unknown_trial

    site, found = _find(sites, sweep)
    place, ledger = site.place, site.ledger
    numbers = parse_numbers(only) if only is not None else None
    if numbers and numbers[-1] > found.total:
        raise unknown_trial(found.name, numbers[-1], found.total)
    secrets, cursor = None, _ended(site, found)
    if cancelled or work(found):  # else nothing is run, and nothing needed
        secrets = _give(site, found, _needed(site, found))
    if cancelled:
        ledger.reopen(found.uid, ["cancelled"], numbers)
    if site.remote:
        if numbers:
            ledger.hold(found.uid, numbers)
        ledger.reopen(found.uid, ["held"], numbers)
    elif found.state == "paused" and SweepLock.heeded(place, found.uid):
        ledger.open(found.uid)  # its run waits for the last trials before the pause, and goes on now
    return _go_on(site, found, how, secrets, cursor, only=only)


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@click.argument("numbers", nargs=-1, metavar="[N]...")
@click.option("--failed", is_flag=True, help="All failed trials; the same as naming none.")
@click.option(
    "--current-code",
    is_flag=True,
    help="Freeze the project anew and run that. Trials that wait take it too, unless N are named.",
)
@options.running
@options.sites
def retry(
    sites: Sites, sweep: str, numbers: tuple[str, ...], failed: bool, current_code: bool, how: Running
) -> int:
    """Run failed trials of SWEEP again: all of them, or trials N and no others. A success is never run
    again."""
    from sweepfw.core.naming import parse_numbers

    site, found = _find(sites, sweep)
    ledger = site.ledger
    wanted = parse_numbers(",".join(numbers), "retry") if numbers and not failed else None
    _check_failed(ledger, found, wanted)
    secrets, cursor = _needed(site, found), _ended(site, found)
    snapshot = _freeze_again(site, found) if current_code else None
    _give(site, found, secrets)  # now that nothing can be refused any more
    if wanted and site.remote and not site.live(found):  # else what waited behind a pause would run too
        ledger.hold(found.uid, wanted)
    again = ledger.reopen(found.uid, ["failed"], wanted, snapshot=snapshot)
    if not again:
        click.echo(f"{found.name} has no failed trials", err=True)
        return 0
    if snapshot and wanted is None:
        # A pause after failures leaves trials queued: they would run, and fail in, the code that was mended.
        ledger.reopen(found.uid, ["queued"], snapshot=snapshot)
    only = ",".join(map(str, again)) if wanted else None
    return _go_on(site, found, how, secrets, cursor, only=only)


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@options.values("Add these values to a parameter that the sweep has.")
@options.max_trials
@options.running
@options.sites
def extend(sites: Sites, sweep: str, sets: tuple[str, ...], max_trials: int, how: Running) -> int:
    """Add values to SWEEP's parameters and run the combinations that it lacks, also while it runs."""
    from dataclasses import replace

    from sweepfw.config.parameters import unite
    from sweepfw.config.yaml_reader import read_text
    from sweepfw.core.grid import check_limit, expand
    from sweepfw.core.space import Space

    if not sets:
        raise SweepError("extend needs new values: --set NAME=V[,V]")
    site, found = _find(sites, sweep)
    space = unite(Space.from_json(found.spec.space), sets, read_text)
    check_limit(space, max_trials)
    secrets, cursor = _give(site, found, _needed(site, found)), _ended(site, found)
    added = site.ledger.extend(found.uid, replace(found.spec, space=space.to_json()), expand(space))
    if not how.quiet and not how.as_json:
        click.echo(f"{found.name}: {added:,} combinations added")
    return _go_on(site, found, how, secrets, cursor) if added else 0


def _find(sites: Sites, name: str) -> Found:
    from sweepfw.core.naming import parse_target

    return sites.find(parse_target(name, trial=False).sweep)


def _needed(site: Site, sweep: Sweep) -> Secrets | None:
    """The secrets that the sweep needs, as they are now. SweepError for what is not there."""
    if not sweep.spec.secrets:
        return None
    from sweepfw.cli.needed import needed

    return needed(sweep.spec, here=not site.remote)


def _give(site: Site, sweep: Sweep, secrets: Secrets | None) -> Secrets | None:
    """Have them where the sweep's trials get them from."""
    if secrets is not None:
        site.give(sweep.uid, secrets)
    return secrets


def _ended(site: Site, sweep: Sweep) -> int:
    """How far its ends are told. A deployment runs what is queued at once: it may end before we look."""
    return site.ledger.last_end(sweep.uid) if site.remote else 0


def _check_failed(ledger: Ledger, sweep: Sweep, numbers: Collection[int] | None) -> None:
    if numbers is None:
        return
    there = {trial.number: trial.state for trial in ledger.trials(sweep.uid, numbers=numbers)}
    for number in numbers:
        if number not in there:
            raise SweepError(f"{sweep.name} has no trial {number}; it has {sweep.total}")
        if there[number] != "failed":
            raise SweepError(f"{sweep.name}/{number} is {there[number]}; retry runs failed trials only")


def _freeze_again(site: Site, sweep: Sweep) -> str:
    from sweepfw.config.project import find_project
    from sweepfw.engine.record import record_code
    from sweepfw.snapshot import freeze

    place = site.place
    root = Path(str(sweep.provenance.get("root") or find_project(place, sweep.spec.project, Path.cwd())))
    if not root.is_dir():
        raise SweepError(
            f"{root}: the project of {sweep.name} is not there any more; retry without --current-code"
        )
    snapshot = freeze(root, place.snapshots, sweep.spec.snapshot_limit).id
    crash.point("retry.frozen")
    site.receive(snapshot)
    record_code(place, site.ledger, sweep, snapshot)
    return snapshot


def _go_on(
    site: Site, sweep: Sweep, how: Running, secrets: Secrets | None, cursor: int, *, only: str | None = None
) -> int:
    """Hand over to the run that holds the sweep, or to the deployment, or run it here."""
    if site.remote:
        from sweepfw.cli.dispatch import go_on

        return go_on(site, sweep, how, cursor)
    return _go_on_here(site.place, site.ledger, sweep, how, secrets, only=only)


def _go_on_here(
    place: Workspace,
    ledger: Ledger,
    sweep: Sweep,
    how: Running,
    secrets: Secrets | None,
    *,
    only: str | None = None,
) -> int:
    from sweepfw.cli.execute import detach, end, execute
    from sweepfw.cli.leftover import nothing_left, work
    from sweepfw.core.naming import parse_numbers
    from sweepfw.engine.lock import SweepLock
    from sweepfw.engine.session import settle

    def handed_over() -> bool:
        """A run lives that takes what was queued before we asked."""
        return SweepLock.heeded(place, sweep.uid) and ledger.sweep(sweep.uid).state == "running"

    lock = SweepLock.try_acquire(place, sweep.uid, handed_over)
    if lock is None:
        if not handed_over():
            raise BusyError(
                f"{sweep.name} is held by a run that takes nothing more; once it has ended, go on with: "
                f"sweepfw resume {sweep.name}"
            )
        if not how.quiet and not how.as_json:
            click.echo(f"{sweep.name} runs already and goes on; follow it with: sweepfw attach {sweep.name}")
        return 0
    if not work(ledger.sweep(sweep.uid)):
        settle(place, ledger, sweep)
        lock.release()
        return nothing_left(ledger.sweep(sweep.uid), how)
    if how.detach:
        lock.release()
        return detach(place, sweep, how, only)
    from sweepfw.trial.guard.client import Guardian

    guardian = Guardian.start()
    try:
        numbers = parse_numbers(only) if only else None
        return execute(
            place, ledger, ledger.sweep(sweep.uid), lock, guardian, how, only=numbers, secrets=secrets
        )
    finally:
        end(guardian)
