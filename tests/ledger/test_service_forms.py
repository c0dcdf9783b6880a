"""What crosses the wire arrives as it was."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core import deployment, model
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import MetricSummary, Spec
from sweepfw.core.values import Number
from sweepfw.ledger import rows
from sweepfw.ledger.wire import forms
from sweepfw.ledger.wire.shapes import Form, MisshapenError

TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates too
WHOLE = st.integers(-(2**70), 2**70)
REAL = st.floats() | st.integers(-(2**60), 2**60)
PLAIN = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | WHOLE | REAL | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
NUMBER = st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True).map(Number)
VALUE = st.recursive(
    st.none() | st.booleans() | TEXT | NUMBER, lambda inner: st.lists(inner, max_size=3).map(tuple)
)
PARAMS = st.dictionaries(TEXT, VALUE, max_size=4)
SUMMARY = st.builds(MetricSummary, REAL, REAL, REAL, WHOLE, *[st.none() | REAL] * 3)
METRICS = st.dictionaries(TEXT, SUMMARY, max_size=3)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
COUNTS = st.dictionaries(TEXT, WHOLE, max_size=3)
SPEC = st.builds(
    Spec,
    project=TEXT,
    task=TEXT,
    command=TEXTS,
    needs=st.builds(model.Needs, gpus=st.none() | WHOLE, cpus=REAL, paths=TEXTS),
    objective=st.none() | st.builds(model.Objective, metric=TEXT),
    retries=st.lists(st.tuples(TEXT, WHOLE), max_size=2).map(tuple),
    metrics=st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=2).map(tuple),
    environment=st.builds(model.Environment),
    timeout=st.none() | REAL,
    space=PLAIN,
)
WORKER = st.builds(model.Worker, TEXT, TEXT)
GPU = st.builds(Gpu, WHOLE, TEXT, TEXT, st.none() | WHOLE, st.none() | WHOLE, st.lists(WHOLE).map(tuple))
ADVERT = st.builds(
    deployment.Advert,
    st.integers(0, 10_000),
    st.floats(0, 100_000),
    st.none() | WHOLE,
    st.lists(GPU, max_size=2).map(tuple),
    TEXTS,
    TEXTS,
    TEXT,
    TEXT,
    st.none() | WHOLE,
    TEXT,
)
STATUS = st.builds(
    deployment.WorkerStatus,
    WORKER,
    ADVERT,
    st.booleans(),
    REAL,
    st.booleans(),
    st.lists(st.tuples(TEXT, WHOLE, WHOLE, TEXT), max_size=2).map(tuple),
)
MAYBE_REAL = st.none() | REAL
MOMENT = st.floats(0, 253_402_300_799)

ALL: dict[str, tuple[Form, st.SearchStrategy[Any]]] = {
    "Worker": (forms.WORKER, WORKER),
    "Spec": (forms.SPEC, SPEC),
    "Objective": (forms.OBJECTIVE, st.builds(model.Objective, metric=TEXT)),
    "Outcome": (
        forms.OUTCOME,
        st.builds(model.Outcome, TEXT, TEXT, st.none() | WHOLE, MOMENT, METRICS, PLAIN, st.booleans()),
    ),
    "Receipt": (forms.RECEIPT, st.builds(model.Receipt, st.booleans(), st.booleans(), TEXT)),
    "Grant": (
        forms.CLAIMED,
        st.builds(model.Grant, TEXT, TEXT, WHOLE, WHOLE, TEXT, PARAMS, WHOLE, TEXT, COUNTS, WHOLE),
    ),
    "Denial": (forms.CLAIMED, st.builds(model.Denial, st.sampled_from(["no", "later"]), TEXT)),
    "Sweep": (
        forms.SWEEP,
        st.builds(model.Sweep, TEXT, TEXT, SPEC, TEXT, TEXT, REAL, TEXT, TEXT, MAYBE_REAL, PLAIN, COUNTS),
    ),
    "Attempt": (
        forms.ATTEMPT,
        st.builds(
            model.Attempt,
            trial=WHOLE,
            number=WHOLE,
            state=TEXT,
            token=TEXT,
            host=TEXT,
            slot=TEXT,
            snapshot=TEXT,
            started=REAL,
            ended=MAYBE_REAL,
            reason=TEXT,
            exit_code=st.none() | WHOLE,
            accepted=st.booleans(),
            metrics=METRICS,
            outcome=PLAIN,
        ),
    ),
    "Trial": (
        forms.TRIAL,
        st.builds(
            model.Trial, WHOLE, TEXT, PARAMS, WHOLE, TEXT, WHOLE, METRICS, MAYBE_REAL, MAYBE_REAL, TEXT
        ),
    ),
    "Advert": (forms.ADVERT, ADVERT),
    "Orders": (
        forms.ORDERS,
        st.builds(
            deployment.Orders,
            WHOLE,
            st.dictionaries(TEXT, st.sampled_from(["stop", "stop now"]), max_size=2),
            st.booleans(),
            TEXTS,
        ),
    ),
    "LogPart": (forms.LOG_PART, st.builds(deployment.LogPart, st.binary(), st.booleans())),
    "HeadStatus": (
        forms.STATUS,
        st.builds(
            deployment.HeadStatus,
            TEXT,
            TEXT,
            TEXT,
            REAL,
            st.booleans(),
            WHOLE,
            WHOLE,
            st.none() | WHOLE,
            st.lists(STATUS, max_size=2).map(tuple),
            PLAIN,
        ),
    ),
}


def flat(value: Any) -> Any:
    """As data whose repr is the same where all is: NaN equals nothing, and mappings have many classes."""
    if is_dataclass(value):
        return (type(value).__name__, [(f.name, flat(getattr(value, f.name))) for f in fields(value)])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return (type(value).__name__, [flat(part) for part in value])
    if hasattr(value, "items"):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(flat(part) for part in value)
    return value


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_whatever_is_sent_arrives(name, data) -> None:
    form, strategy = ALL[name]
    value = data.draw(strategy)
    sent = json.dumps(form.dump(value)).encode()
    assert repr(flat(form.load(json.loads(sent)))) == repr(flat(value))


@given(PARAMS)
def test_rows_of_trials_arrive(params) -> None:
    stored = rows.values.encode(params)
    row = (1, "queued", stored, 1, "", 0, "{}", None, None, "", "")[: len(rows.TRIAL.split(", "))]
    (trial,) = forms.TRIAL_ROWS.load(json.loads(json.dumps(forms.TRIAL_ROWS.dump([row]))))
    assert trial.params == params


def test_metrics_survive_what_is_not_finite() -> None:
    summary = MetricSummary(math.nan, -math.inf, math.inf, 3, math.nan)
    sent = json.dumps(forms.METRICS.dump({"loss": summary}))
    assert repr(forms.METRICS.load(json.loads(sent))) == repr({"loss": summary})


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (forms.ATTEMPT, model.Attempt),
        (forms.SWEEP, model.Sweep),
        (forms.GRANT, model.Grant),
        (forms.OUTCOME, model.Outcome),
        (forms.ADVERT, deployment.Advert),
        (forms.ORDERS, deployment.Orders),
        (forms.STATUS, deployment.HeadStatus),
    ],
)
def test_every_field_has_a_form(form, kind) -> None:
    """A field that was added to the model would cross as plain JSON: tuples would become lists."""
    names = {f.name for f in fields(kind)} if is_dataclass(kind) else set(kind._fields)
    assert form.names == names


def test_fields_of_other_versions_are_left_out_and_defaults_put_in() -> None:
    data = forms.OUTCOME.dump(model.Outcome("failed")) | {"newer": 1}
    del data["again"]
    assert forms.OUTCOME.load(data) == model.Outcome("failed")
    with pytest.raises(MisshapenError, match="outcome"):
        forms.OUTCOME.load({})


@pytest.mark.parametrize(
    "params",
    [
        {"a": 1},
        {"a": 1.5},
        {"a": {"n": 5}},
        {"a": {"n": "x"}},
        {"a": {"n": "nan"}},
        {"a": {"n": "1", "m": "2"}},
        {"a": {}},
        {"a": [{"x": 1}]},
        [],
        "a",
        None,
    ],
)
def test_what_is_no_value_is_refused(params) -> None:
    with pytest.raises(MisshapenError):
        forms.load_params(params)
