"""Specs as JSON and back, also as older and newer versions wrote them."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.model import Environment, Needs, Objective, Spec
from sweepfw.core.secrets import Need
from sweepfw.core.spec import from_json, to_json

TEXTS = st.text(max_size=8)
SIZES = st.none() | st.integers(0, 10**15)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SPECS = st.builds(
    Spec,
    project=TEXTS,
    task=TEXTS,
    command=st.lists(TEXTS).map(tuple),
    shell=st.booleans(),
    flags=st.sampled_from(["equals", "space", "bare"]),
    metrics=st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=3).map(tuple),
    objective=st.none() | st.builds(Objective, TEXTS, st.sampled_from(["minimize", "maximize"])),
    outputs=st.lists(TEXTS, max_size=3).map(tuple),
    needs=st.builds(
        Needs,
        gpus=st.none() | st.integers(0, 8),
        cpus=st.integers(1, 64) | st.floats(0.5, 8),
        memory=SIZES,
        vram=SIZES,
        paths=st.lists(TEXTS, max_size=2).map(tuple),
        hosts=st.lists(TEXTS, max_size=2).map(tuple),
    ),
    environment=st.builds(Environment, st.sampled_from(["inherit", "requirements", "python"]), TEXTS),
    variables=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
    secrets=st.lists(
        st.builds(Need, TEXTS, st.sampled_from(["env", "file"]), st.none() | TEXTS, TEXTS), max_size=3
    ).map(tuple),
    timeout=st.none() | st.floats(0.1, 1e6) | st.integers(1, 10**6),
    retries=st.lists(st.tuples(TEXTS, st.integers(0, 9)), max_size=3).map(tuple),
    seed=st.none() | TEXTS,
    space=st.dictionaries(TEXTS, JSON, max_size=3),
)


@given(SPECS)
def test_the_round_trip_is_exact(spec: Spec) -> None:
    data = to_json(spec)
    assert from_json(data) == spec
    assert from_json(json.loads(json.dumps(data))) == spec
    assert to_json(from_json(data)) == data


def test_every_setting_is_there() -> None:
    assert set(to_json(Spec("p", "t", ("c",)))) == {f.name for f in fields(Spec)}


def test_older_data_lacks_keys_and_newer_data_has_more() -> None:
    data = {"project": "p", "task": "t", "command": ["c"], "needs": {"gpus": 2, "moons": 1}, "colour": "red"}
    data["secrets"] = [{"name": "KEY", "kind": "env", "weight": 3}]
    assert from_json(data) == Spec("p", "t", ("c",), needs=Needs(gpus=2), secrets=(Need("KEY", "env"),))
