"""Ranking: what is best, repeats together, and whether it can be said."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.model import MetricSummary, Objective, Spec, Sweep, Trial
from sweepfw.core.ranking import Ranking, doubt, merge, rank
from sweepfw.core.values import Number, Value

LOSS = Objective("loss")
ACC = Objective("acc", "maximize")


def sweep(name: str = "digits-1", seed: str | None = None) -> Sweep:
    return Sweep(f"u-{name}", name, Spec("digits", "train", ("x",), seed=seed), "s1", "done", 0.0)


def trial(number: int, params: dict[str, Value], value: float | None = None, **more: object) -> Trial:
    metrics = {} if value is None else dict.fromkeys(("loss", "acc"), MetricSummary(value, value, value))
    return Trial(number, "succeeded", params, metrics=metrics, **{"snapshot": "s1", **more})  # type: ignore[arg-type]


def order(ranking: Ranking) -> list[tuple[int, ...]]:
    return [entry.trials for entry in ranking.entries]


def test_only_successes_by_the_goal() -> None:
    trials = [trial(1, {"a": "x"}, 0.3), trial(2, {"a": "y"}, 0.1), trial(3, {"a": "z"}, 0.2)]
    trials.append(Trial(4, "failed", {"a": "w"}, metrics=trials[1].metrics))
    trials.append(trial(5, {"a": "v"}))
    assert order(rank(sweep(), trials, LOSS)) == [(2,), (3,), (1,)]
    assert order(rank(sweep(), trials, ACC)) == [(1,), (3,), (2,)]
    assert rank(sweep(), trials, LOSS).missing == 1


@pytest.mark.parametrize("objective", [LOSS, ACC])
def test_a_diverged_training_never_leads(objective: Objective) -> None:
    trials = [trial(n, {"a": str(n)}, v) for n, v in enumerate([math.nan, math.inf, -math.inf, 1e300], 1)]
    assert order(rank(sweep(), trials, objective))[0] == (4,)


def test_at_best_or_last() -> None:
    up = Trial(1, "succeeded", {"a": "x"}, metrics={"loss": MetricSummary(9.0, 1.0, 9.0, 3)})
    flat = Trial(2, "succeeded", {"a": "y"}, metrics={"loss": MetricSummary(5.0, 5.0, 5.0, 3)})
    assert order(rank(sweep(), [up, flat], LOSS)) == [(2,), (1,)]
    assert order(rank(sweep(), [up, flat], Objective("loss", "minimize", "best"))) == [(1,), (2,)]


def test_repeats_stand_together_without_their_seed() -> None:
    trials = [
        trial(n, {"lr": Number(text), "seed": Number(str(repeat))}, value, repeat=repeat)
        for n, (text, repeat, value) in enumerate(
            [("0.1", 1, 1.0), ("0.10", 2, 2.0), ("0.1", 3, 6.0), ("1", 1, 2.0), ("1", 2, 2.5)], 1
        )
    ]
    best, second = rank(sweep(seed="seed"), trials, LOSS).entries
    assert (best.trials, best.n, best.mean) == ((4, 5), 2, 2.25)
    assert best.deviation == pytest.approx(statistics.stdev([2.0, 2.5]))
    assert second.params == {"lr": Number("0.1")}
    assert (second.n, second.mean, second.lowest, second.highest) == (3, 3.0, 1.0, 6.0)
    assert second.deviation == pytest.approx(statistics.stdev([1.0, 2.0, 6.0]))


def test_one_repeat_that_diverged_takes_its_combination_to_the_end() -> None:
    trials = [trial(1, {"a": "x"}, 0.1), trial(2, {"a": "x"}, math.nan, repeat=2), trial(3, {"a": "y"}, 5.0)]
    ranking = rank(sweep(), trials, LOSS)
    assert order(ranking) == [(3,), (1, 2)]
    assert math.isnan(ranking.entries[1].mean) and ranking.entries[1].lowest == 0.1
    assert doubt(ranking) is None


def test_what_varies_and_what_does_not() -> None:
    trials = [
        trial(
            1, {"lr": Number("0.1"), "opt": "sgd", "momentum": Number("0.9"), "none": None, "on": True}, 1.0
        ),
        trial(2, {"lr": Number("0.10"), "opt": "adam", "on": True}, 2.0),
    ]
    ranking = rank(sweep(), trials, LOSS)
    assert ranking.varying() == ["opt", "momentum", "none"]


def test_newer_code_is_marked() -> None:
    ranking = rank(sweep(), [trial(1, {"a": "x"}, 1.0), trial(2, {"a": "y"}, 2.0, snapshot="s2")], LOSS)
    assert [entry.mixed for entry in ranking.entries] == [False, True]


def test_several_sweeps() -> None:
    one = rank(sweep("a-1"), [trial(1, {"a": "x"}, 1.0), trial(2, {"a": "y"})], LOSS)
    two = rank(sweep("a-2"), [trial(1, {"a": "x"}, 0.5), trial(2, {"a": "y"}, 2.0)], LOSS)
    both = merge([one, two])
    assert [(e.sweep, e.trials) for e in both.entries] == [("a-2", (1,)), ("a-1", (1,)), ("a-2", (2,))]
    assert both.missing == 1
    with pytest.raises(ValueError, match="objectives"):
        merge([one, rank(sweep(), [], ACC)])


def pairs(first: list[float], second: list[float]) -> Ranking:
    repeats = [("x", r, v) for r, v in enumerate(first, 1)] + [("y", r, v) for r, v in enumerate(second, 1)]
    trials = [trial(n, {"a": a}, v, repeat=r) for n, (a, r, v) in enumerate(repeats, 1)]
    return rank(sweep(), trials, LOSS)


def test_doubt_by_two_standard_errors() -> None:
    # Means 1 and 2, n 4, deviations about 0.1: the standard error is far below half the lead.
    spread = [-0.1, 0.1, 0.1, -0.1]
    assert doubt(pairs([1 + d for d in spread], [2 + d for d in spread])) is None
    found = doubt(pairs([1.0, 3.0], [2.0, 3.0]))  # lead 0.5, error sqrt(2/2 + 0.5/2) = 1.118
    assert found == (pytest.approx(0.5), pytest.approx(math.sqrt(1.25)))


@pytest.mark.parametrize(("lead", "doubted"), [(1.9, True), (2.1, False)])
def test_two_standard_errors_are_two(lead: float, doubted: bool) -> None:
    # Deviations sqrt(2) each, n 2: the standard error is sqrt(2/2 + 2/2), and leads are told in these.
    second = lead * math.sqrt(2)
    assert (doubt(pairs([-1.0, 1.0], [second - 1, second + 1])) is not None) == doubted


def test_no_doubt_can_be_told_of_single_runs() -> None:
    assert doubt(pairs([1.0], [1.0])) is None
    assert doubt(pairs([1.0, 2.0], [1.5])) is None
    assert doubt(pairs([1.0, 2.0], [])) is None


def test_equals_are_in_doubt() -> None:
    assert doubt(pairs([1.0, 1.0], [1.0, 1.0])) == (0.0, 0.0)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_numbers_of_any_size_do_not_fail(values: list[float]) -> None:
    ranking = pairs(values, values)
    entry = ranking.entries[0]
    if all(map(math.isfinite, values)):
        assert min(values) <= entry.mean <= max(values) or entry.mean == pytest.approx(values[0], rel=1e-12)
        assert entry.deviation is None or entry.deviation >= 0
    doubt(ranking)
