"""An attempt as a worker's station knows it: what runs, what it is told, how one that can't begin ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from pathlib import Path

from sweepfw.core import states
from sweepfw.core.model import Grant, Outcome, Receipt, Spec, Sweep
from sweepfw.engine.checkpoints import Checkpoint
from sweepfw.engine.shipping import Reporting
from sweepfw.trial.attempt import Slot
from sweepfw.trial.builder import SetupFailed
from sweepfw.trial.guard.client import Keeper


class Running:
    """An attempt that runs here, or is about to. The station's lock guards `stop`."""

    def __init__(
        self, grant: Grant, sweep: Sweep, keeper: Keeper, checkpoint: Checkpoint, reporting: Reporting
    ) -> None:
        self.grant, self.sweep, self.keeper = grant, sweep, keeper
        self.checkpoint, self.reporting = checkpoint, reporting
        self.stop: tuple[str, float] | None = None  # why, and with how much grace


class Hearing:
    """A listener that keeps the receipt, and passes an attempt's end on."""

    wants_output = False

    def __init__(self, tell: Callable[[Grant, Outcome, Receipt], None]) -> None:
        self._tell = tell
        self.receipt: Receipt

    def started(self, grant: Grant, slot: Slot) -> None: ...
    def output(self, grant: Grant, data: bytes) -> None: ...
    def note(self, text: str) -> None: ...

    def ended(self, grant: Grant, slot: Slot, outcome: Outcome, receipt: Receipt, tail: bytes) -> None:
        self.receipt = receipt
        self._tell(grant, outcome, receipt)


def setup_failure(grant: Grant, spec: Spec, folder: Path, error: Exception) -> Outcome:
    """The end of an attempt that can't be set up. What the builders said becomes its output."""
    full = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
    reason = "disk full" if full else "setup failed"
    said = error.text if isinstance(error, SetupFailed) else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = f"{said}sweepfw: {error}\n"
        (folder / "output.log").write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError:
        pass  # the disk is full; the error is told all the same
    return Outcome(
        "failed",
        reason,
        ended=time.time(),
        details={"error": {"kind": reason, "text": str(error)}},
        again=states.may_retry(reason, spec.retries, grant.failures),
    )
