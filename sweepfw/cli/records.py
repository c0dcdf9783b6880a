"""Sweeps, trials and attempts as JSON: the same shape in `show`, `ls`, `best` and `export`.

Times are Unix seconds in UTC. What is not finite is a string (`"NaN"`, `"Infinity"`), since JSON has no word
for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweepfw.core.metrics import values
from sweepfw.core.model import Attempt, Objective, Sweep, Trial
from sweepfw.core.ranking import Entry, Ranking, rank
from sweepfw.core.values import Value, typed

if TYPE_CHECKING:
    from sweepfw.ledger.interface import Ledger

Record = dict[str, Any]


def number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def params(found: Mapping[str, Value]) -> Record:
    return {name: typed(value) for name, value in found.items()}


def attempt(found: Attempt) -> Record:
    return {
        "attempt": found.number,
        "state": found.state,
        "accepted": found.accepted,
        "reason": found.reason,
        "exit_code": found.exit_code,
        "host": found.host,
        "slot": found.slot,
        "snapshot": found.snapshot,
        "gpus": list(found.outcome.get("gpus", ())),
        "started": found.started,
        "ended": found.ended,
    }


def trial(found: Trial, attempts: Iterable[Attempt], objective: Objective | None) -> Record:
    return {
        "trial": found.number,
        "state": found.state,
        "reason": found.reason,
        "params": params(found.params),
        "repeat": found.repeat,
        "metrics": {name: number(value) for name, value in values(found.metrics, objective).items()},
        "attempts": [attempt(one) for one in attempts],
    }


def trials(ledger: Ledger, sweep: Sweep) -> Iterator[Record]:
    """All trials with their attempts; one at a time, so that memory does not grow with the sweep."""
    for found, attempts in with_attempts(ledger, sweep):
        yield trial(found, attempts, sweep.spec.objective)


def with_attempts(ledger: Ledger, sweep: Sweep) -> Iterator[tuple[Trial, list[Attempt]]]:
    """Trials in order, each with its attempts: two walks side by side, not a question for each trial."""
    walk = ledger.attempts(sweep.uid)
    ahead = next(walk, None)
    for found in ledger.trials(sweep.uid):
        attempts = []
        while ahead is not None and ahead.trial <= found.number:
            if ahead.trial == found.number:
                attempts.append(ahead)
            ahead = next(walk, None)
        yield found, attempts


def entry(found: Entry, objective: Objective) -> Record:
    """A combination in `best`. `value` is the mean of its repeats."""
    return {
        "sweep": found.sweep,
        "trials": list(found.trials),
        "params": params(found.params),
        "metric": objective.metric,
        "goal": objective.goal,
        "at": objective.at,
        "value": number(found.mean),
        "n": found.n,
        "deviation": number(found.deviation),
        "min": number(found.lowest),
        "max": number(found.highest),
        "mixed": found.mixed,
    }


def ranking(ledger: Ledger, sweep: Sweep, objective: Objective | None = None) -> Ranking | None:
    """The sweep's ranking; None where nobody said what is better."""
    objective = objective or sweep.spec.objective
    if objective is None:
        return None
    return rank(sweep, ledger.trials(sweep.uid, states=("succeeded",)), objective)


def leader(ledger: Ledger, sweep: Sweep) -> Entry | None:
    """The first of the sweep's ranking, without reading every trial; None where there is none."""
    if sweep.spec.objective is None:
        return None
    found = rank(sweep, ledger.contenders(sweep.uid, sweep.spec.objective), sweep.spec.objective)
    return found.entries[0] if found.entries else None


def overview(sweep: Sweep, best: Entry | None) -> Record:
    """A sweep as in `ls`: without its trials."""
    return {
        "sweep": sweep.name,
        "state": sweep.state,
        "project": sweep.spec.project,
        "task": sweep.spec.task,
        "created": sweep.created,
        "ended": sweep.ended,
        "counts": dict(sweep.counts),
        "reason": sweep.reason,
        "note": sweep.note,
        "best": entry(best, sweep.spec.objective) if best and sweep.spec.objective else None,
    }
