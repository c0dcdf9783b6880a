"""`gc`: delete what nothing uses: working copies of ended trials, snapshots, environments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.ledger.interface import Ledger

FRESH = 60  # seconds in which a new snapshot may still be on its way into the ledger


@click.command()
@click.option("--dry-run", "dry", is_flag=True, help="Delete nothing, only tell.")
@options.as_json
def gc(dry: bool, as_json: bool) -> None:
    """Delete what nothing uses any more, and tell how much that is.

    That is: working copies of trials that ended otherwise than with success, snapshots that no sweep names
    and none asked for within the last hour, environments and shared copies that no sweep runs with now (made
    again when needed), and what an `rm` that was killed left. Logs, metrics, output files and checkpoints
    stay.
    """
    place = options.workspace()
    freed = _collect(place, options.existing(place), dry=dry) if place.ledger.exists() else {}
    if as_json:
        import json

        click.echo(json.dumps({"dry_run": dry, "freed": freed, "bytes": sum(freed.values())}, indent=2))
        return
    from sweepfw.cli.render import size

    for kind, count in freed.items():
        click.echo(f"{kind:<16} {size(count):>10}")
    click.echo(f"{'would be freed' if dry else 'freed':<16} {size(sum(freed.values())):>10}")


def _collect(place: Workspace, ledger: Ledger, *, dry: bool) -> dict[str, int]:
    """Bytes by what they are."""
    from sweepfw import snapshot
    from sweepfw.trial import building

    return {
        "working copies": _delete(_work(place, ledger), dry=dry) + _delete(_shared(place, ledger), dry=dry),
        "removed sweeps": _delete(_rubbish(place), dry=dry),
        "snapshots": snapshot.collect(place.snapshots, ledger.snapshots(), age=FRESH, dry=dry).bytes,
        "environments": building.collect(place.environments, dry=dry),
    }


def _work(place: Workspace, ledger: Ledger) -> Iterator[Path]:
    """The working copies of attempts that ended."""
    for sweep in ledger.sweeps():
        for attempt in ledger.attempts(sweep.uid):
            work = place.attempt(sweep.name, attempt.trial, attempt.number) / "work"
            if attempt.state != "running" and work.is_dir():
                yield work


def _shared(place: Workspace, ledger: Ledger) -> Iterator[Path]:
    """The read-only copies of `workdir: shared`, unless a sweep runs that may work in one."""
    from sweepfw.engine.lock import SweepLock

    shared = (sweep for sweep in ledger.sweeps() if sweep.spec.workdir == "shared")
    if not any(SweepLock.held(place, sweep.uid) for sweep in shared):
        yield from (place.state / "work").glob("*")


def _rubbish(place: Workspace) -> Iterator[Path]:
    from sweepfw.trial.aside import put_aside_before

    yield from (folder for _, folder in put_aside_before(place.runs))


def _delete(folders: Iterator[Path], *, dry: bool) -> int:
    from sweepfw.trial.guard.files import measure
    from sweepfw.trial.guard.removal import remove

    freed = 0
    for folder in folders:
        freed += measure(str(folder), lenient=True)[1]
        if not dry:
            remove(str(folder))
    return freed
