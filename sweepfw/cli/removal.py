"""Deleting a sweep of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweepfw import crash

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.ledger.interface import Ledger

PATIENCE = 30.0  # seconds that a stopped run has to end


def remove(place: Workspace, ledger: Ledger, sweep: Sweep, *, stop: bool) -> None:
    """Delete a sweep of this machine with all its files. BusyError where it runs and `stop` was not said."""
    from sweepfw.engine.lock import SweepLock
    from sweepfw.trial.aside import put_aside
    from sweepfw.trial.guard.removal import remove as delete

    if stop:
        ledger.stop(sweep.uid, now=True)
    lock = SweepLock.acquire(place, sweep.uid, wait=PATIENCE if stop else 1)
    try:
        rubbish = put_aside(place.run(sweep.name))
        crash.point("remove.aside")
        ledger.remove(sweep.uid)
        ledger.flush()
        delete(str(rubbish))
    finally:
        lock.release()
