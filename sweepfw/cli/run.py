"""`run`: freeze a project, submit its grid, run it."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweepfw import crash
from sweepfw.cli import options
from sweepfw.cli.complete import project_names
from sweepfw.cli.prepared import prepare
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweepfw.cli.options import Running
    from sweepfw.cli.prepared import Prepared
    from sweepfw.cli.site import Sites
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger
    from sweepfw.snapshot import Snapshot


@click.command()
@click.argument("project", shell_complete=project_names)
@options.task
@options.sets
@options.repeats
@options.max_trials
@click.option("--name", metavar="NAME", help="The sweep's name. [default: PROJECT-1, -2, ...]")
@click.option("--note", "-m", metavar="NOTE", help="A note that `ls` and `show` print.")
@click.option("--only", metavar="N[,N]", help="Run these trials; the others stay queued.")
@click.option("--dry-run", is_flag=True, help="Show what would run, as `sweepfw plan` does, and run nothing.")
@options.running
@options.sites
def run(
    sites: Sites,
    project: str,
    task: str | None,
    sets: tuple[str, ...],
    repeats: int | None,
    max_trials: int,
    name: str | None,
    note: str | None,
    only: str | None,
    dry_run: bool,
    how: Running,
) -> int:
    """Run every combination of PROJECT's parameters: on the deployment where there is one, else here.

    PROJECT is a name under projects/, or a path. The project is frozen first: editing it while the sweep runs
    changes nothing for its trials. On a deployment, Ctrl-C leaves the sweep, and it goes on.
    """
    _check_note(note or "")
    if dry_run:
        from sweepfw.cli.plan import show_plan

        return show_plan(project, task, sets, repeats, max_trials, how.jobs, as_json=how.as_json)
    wanted = partial(prepare, sites.place, project, task, sets, repeats, max_trials, name, only)
    if there := sites.deployment():
        from sweepfw.cli.dispatch import dispatch

        return dispatch(there, wanted(), name, note, how)
    return _run_here(sites.place, wanted, name, note, how, only)


def _run_here(
    place: Workspace,
    wanted: Callable[[], Prepared],
    name: str | None,
    note: str | None,
    how: Running,
    only: str | None,
) -> int:
    from sweepfw.trial.guard.client import Guardian

    guardian = None if how.detach else Guardian.start()  # boots while we read the project
    from sweepfw.cli.execute import detach, end, execute

    try:
        found = wanted()
        secrets = None
        if found.spec.secrets:
            from sweepfw.cli.needed import needed

            secrets = needed(found.spec, here=True)
        ledger, sweep = _submit(place, found, name, note, how.jobs)
        crash.point("run.submitted")
        if guardian is None:
            return detach(place, sweep, how, only)
        from sweepfw.engine.lock import SweepLock

        lock = SweepLock.acquire(place, sweep.uid)
        return execute(place, ledger, sweep, lock, guardian, how, only=found.only, secrets=secrets)
    finally:
        if guardian:
            end(guardian)


def _check_note(note: str) -> None:
    """SweepError unless it is one line of text, which `ls` and `show` can print."""
    if note.isprintable():
        return
    from unicodedata import category

    for char in note:
        if category(char) == "Cs":
            raise SweepError("--note: is not UTF-8; a note is one line of text")
        if category(char) == "Cc":
            raise SweepError(f"--note: control character U+{ord(char):04X}; a note is one line of text")


def _submit(
    place: Workspace, project: Prepared, name: str | None, note: str | None, jobs: int | None
) -> tuple[Ledger, Sweep]:
    """Everything that can be wrong is found before anything is written."""
    from sweepfw.core.grid import expand
    from sweepfw.engine.session import check_command, place_slots
    from sweepfw.ledger.local import open_ledger
    from sweepfw.snapshot import freeze

    root, spec = project.root, project.spec
    place_slots(spec, jobs)
    check_command(spec, root)
    listing = project.survey()
    ledger = open_ledger(place, create=True)
    if name is not None:
        ledger.check_name(name)
    snapshot = freeze(root, place.snapshots, spec.snapshot_limit, listing)
    sweep = ledger.submit(
        spec,
        snapshot.id,
        expand(project.space),
        name=name,
        note=note or "",
        provenance={"root": str(root)},
    )
    # Beside the first trials: a power cut must not take what the ledger names.
    threading.Thread(target=_settle, args=(place.snapshots, snapshot)).start()
    return ledger, sweep


def _settle(store: Path, snapshot: Snapshot) -> None:
    """For a thread of its own. A disk that fails here has taken what the trials need: they go on."""
    from sweepfw.snapshot import settle

    try:
        settle(store, snapshot)
    except OSError as error:
        from sweepfw.cli.terminal import safe

        why = safe(f"{error.filename or store} can't be written to the disk ({error.strerror})")
        click.echo(f"sweepfw: warning: {why}; a power cut may take the snapshot", err=True)
