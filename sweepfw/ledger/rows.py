"""Rows of the database as objects of the model, and what of the objects is stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sweepfw.core import spec as specs
from sweepfw.core import values
from sweepfw.core.model import Attempt, Grant, MetricSummary, Spec, Sweep, Trial
from sweepfw.core.values import Value
from sweepfw.ledger import faults

Row = tuple[Any, ...]
PAGE = 1000  # read at once: memory stays flat, and checkpoints are not held up
_decode = json.JSONDecoder().raw_decode  # json.loads without its checks of what we wrote ourselves
# What reading something else than we wrote ends with: a bad disk garbles texts without SQLite's seeing it.
_GARBLED = (ValueError, TypeError, KeyError, AttributeError)

SWEEP = "uid, name, spec, snapshot, state, created, note, reason, ended, provenance"
TRIAL = (
    "number, state, params, repeat, reason, attempts, metrics, started, ended, snapshot, "
    "coalesce(next_snapshot, '')"
)
ATTEMPT = (
    "trial, number, state, token, host, slot, snapshot, started, ended, reason, exit_code, accepted, "
    "metrics, outcome"
)


def sweep(row: Row, counts: Mapping[str, int]) -> Sweep:
    uid, name, spec, snapshot, state, created, note, reason, ended, provenance = row
    return Sweep(
        uid=uid,
        name=name,
        spec=load_spec(spec),
        snapshot=snapshot,
        state=state,
        created=created,
        note=note,
        reason=reason,
        ended=ended,
        provenance=_parse(provenance),
        counts=counts,
    )


def trials(found: Sequence[Row]) -> Iterator[Trial]:
    """The params of all are read at once, the metrics only when they are asked for: both take long."""
    try:
        decoded = values.decode_all(row[2] for row in found)
    except _GARBLED:
        raise faults.garbled() from None
    for row, params in zip(found, decoded, strict=True):
        number, state, _, repeat, reason, attempts, metrics, started, ended, snapshot, coming = row
        yield Trial(
            number=number,
            state=state,
            params=params,
            repeat=repeat,
            reason=reason,
            attempts=attempts,
            metrics=load_metrics(metrics),
            started=started,
            ended=ended,
            snapshot=snapshot,
            next_snapshot=coming,
        )


def attempt(row: Row) -> Attempt:
    trial, number, state, token, host, slot, snapshot, started, ended, reason, exit_code, *rest = row
    accepted, metrics, outcome = rest
    return Attempt(
        trial=trial,
        number=number,
        state=state,
        token=token,
        host=host,
        slot=slot,
        snapshot=snapshot,
        started=started,
        ended=ended,
        reason=reason,
        exit_code=exit_code,
        accepted=bool(accepted),
        metrics=load_metrics(metrics),
        outcome={} if outcome == "{}" else _parse(outcome),
    )


def grant(uid: str, name: str, number: int, trial: Row, attempt: Row) -> Grant:
    """`trial` is its params, repeat, failures and losses; `attempt` its number, token and snapshot."""
    params, repeat, failures, losses = trial
    return Grant(
        sweep=name,
        uid=uid,
        trial=number,
        attempt=attempt[0],
        token=attempt[1],
        params=_params(params),
        repeat=repeat,
        snapshot=attempt[2],
        failures={} if failures == "{}" else _parse(failures),
        losses=losses,
    )


def tally(states: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Counts by state, in the order in which a trial goes through them."""
    found = dict(states)
    return {state: found[state] for state in _ORDER if state in found}


_ORDER = ("queued", "running", "succeeded", "failed", "cancelled", "held")


def dump_spec(spec: Spec) -> str:
    return dump(specs.to_json(spec))


def load_spec(stored: str) -> Spec:
    try:
        return specs.from_json(_parse(stored))
    except _GARBLED:
        raise faults.garbled() from None


def _params(stored: str) -> Mapping[str, Value]:
    try:
        return values.decode(stored)
    except _GARBLED:
        raise faults.garbled() from None


def _parse(stored: str, at: int = 0) -> Any:
    """What `dump` made, or the part of it from `at` on."""
    try:
        return _decode(stored, at)[0]
    except _GARBLED:
        raise faults.garbled() from None


def _summary(fields: Sequence[Any]) -> MetricSummary:
    try:
        return MetricSummary(*fields)
    except TypeError:
        raise faults.garbled() from None


def dump_metrics(metrics: Mapping[str, MetricSummary]) -> str:
    """NaN and infinities are kept: a loss can become one."""
    if isinstance(metrics, StoredMetrics):
        return metrics.stored
    if not metrics:
        return "{}"
    return dump(
        {
            name: (m.last, m.lowest, m.highest, m.count, m.last_step, m.lowest_step, m.highest_step)
            for name, m in metrics.items()
        }
    )


def load_metrics(stored: str) -> Mapping[str, MetricSummary]:
    return {} if stored == "{}" else StoredMetrics(stored)


class StoredMetrics(Mapping[str, MetricSummary]):
    """What `dump_metrics` made, read when it is asked for: a ranking wants one metric of many."""

    __slots__ = ("_all", "stored")

    def __init__(self, stored: str) -> None:
        self.stored = stored
        self._all: dict[str, MetricSummary] | None = None

    def __getitem__(self, name: str) -> MetricSummary:
        if self._all is not None:
            return self._all[name]
        # Quotes within names are escaped, so that this is found nowhere but at the key itself.
        key = _key(name)
        at = 0 if self.stored.startswith("{" + key) else self.stored.find("," + key)
        if at < 0:
            raise KeyError(name)
        return _summary(_parse(self.stored, at + len(key)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def _read(self) -> dict[str, MetricSummary]:
        if self._all is None:
            self._all = {name: _summary(fields) for name, fields in _parse(self.stored).items()}
        return self._all


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    return json.dumps(name) + ":["


def dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))


def clean(text: str) -> str:
    """Text that UTF-8 can hold: half surrogates, as from file names that are no UTF-8, become `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
