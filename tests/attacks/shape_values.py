"""Values for every form that crosses the wire, found in the forms themselves: so a call that is added to the
table is fuzzed from then on, without a word here."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from inspect import getclosurevars
from typing import Any

from hypothesis import strategies as st

from sweepfw.ledger.wire import forms, shapes
from sweepfw.ledger.wire.shapes import Form

Known = Mapping[str, st.SearchStrategy[Any]]  # what is true of the ledger, by an argument's name

ODD_TEXTS = (
    "",
    "\0",
    "\x7f",
    "\ud800",
    "../..",
    "a/b",
    "x" * 5_000,
    "'; --",
    "%s",
    "\u202e",
    "\r\nX: y",
    "{n}",
    "-1",
)
ODD_NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400)
TEXT = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=[]), max_size=12)
WHOLE = st.integers(-3, 20) | st.sampled_from(ODD_NUMBERS)
REAL = WHOLE | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)

SPEC = st.fixed_dictionaries(
    {"project": st.just("p") | TEXT, "task": TEXT, "command": st.lists(TEXT, max_size=3)},
    optional={
        "needs": st.none() | st.fixed_dictionaries({}, optional={"gpus": REAL, "cpus": REAL, "paths": JSON}),
        "retries": JSON,
        "objective": st.none() | OBJECT,
        "environment": st.none() | OBJECT,
        "variables": JSON,
        "outputs": JSON,
        "metrics": JSON,
        "max_failures": WHOLE,
        "on_lost": st.sampled_from(["retry", "hold"]) | TEXT,
        "timeout": REAL,
        "more": JSON,
    },
)
BYTES = st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()) | TEXT
PARAMS = st.dictionaries(TEXT, TEXT | st.fixed_dictionaries({"n": TEXT | st.just("1e5")}) | JSON, max_size=3)
_SUMMARY = st.tuples(REAL, REAL, REAL, WHOLE, *[st.none() | REAL] * 3).map(list)

# Forms that are functions of their own. What others are made of is read from them.
LEAVES: list[tuple[Form, st.SearchStrategy[Any]]] = [
    (shapes.ANY, JSON),
    (shapes.TEXT, TEXT),
    (shapes.WHOLE, WHOLE),
    (shapes.REAL, REAL),
    (shapes.FLAG, st.booleans()),
    (shapes.PLAIN, OBJECT),
    (forms.SPEC, SPEC),
    (forms.BYTES, BYTES),
    (forms.PARAMS, PARAMS),
    (forms.METRICS, st.dictionaries(TEXT, _SUMMARY, max_size=2)),
    (forms.DRAFTS, st.lists(st.tuples(PARAMS, WHOLE).map(list), max_size=3)),
]


def values(form: Form, known: Known) -> st.SearchStrategy[Any]:
    """What the form takes, mostly: numbers and texts at their edges. LookupError for one that is new here."""
    for leaf, found in LEAVES:
        if form.load is leaf.load:
            return found
    kind = form.load.__qualname__.partition(".")[0]
    inside = getclosurevars(form.load).nonlocals
    make = _MADE.get(kind)
    if make is None:
        raise LookupError(f"a form that nobody knows values for: {form.load.__qualname__}")
    return make(inside, known)


def _record(inside: Mapping[str, Any], known: Known) -> st.SearchStrategy[Any]:
    parts = {name: known.get(name, st.nothing()) | values(form, known) for name, form in inside["pairs"]}
    return st.fixed_dictionaries(parts)


_MADE: dict[str, Callable[[Mapping[str, Any], Known], st.SearchStrategy[Any]]] = {
    "maybe": lambda inside, known: st.none() | values(inside["form"], known),
    "many": lambda inside, known: st.lists(values(inside["form"], known), max_size=3),
    "mapping": lambda inside, known: st.dictionaries(TEXT, values(inside["form"], known), max_size=3),
    "row": lambda inside, known: st.tuples(*(values(form, known) for form in inside["forms"])).map(list),
    "one_of": lambda inside, known: st.sampled_from(inside["words"]),
    "within": lambda inside, known: values(inside["form"], known) | st.sampled_from([inside["most"], 1]),
    "record": _record,
}


def arguments(takes: Mapping[str, Form], known: Known) -> st.SearchStrategy[dict[str, Any]]:
    """A call's arguments: what is true of the ledger, what has the right form, now and then what has not."""
    right = {name: known.get(name, st.nothing()) | values(form, known) for name, form in takes.items()}
    true = st.fixed_dictionaries({name: known.get(name, right[name]) for name in takes})
    valid = st.fixed_dictionaries(right)
    wrong = st.fixed_dictionaries(
        {}, optional={name: right[name] | JSON for name in [*takes, "more"] if name in right}
    )
    return true | true | true | valid | wrong
