"""The one way to run a trial, on this machine and on every worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from errno import EDQUOT, ENOSPC
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core import states
from sweepfw.core.command import argv
from sweepfw.core.model import Grant, Outcome, Receipt, Spec, Sweep
from sweepfw.core.naming import label
from sweepfw.core.values import typed
from sweepfw.ledger.interface import Ledger
from sweepfw.trial.guard.client import Ended, Keeper, KeeperDied, LogGrew, Setup, Start
from sweepfw.trial.guard.files import open_plain
from sweepfw.trial.output import Reports

PULSE = 1.0  # seconds between two looks at a quiet trial's metrics


class Listener(Protocol):
    """Who wants to hear of trials: the terminal, a stream of events, nobody. Called from several threads."""

    wants_output: bool

    def started(self, grant: Grant, slot: Slot) -> None: ...
    def output(self, grant: Grant, data: bytes) -> None: ...
    def ended(self, grant: Grant, slot: Slot, outcome: Outcome, receipt: Receipt, tail: bytes) -> None: ...
    def note(self, text: str) -> None: ...


class Recorder(Protocol):
    """What running an attempt needs of a ledger."""

    def finish(self, token: str, outcome: Outcome) -> Receipt: ...


class Slot(NamedTuple):
    """Room for one running trial: CPUs, and GPUs by UUID. `gpus` None: the trial sees what is there."""

    name: str
    host: str
    cpus: int
    gpus: tuple[str, ...] | None = None


class Job(NamedTuple):
    """What all attempts of a sweep with one snapshot share. `python` replaces a command's first `python`."""

    number: int  # the setup's number at the keepers
    spec: Spec
    setup: Setup
    python: str
    described: str  # which Python that is, for people
    run: Path  # runs/<sweep>
    roots: tuple[str, ...] = ()  # folders of the project that its own editable install imports from


def run_attempt(
    grant: Grant,
    ledger: Recorder,
    keeper: Keeper,
    job: Job,
    slot: Slot,
    listener: Listener,
    *,
    ready: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run what was granted and tell the ledger how it ended.

    `ready` is called once the keeper has its order: from then on it hears a stop. Raises KeeperDied if the
    keeper died without leaving an outcome; `record_loss` tells the ledger then.
    """
    trial = f"{job.run}/trials/{grant.trial}"  # texts: paths would take a tenth of our time for a short trial
    folder = f"{trial}/{grant.attempt}"
    start = order(grant, job, slot, folder, f"{trial}/checkpoint")
    show = partial(listener.output, grant) if listener.wants_output else None
    needles = job.setup.secrets.needles if job.setup.secrets else ()
    reports = Reports(folder, job.spec.metrics, show, job.spec.log_limit, keep=True, needles=needles)
    listener.started(grant, slot)
    crash.point("attempt.granted")
    live = listener.wants_output or bool(job.spec.metrics)
    told: Mapping[str, object] | None
    try:
        keeper.prepare(job.number, job.setup)
        keeper.start(start)
        crash.point("attempt.ordered")
        ready()
        told = _follow(keeper, reports, live=live)
    except KeeperDied:
        told = read_outcome(folder, grant.token)
        if told is None:
            raise
    reports.end(printed(told) if live else None)
    outcome = judged({**told, "gpus": slot.gpus}, reports, grant, job.spec)
    crash.point("attempt.heard")
    receipt = ledger.finish(grant.token, outcome)
    listener.ended(grant, slot, outcome, receipt, reports.tail() if outcome.state == "failed" else b"")
    return outcome


def record_loss(
    grant: Grant, ledger: Recorder, slot: Slot, listener: Listener, *, alone: bool, counts: bool
) -> Outcome:
    """Tell the ledger of an attempt whose keeper died with it. `alone`: no other trial ran beside it.

    `counts` False: the whole run died, by no fault of this trial.
    """
    if not counts:
        outcome = Outcome("interrupted", "the run was killed", again=True)
    elif states.after_loss(grant.losses, alone) == "poison":
        outcome = Outcome("failed", "host lost")
    else:
        outcome = Outcome("lost", "its keeper was killed", again=True)
    listener.ended(grant, slot, outcome, ledger.finish(grant.token, outcome), b"")
    return outcome


def read_outcome(folder: str, token: str) -> Mapping[str, object] | None:
    """What a keeper left in an attempt's folder, if it is that attempt's and whole."""
    try:
        with open(open_plain(f"{folder}/outcome.json"), "rb") as file:  # noqa: PTH123  # a descriptor
            told = json.load(file)
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("token") == token else None


def printed(told: Mapping[str, object]) -> int:
    """How many bytes of output there were."""
    count = told.get("log_bytes")
    return count if isinstance(count, int) else 0


def recover(place: Workspace, ledger: Ledger, sweep: Sweep) -> None:
    """Settle what a killed run left: outcomes that were written are delivered, the rest is queued again.

    For the holder of the sweep's lock: nothing of the sweep runs any more.
    """
    for attempt in ledger.running(sweep.uid):
        folder = str(place.attempt(sweep.name, attempt.trial, attempt.number))
        grant = ledger.granted(attempt.token)
        if grant and (outcome := recall(folder, grant, sweep.spec)):
            ledger.finish(attempt.token, outcome)
    crash.point("recover.told")
    ledger.requeue(sweep.uid, state="interrupted", why="the run was killed")
    crash.point("recover.requeued")


def recall(folder: str, grant: Grant, spec: Spec) -> Outcome | None:
    """The outcome of an attempt that ended when nobody was there to hear it; None where none was written."""
    told = read_outcome(folder, grant.token)
    if told is None:
        return None
    reports = Reports(folder, spec.metrics, None, spec.log_limit, keep=True)
    reports.end()
    return judged(told, reports, grant, spec)


def order(grant: Grant, job: Job, slot: Slot, folder: str, checkpoint: str) -> Start:
    """What the keeper is asked to do for this grant, in the attempt's folder."""
    places = {
        "output": f"{folder}/files",
        "checkpoint": checkpoint,
        "trial": str(grant.trial),
        "sweep": grant.sweep,
    }
    command = argv(job.spec, grant.params, places)
    if command[0] == "python":
        command[0] = job.python
    env = {
        "SWEEPFW_SWEEP": grant.sweep,
        "SWEEPFW_TRIAL": places["trial"],
        "SWEEPFW_ATTEMPT": str(grant.attempt),
        "SWEEPFW_PARAMS": f"{folder}/params.json",
        "SWEEPFW_METRICS": f"{folder}/metrics.jsonl",
        "SWEEPFW_OUTPUT": places["output"],
        "SWEEPFW_CHECKPOINT": places["checkpoint"],
        "SWEEPFW_SLOT": slot.name,
    } | _share(slot, job.setup.env)
    if job.roots:  # the frozen code stands before the live one
        work = job.setup.shared or f"{folder}/work"
        env["PYTHONPATH"] = ":".join([*(f"{work}/{root}" for root in job.roots), job.setup.env["PYTHONPATH"]])
    return Start(
        setup=job.number,
        folder=folder,
        checkpoint=places["checkpoint"],
        argv=tuple(command),
        env=env,
        params=json.dumps({name: typed(value) for name, value in grant.params.items()}),
        label=label(grant.sweep, grant.trial, grant.attempt),
        token=grant.token,
    )


def _share(slot: Slot, base: Mapping[str, str]) -> dict[str, str]:
    env = {} if slot.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(slot.gpus)}
    if "OMP_NUM_THREADS" not in base:  # else every trial would start a thread for every core of the host
        env["OMP_NUM_THREADS"] = str(slot.cpus)
    return env


def _follow(keeper: Keeper, reports: Reports, *, live: bool) -> Mapping[str, object]:
    while True:
        event = keeper.receive(PULSE if live else None)
        if isinstance(event, Ended):
            return event.outcome
        if live:
            reports.look(event.total if isinstance(event, LogGrew) else None)


def judged(told: Mapping[str, object], reports: Reports, grant: Grant, spec: Spec) -> Outcome:
    """The outcome that the ledger gets, from what the keeper told and the trial reported."""
    state, reason = states.judge(
        told, "" if told.get("exit_code") == 0 else reports.tail().decode(errors="replace")
    )
    if state == "succeeded" and reports.trouble:  # as where the keeper could not keep the output
        full = reports.trouble.errno in (ENOSPC, EDQUOT)
        state, reason = "failed", "disk full" if full else "output not kept"
    code = told.get("exit_code")
    ended = told.get("ended")
    return Outcome(
        state=state,
        reason=reason,
        exit_code=code if isinstance(code, int) else None,
        ended=float(ended) if isinstance(ended, (int, float)) else 0.0,
        metrics=reports.summaries(),
        details={key: told[key] for key in DETAILS if told.get(key)},
        again=state == "interrupted"
        or (state == "failed" and states.may_retry(reason, spec.retries, grant.failures)),
    )


# Of the keeper's words, those that people ask for later; the rest stays in outcome.json.
DETAILS = (
    "signal",
    "error",
    "seconds",
    "log_bytes",
    "files",
    "left",
    "left_count",
    "max_rss",
    "cpu",
    "survivors",
    "gpus",
)
