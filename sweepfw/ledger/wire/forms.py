"""Values as JSON and back: what passes between the service and its clients keeps its meaning and its text.

Loading checks: what does not have the agreed form is refused, with a word on where. Records are objects with
their fields' names; unknown ones are left out, and lacking ones get their defaults, so that versions can mix.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sweepfw.core import spec as specs
from sweepfw.core import values
from sweepfw.core.deployment import Advert, HeadStatus, LogPart, Orders, WorkerStatus
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import (
    Attempt,
    Denial,
    Grant,
    MetricSummary,
    Objective,
    Outcome,
    Receipt,
    Spec,
    Sweep,
    Trial,
    Worker,
)
from sweepfw.core.values import Number, Value
from sweepfw.ledger import rows


class MisshapenError(ValueError):
    """What came does not have the agreed form."""


class Form(NamedTuple):
    """How a value is written as JSON data, and read again; `load` raises MisshapenError."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    names: Collection[str] = ()  # a record's fields that have a form of their own


def _same(value: Any) -> Any:
    return value


def _only(word: str, *kinds: type) -> Form:
    def load(value: Any) -> Any:
        if type(value) not in kinds:
            raise MisshapenError(f"should be {word}, not {type(value).__name__}")
        return value

    return Form(_same, load)


ANY = Form(_same, _same)
TEXT = _only("text", str)
WHOLE = _only("a whole number", int)
REAL = _only("a number", int, float)
FLAG = _only("true or false", bool)
PLAIN = Form(dict, _only("an object", dict).load)  # what is JSON already


def one_of(*words: str) -> Form:
    def load(value: Any) -> Any:
        if value not in words:
            raise MisshapenError(f"should be one of {', '.join(words)}")
        return value

    return Form(_same, load)


def maybe(form: Form) -> Form:
    return Form(
        lambda value: None if value is None else form.dump(value),
        lambda value: None if value is None else form.load(value),
    )


def many(form: Form, into: Callable[[Iterable[Any]], Any] = list) -> Form:
    plain = form.dump is _same

    def load(value: Any) -> Any:
        if type(value) is not list:
            raise MisshapenError(f"should be a list, not {type(value).__name__}")
        return into([form.load(item) for item in value])

    return Form(lambda items: list(items) if plain else [form.dump(item) for item in items], load)


def mapping(form: Form) -> Form:
    def load(value: Any) -> Any:
        return {name: form.load(item) for name, item in PLAIN.load(value).items()}

    return Form(lambda items: {name: form.dump(item) for name, item in items.items()}, load)


def row(*forms: Form) -> Form:
    """A tuple whose items each have their own form."""

    def load(value: Any) -> Any:
        if type(value) is not list or len(value) != len(forms):
            raise MisshapenError(f"should be a list of {len(forms)}")
        return tuple(form.load(item) for form, item in zip(forms, value, strict=True))

    return Form(lambda items: [form.dump(item) for form, item in zip(forms, items, strict=True)], load)


def record(kind: Any, **forms: Form) -> Form:
    """A named tuple or a dataclass as an object."""
    names = tuple(f.name for f in fields(kind)) if is_dataclass(kind) else kind._fields
    pairs = [(name, forms.get(name, ANY)) for name in names]

    def dump(value: Any) -> Any:
        return {name: form.dump(getattr(value, name)) for name, form in pairs}

    def load(value: Any) -> Any:
        if type(value) is not dict:
            raise MisshapenError(f"should be an object, not {type(value).__name__}")
        return _make(kind, {name: _load(name, form, value[name]) for name, form in pairs if name in value})

    return Form(dump, load, set(forms))


def _load(name: str, form: Form, value: Any) -> Any:
    try:
        return form.load(value)
    except MisshapenError as error:
        raise MisshapenError(f"{name}: {error}") from None


def _make(kind: Any, found: dict[str, Any]) -> Any:
    try:
        return kind(**found)
    except TypeError:
        raise MisshapenError(f"it lacks what a {kind.__name__.lower()} has") from None


# -- parameters --------------------------------------------------------------------------------------


def dump_params(params: values.Params) -> Any:
    return {name: value if type(value) is str else values.to_json(value) for name, value in params.items()}


def load_params(data: Any) -> dict[str, Value]:
    if type(data) is not dict:
        raise MisshapenError("params: should be an object")
    return {name: value if type(value) is str else _value(value) for name, value in data.items()}


def _value(value: Any) -> Value:
    kind = type(value)
    if kind is dict and len(value) == 1 and type(value.get("n")) is str:
        return _number(value["n"])
    if kind is list:
        return tuple(_value(item) for item in value)
    if value is None or kind is str or kind is bool:
        return value  # type: ignore[no-any-return]  # one of the three
    raise MisshapenError(f"params: {kind.__name__} is no value")


@lru_cache(maxsize=4096)
def _number(text: str) -> Number:
    if not values.is_number(text):
        raise MisshapenError("params: a number's text is no number")
    return Number(text)


# -- the model ---------------------------------------------------------------------------------------


def _load_spec(data: Any) -> Spec:
    try:
        return specs.from_json(PLAIN.load(data))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MisshapenError(f"spec: {error}") from None


def _load_summary(value: Any) -> MetricSummary:
    return MetricSummary(*_SUMMARY.load(value))


TEXTS = many(TEXT, tuple)
TIME = maybe(REAL)
PARAMS = Form(dump_params, load_params)
SPEC = Form(specs.to_json, _load_spec)
_SUMMARY = row(REAL, REAL, REAL, WHOLE, maybe(REAL), maybe(REAL), maybe(REAL))
METRICS = mapping(Form(list, _load_summary))
STORED = Form(rows.dump_metrics, lambda text: rows.load_metrics(TEXT.load(text)))  # read when asked for
BYTES = Form(lambda data: b64encode(data).decode(), lambda text: b64decode(TEXT.load(text)))

WORKER = record(Worker, host=TEXT, boot=TEXT)
OBJECTIVE = record(Objective, metric=TEXT, goal=one_of("minimize", "maximize"), at=one_of("best", "last"))
OUTCOME = record(
    Outcome,
    state=TEXT,
    reason=TEXT,
    exit_code=maybe(WHOLE),
    ended=REAL,
    metrics=METRICS,
    details=PLAIN,
    again=FLAG,
)
RECEIPT = record(Receipt, recorded=FLAG, accepted=FLAG, trial_state=TEXT)
GRANT = record(
    Grant,
    sweep=TEXT,
    uid=TEXT,
    trial=WHOLE,
    attempt=WHOLE,
    token=TEXT,
    params=PARAMS,
    repeat=WHOLE,
    snapshot=TEXT,
    failures=mapping(WHOLE),
    losses=WHOLE,
)
DENIAL = record(Denial, answer=one_of("no", "later"), why=TEXT)
SWEEP = record(
    Sweep,
    uid=TEXT,
    name=TEXT,
    spec=SPEC,
    snapshot=TEXT,
    state=TEXT,
    created=REAL,
    note=TEXT,
    reason=TEXT,
    ended=TIME,
    provenance=PLAIN,
    counts=PLAIN,
)
ATTEMPT = record(
    Attempt,
    trial=WHOLE,
    number=WHOLE,
    state=TEXT,
    token=TEXT,
    host=TEXT,
    slot=TEXT,
    snapshot=TEXT,
    started=REAL,
    ended=TIME,
    reason=TEXT,
    exit_code=maybe(WHOLE),
    accepted=FLAG,
    metrics=STORED,
    outcome=PLAIN,
)


def _load_pairs(data: Any) -> list[tuple[Any, int]]:
    """Params, not looked at yet, and the repeat."""
    try:
        if all(type(repeat) is int for _, repeat in data):
            return data  # type: ignore[no-any-return]  # a list of pairs
    except (TypeError, ValueError):
        pass
    raise MisshapenError("trials should be pairs of params and repeat")


DRAFTS = Form(_same, _load_pairs)
TRIAL_ROWS = Form(list, lambda data: list(rows.trials(data)))  # as they are stored: lists of them are long
_PARAMS_AT, _METRICS_AT = Trial._fields.index("params"), Trial._fields.index("metrics")


def _dump_trial(trial: Trial) -> Any:
    data: list[Any] = list(trial)
    data[_PARAMS_AT] = dump_params(trial.params)
    data[_METRICS_AT] = rows.dump_metrics(trial.metrics)
    return data


def _load_trial(data: Any) -> Trial:
    data[_PARAMS_AT] = load_params(data[_PARAMS_AT])
    data[_METRICS_AT] = rows.load_metrics(data[_METRICS_AT])
    return Trial(*data)


TRIAL = Form(_dump_trial, _load_trial)
ENDED = row(WHOLE, many(ATTEMPT))
HELD = many(row(TEXT, ATTEMPT))


def _dump_answer(answer: Grant | Denial) -> Any:
    return {"grant": GRANT.dump(answer)} if isinstance(answer, Grant) else {"denial": DENIAL.dump(answer)}


def _load_answer(data: Any) -> Grant | Denial:
    found: Grant | Denial = GRANT.load(data["grant"]) if "grant" in data else DENIAL.load(data["denial"])
    return found


CLAIMED = Form(_dump_answer, _load_answer)

# -- the deployment ----------------------------------------------------------------------------------

GPU = record(
    Gpu,
    index=WHOLE,
    uuid=TEXT,
    name=TEXT,
    memory=maybe(WHOLE),
    used=maybe(WHOLE),
    pids=many(WHOLE, tuple),
)
ADVERT = record(
    Advert,
    slots=WHOLE,
    cpus=REAL,
    memory=maybe(WHOLE),
    gpus=many(GPU, tuple),
    labels=TEXTS,
    mounts=TEXTS,
    version=TEXT,
    python=TEXT,
    disk_free=maybe(WHOLE),
    queue=TEXT,
)
ORDERS = record(Orders, seen=WHOLE, stop=mapping(one_of("stop", "stop now")), drain=FLAG, forget=TEXTS)
LOG_PART = record(LogPart, data=BYTES, ended=FLAG)
_RUNS = row(TEXT, WHOLE, WHOLE, TEXT)
WORKER_STATUS = record(
    WorkerStatus,
    worker=WORKER,
    advert=ADVERT,
    alive=FLAG,
    seen=REAL,
    draining=FLAG,
    running=many(_RUNS, tuple),
)
STATUS = record(
    HeadStatus,
    deployment=TEXT,
    uid=TEXT,
    version=TEXT,
    started=REAL,
    broker=FLAG,
    queued=WHOLE,
    running=WHOLE,
    disk_free=maybe(WHOLE),
    workers=many(WORKER_STATUS, tuple),
    extra=PLAIN,
)


def members(form: Mapping[str, Form], data: Any) -> dict[str, Any]:
    """A call's arguments. Those that aren't known are left out."""
    if type(data) is not dict:
        raise MisshapenError("a call's arguments should be an object")
    if lacking := [name for name in form if name not in data]:
        raise MisshapenError(f"a call lacks {', '.join(lacking)}")
    return {name: _load(name, one, data[name]) for name, one in form.items()}
