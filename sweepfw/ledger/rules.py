"""What a trial becomes when one of its attempts ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from sweepfw.core import states
from sweepfw.core.model import Denial, Outcome, SweepState, TrialState

STOPPED = "stopped"  # the reason of a trial that somebody cancelled
SILENT = "its host fell silent"  # why an attempt was lost
LOST = "host lost"  # the reason of a trial that takes its host with it

_ENDS: Mapping[str, TrialState] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "queued",  # an interruption says nothing about the trial
    "lost": "failed",
}


def after(outcome: Outcome, *, stop_asked: bool) -> TrialState:
    """The trial's state after its current attempt ended so. ValueError for a state that is no end.

    A success stands even where a stop was asked: it was in time. Else the stop wins over another try.
    """
    ended = _ENDS.get(outcome.state)
    if ended is None:
        raise ValueError(f"an attempt can't end as {outcome.state}")
    if ended == "succeeded":
        return ended
    if stop_asked:
        return "cancelled"
    return "queued" if outcome.again else ended


def after_loss(losses: int, on_lost: str, *, stop_asked: bool) -> TrialState:
    """The trial's state after its running attempt was lost with its host; `losses` before this one.

    A trial with enough losses ran alone: the scheduler sees to that.
    """
    if stop_asked:
        return "cancelled"
    if on_lost == "hold":
        return "held"
    alone = losses >= states.TRIES_WHEN_LOST
    return "failed" if states.after_loss(losses, alone) == "poison" else "queued"


def count_failure(failures: dict[str, int], reason: str) -> dict[str, int]:
    """The failed attempts by reason, with one more."""
    return failures | {reason: failures.get(reason, 0) + 1}


def refusal(sweep: SweepState, trial: TrialState) -> Denial | None:
    """Why a trial can't be granted now. None: it can."""
    if trial == "running":
        return Denial("no", "it runs already")
    if trial == "held":
        return Denial("no", "it is held")
    if trial != "queued":
        return Denial("no", f"it {trial}" if trial != "cancelled" else "it was cancelled")
    if sweep == "paused":
        return Denial("later", "the sweep is paused")
    if sweep == "stopped":
        return Denial("no", "the sweep is stopped")
    return None
