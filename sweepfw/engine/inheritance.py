"""What a killed worker left on its host: ends that were written and not told, output, checkpoints."""

from __future__ import annotations

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Attempt, Grant, Sweep, Worker
from sweepfw.engine.checkpoints import Checkpoint
from sweepfw.engine.shipping import Head, LogLine, Reporting
from sweepfw.engine.stores import Stores
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.trial.attempt import recall


def inherit(place: Workspace, host: str, head: Head, stores: Stores) -> None:
    """Settle what a predecessor on this host left: ends that it did not tell are told. Of the other attempts
    the head gets what there is of output and checkpoints, before it counts them as lost.

    Nothing of the predecessor lives. Trouble with one attempt is said, and is not the others'.
    """
    for uid, attempt in head.ledger.running_on(Worker(host, "")):
        try:
            sweep, grant = stores.sweep(uid), head.ledger.granted(attempt.token)
            if grant:
                _settle(place, host, head, sweep, attempt, grant)
        except UnreachableError:
            raise
        except (SweepError, OSError) as error:
            head.say(f"{uid[:6]}/{attempt.trial}: {error}")


def _settle(place: Workspace, host: str, head: Head, sweep: Sweep, attempt: Attempt, grant: Grant) -> None:
    trial = str(place.trial(sweep.name, attempt.trial))
    folder = f"{trial}/{attempt.number}"
    checkpoint = Checkpoint(head, grant, trial, sweep.spec.checkpoint_every)
    outcome = recall(folder, grant, sweep.spec)
    if outcome is None:
        LogLine(head, grant.token, f"{folder}/output.log", sweep.spec.log_limit, begun=True).send()
        return checkpoint.send()
    reporting = Reporting(head, grant, sweep.spec, folder, host, before=checkpoint.end, begun=True)
    checkpoint.drop(reporting.finish(attempt.token, outcome))
    crash.point("worker.inherited")
    head.say(f"{sweep.name}/{attempt.trial} attempt {attempt.number} {outcome.state}, as its keeper wrote")
