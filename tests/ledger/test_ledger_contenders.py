"""Metrics as the ledger gives them back, and the trials that may be best: on every door."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from ledger_doors import HOST, SPEC

from sweepfw.core.model import Draft, Grant, MetricSummary, Objective, Outcome
from sweepfw.core.ranking import rank
from sweepfw.core.values import Number

GOALS = [(goal, at) for goal in ("minimize", "maximize") for at in ("best", "last")]
NAMES = ["acc", "acc", "val/acc", "top-1 %", "é", 'say "acc":[', "a\\b", "$.acc[0]", "NaN", ""]


@pytest.fixture
def end(ledger) -> Callable[..., None]:
    """end(uid, number, metrics): the trial ends with these."""

    def end(uid: str, number: int, metrics: dict[str, MetricSummary], state: str = "succeeded") -> None:
        grant = ledger.claim(uid, number, HOST, "0", f"claim-{number}")
        assert isinstance(grant, Grant), grant
        ledger.finish(grant.token, Outcome(state, ended=5.0, metrics=metrics))

    return end


@pytest.mark.parametrize("seed", range(36))
def test_contenders_rank_as_all_trials_do(ledger, end, seed) -> None:
    """Whatever was reported: nothing, what is not finite, equals, neighbours; with repeats and without."""
    dice = random.Random(seed)
    objective = Objective(NAMES[seed % len(NAMES)], *dice.choice(GOALS))
    near = [0.1, math.nextafter(0.1, 1), math.nextafter(0.1, 0), -0.0, 0, 1e300, -1e-300, 2**60 + 1]
    odd, many = [math.nan, math.inf, -math.inf], [dice.gauss() for _ in range(100)]
    pool = [near, many, [*near, *odd], odd, [0.5], many][seed % 6]
    repeats = seed % 4 == 1
    drafts = [Draft({"i": Number(str(i // 2 if repeats else i))}, 1 + i % 2 * repeats) for i in range(40)]
    sweep = ledger.submit(SPEC, "s", drafts)
    for number in dice.sample(range(1, 41), dice.choice([1, 20, 40, 40])):
        names = {name for name in (objective.metric, "acc", 'x,"acc', "{acc") if dice.random() < 0.8}
        folded = {name: MetricSummary(*(dice.choice(pool) for _ in range(3))) for name in names}
        end(sweep.uid, number, folded, dice.choice(["succeeded", "succeeded", "failed"]))
    few = rank(sweep, ledger.contenders(sweep.uid, objective), objective)
    every = rank(sweep, ledger.trials(sweep.uid), objective)
    assert repr(few.entries[:1]) == repr(every.entries[:1])  # repr: NaN is not equal to itself


def test_few_trials_contend(ledger, end, make_drafts) -> None:
    uid = ledger.submit(SPEC, "s", make_drafts(100)).uid
    for number in range(1, 101):
        end(uid, number, {"loss": MetricSummary(*[float(number * 37 % 100)] * 3)})
    found = [trial.number for trial in ledger.contenders(uid, Objective("loss"))]
    assert 100 in found and len(found) < 20


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_found_by_any_name(ledger, end, make_drafts, name) -> None:
    other = MetricSummary(9.0, 9.0, 9.0)
    metrics = {
        f'{name}":[': other,
        f'x,"{name}': other,
        name: MetricSummary(1.0, math.inf, 3.0, 4, 5.0, None),
    }
    uid = ledger.submit(SPEC, "s", make_drafts(1)).uid
    end(uid, 1, {**metrics, "last": other})
    (trial,) = ledger.trials(uid, numbers=[1])
    assert trial.metrics[name] == metrics[name]
    assert (trial.metrics.get(name + "x"), name + "x" in trial.metrics) == (None, False)
    assert dict(trial.metrics) == trial.metrics == {**metrics, "last": other}
    assert trial.metrics[name] == metrics[name]  # also when all were read


def test_a_combination_may_lead_whose_trials_each_do_not(ledger, end) -> None:
    drafts = [Draft({"i": Number(str(i))}, repeat) for i in range(20) for repeat in (1, 2)]
    sweep = ledger.submit(SPEC, "s", drafts)
    for number in range(1, 41):  # one lucky and one poor each, but for the last
        loss = 0.4 if number > 38 else float(number % 2)
        end(sweep.uid, number, {"loss": MetricSummary(loss, loss, loss)})
    best = Objective("loss")
    assert rank(sweep, ledger.contenders(sweep.uid, best), best).entries[0].trials == (39, 40)
