"""Which trials are best, and whether that can be said: ranking by the objective, repeats taken together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sweepfw.core.metrics import value_at
from sweepfw.core.model import Objective, Sweep, Trial
from sweepfw.core.values import Value, meaning


class Entry(NamedTuple):
    """One combination of a sweep: its trials that succeeded and have the objective, in order, their values
    beside them. `mixed`: some ran a newer snapshot than the sweep's own."""

    sweep: str
    params: Mapping[str, Value]  # without the seed
    trials: tuple[int, ...]
    values: tuple[float, ...]
    mixed: bool = False

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        if len(self.values) == 1:
            return self.values[0]
        # Parts are added, not the sum divided: a sum of large numbers overflows.
        if not all(map(math.isfinite, self.values)):
            return sum(self.values)
        return math.fsum(value / self.n for value in self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the repeats (with n - 1); None for one alone."""
        if self.n < 2:
            return None
        return math.hypot(*(value - self.mean for value in self.values)) / math.sqrt(self.n - 1)

    @property
    def lowest(self) -> float:
        return min(self.values, key=lambda value: (math.isnan(value), value))

    @property
    def highest(self) -> float:
        return max(self.values, key=lambda value: (not math.isnan(value), value))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Entries, best first. `missing`: trials that succeeded but never reported the objective."""

    objective: Objective
    entries: tuple[Entry, ...]
    missing: int = 0

    @property
    def repeated(self) -> bool:
        return any(len(entry.trials) > 1 for entry in self.entries)

    def varying(self) -> list[str]:
        """Names of the parameters that are not the same in all entries, in the order of the parameters."""
        alike = dict.fromkeys(tuple(entry.params) for entry in self.entries)  # mostly one
        names = dict.fromkeys(name for names in alike for name in names)
        return [name for name in names if _varies(name, self.entries)]


def _varies(name: str, entries: Sequence[Entry]) -> bool:
    first = entries[0].params
    value = first.get(name)
    # Mostly it is the very same object, and comparing takes longer.
    return any(
        (entry.params.get(name) is not value or value is None) and not _same(name, first, entry.params)
        for entry in entries
    )


def _same(name: str, first: Mapping[str, Value], second: Mapping[str, Value]) -> bool:
    if name not in first or name not in second:
        return (name in first) == (name in second)
    # Mostly they are the same text, and meaning takes longer.
    return first[name] == second[name] or meaning(first[name]) == meaning(second[name])


def rank(sweep: Sweep, trials: Iterable[Trial], objective: Objective) -> Ranking:
    """Rank the succeeded trials, those that differ only in repeat and seed taken together.

    A value that is not finite is worse than any that is, whatever the goal: a training that diverged never
    leads. Equals stand in the order of their trials.
    """
    found: list[tuple[Trial, float]] = []
    missing = 0
    for trial in trials:
        if trial.state != "succeeded":
            continue
        summary = trial.metrics.get(objective.metric)
        if summary is None:
            missing += 1
        else:
            found.append((trial, value_at(summary, objective.at, objective.goal)))
    entries = [_entry(sweep, group) for group in _combinations(found, sweep.spec.seed)]
    return merge([Ranking(objective, tuple(entries), missing)])


def _combinations(
    found: Sequence[tuple[Trial, float]], seed: str | None
) -> Iterable[Sequence[tuple[Trial, float]]]:
    """What differs only in repeat and seed, together. A sweep has no combination twice within one repeat."""
    if all(trial.repeat == 1 for trial, _ in found):
        return ([each] for each in found)
    groups: dict[object, list[tuple[Trial, float]]] = {}
    for trial, value in found:
        key = frozenset((name, meaning(of)) for name, of in trial.params.items() if name != seed)
        groups.setdefault(key, []).append((trial, value))
    return groups.values()


def merge(rankings: Sequence[Ranking]) -> Ranking:
    """One ranking of several sweeps that have the same objective. ValueError where they have not."""
    objectives = {ranking.objective for ranking in rankings}
    if len(objectives) != 1:
        raise ValueError("rankings by different objectives can't be merged")
    objective = objectives.pop()
    sign = 1 if objective.goal == "minimize" else -1
    entries = [entry for ranking in rankings for entry in ranking.entries]
    entries.sort(key=lambda entry: (0, sign * mean) if math.isfinite(mean := entry.mean) else (1, 0.0))
    return Ranking(objective, tuple(entries), sum(ranking.missing for ranking in rankings))


def _entry(sweep: Sweep, group: Sequence[tuple[Trial, float]]) -> Entry:
    trials, values = zip(*group, strict=True)
    params, seed = trials[0].params, sweep.spec.seed
    if seed is not None and seed in params:
        params = {name: value for name, value in params.items() if name != seed}
    mixed = any(trial.snapshot not in ("", sweep.snapshot) for trial in trials)
    return Entry(sweep.name, params, tuple(trial.number for trial in trials), values, mixed)


def doubt(ranking: Ranking) -> tuple[float, float] | None:
    """The lead of the best over the second and its standard error, where it is no more than two of them.

    The standard error of a difference of two independent means is sqrt(s1²/n1 + s2²/n2) (Welch 1938, without
    assuming equal variances); a lead within two of them is what chance alone often makes. None where the lead
    is greater, and where nothing can be said: fewer than two combinations, or one without repeats.
    """
    if len(ranking.entries) < 2:
        return None
    best, second = ranking.entries[:2]
    if best.deviation is None or second.deviation is None:
        return None
    lead = abs(best.mean - second.mean)
    error = math.hypot(best.deviation / math.sqrt(best.n), second.deviation / math.sqrt(second.n))
    return (lead, error) if lead <= 2 * error else None
