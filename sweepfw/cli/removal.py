"""Deleting a sweep of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw import crash

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger

TRASH = ".removed-"  # what a folder under runs/ is renamed to before its content goes; `gc` finishes it
PATIENCE = 30.0  # seconds that a stopped run has to end


def remove(place: Workspace, ledger: Ledger, sweep: Sweep, *, stop: bool) -> None:
    """Delete a sweep of this machine with all its files. BusyError where it runs and `stop` was not said."""
    from sweepfw.engine.lock import SweepLock
    from sweepfw.trial.guard.removal import remove as delete

    if stop:
        ledger.stop(sweep.uid, now=True)
    lock = SweepLock.acquire(place, sweep.uid, wait=PATIENCE if stop else 1)
    try:
        # Renamed first: killed at any moment, this leaves a sweep that can be removed again, or only rubbish.
        rubbish = _put_aside(place.run(sweep.name))
        crash.point("remove.aside")
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
