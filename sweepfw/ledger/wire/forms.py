"""The forms of what passes between the service and its clients: it keeps its meaning and its text."""

from __future__ import annotations

from base64 import b64decode, b64encode
from functools import lru_cache
from typing import Any

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
from sweepfw.core.secrets import Secrets
from sweepfw.core.values import Number, Value
from sweepfw.ledger import rows
from sweepfw.ledger.wire.shapes import (
    FLAG,
    PLAIN,
    REAL,
    TEXT,
    WHOLE,
    Form,
    MisshapenError,
    many,
    mapping,
    maybe,
    one_of,
    record,
    row,
    within,
)

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
_MOMENT = within(REAL, 0, 253_402_300_799)  # to the end of the year 9999, as far as clocks are written
PARAMS = Form(dump_params, load_params)
SPEC = Form(specs.to_json, _load_spec)
_SUMMARY = row(REAL, REAL, REAL, WHOLE, maybe(REAL), maybe(REAL), maybe(REAL))
METRICS = mapping(Form(list, _load_summary))
STORED = Form(rows.dump_metrics, lambda text: rows.load_metrics(TEXT.load(text)))  # read when asked for
BYTES = Form(lambda data: b64encode(data).decode(), lambda text: b64decode(TEXT.load(text)))
SECRETS = Form(mapping(BYTES).dump, lambda data: Secrets(mapping(BYTES).load(data)))

WORKER = record(Worker, host=TEXT, boot=TEXT)
OBJECTIVE = record(Objective, metric=TEXT, goal=one_of("minimize", "maximize"), at=one_of("best", "last"))
OUTCOME = record(
    Outcome,
    state=TEXT,
    reason=TEXT,
    exit_code=maybe(WHOLE),
    ended=_MOMENT,
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


DRAFTS = Form(list, _load_pairs)
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
    slots=within(WHOLE, 0, 10_000),  # beyond all hosts: the head reckons with what they say
    cpus=within(REAL, 0, 100_000),
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
