"""Steps: only what is needed, in an order that works, and after any interruption the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_world import OURS, TWO, UID, done, empty, wanted
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.deployment import Deployment
from sweepfw.fleet.facts import Container, Facts
from sweepfw.fleet.plan import Make, Step, plan

CASES = Path(__file__).parents[1] / "cases" / "plan"


def steps_for(found: dict[str, Facts], deployment: Deployment = TWO) -> list[Step]:
    return plan(wanted(found, deployment), found, OURS, UID)


def complete() -> dict[str, Facts]:
    return done(empty(), steps_for(empty()))


def changed(told: dict[str, Any]) -> dict[str, Facts]:
    found = complete() if told.get("there") == "all" else empty()
    for host, changes in told.get("change", {}).items():
        docker = replace(found[host].docker, **changes.pop("docker", {}))
        changes = {key: tuple(each) if isinstance(each, list) else each for key, each in changes.items()}
        found[host] = replace(found[host], docker=docker, **changes)
    for host, roles in told.get("containers", {}).items():
        rows = [each._replace(**roles.get(each.role, {})) for each in found[host].containers]
        found[host] = replace(found[host], containers=tuple(rows))
    for host, rows in told.get("also", {}).items():
        more = tuple(Container(*row) for row in rows)
        found[host] = replace(found[host], containers=(*found[host].containers, *more))
    return found


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yml")), ids=lambda path: path.stem)
def test_steps(case: Path) -> None:
    told = yaml.safe_load(case.read_text())
    images = told.get("image", {})
    hosts = tuple(replace(host, image=images.get(host.name)) for host in TWO.hosts)
    deployment = replace(TWO, hosts=hosts, workers=tuple(told.get("workers", TWO.workers)))
    steps = [
        step
        for step in steps_for(changed(told), deployment)
        if told.get("only", "") in step.id.partition("/")[2]
    ]
    assert [f"{step.host}: {step.what}".replace(OURS, "OURS") for step in steps] == told["steps"]
    assert sorted({step.host for step in steps if step.interrupts}) == told.get("interrupts", [])


def test_steps_wait_for_what_they_stand_on() -> None:
    steps = {step.id: step for step in steps_for(empty())}
    for step in steps.values():
        assert set(step.after) <= set(steps), step.id

    def all_before(id: str) -> set[str]:
        return {id}.union(*(all_before(each) for each in steps[id].after))

    assert {"host1/rabbitmq", "host1/network", "host1/volumes", f"host1/image {OURS}"} <= all_before(
        "host1/head"
    )
    assert f"host1/image {OURS}" in all_before(f"host2/image {OURS}")
    assert not any(id.startswith("host1/worker") for id in all_before("host2/worker"))


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 30), min_size=1, max_size=3))
def test_killed_anywhere_and_as_often_as_you_like_the_next_up_finishes_it(
    random: Any, stops: list[int]
) -> None:
    """Steps run in any order that they allow, up to one that may be half done; then the same again."""
    found = empty()
    for stop in stops:
        found = done(found, in_some_order(steps_for(found), random)[:stop])
        found = half_done(found, random)
    found = done(found, in_some_order(steps_for(found), random))
    assert steps_for(found) == []
    assert {host: sorted(each.role for each in now.containers) for host, now in found.items()} == {
        "host1": ["flower", "head", "rabbitmq", "tunnel", "worker"],
        "host2": ["worker"],
    }


def in_some_order(steps: list[Step], random: Any) -> list[Step]:
    left, order = list(steps), []
    while left:
        ready = [step for step in left if not {each.id for each in left} & set(step.after)]
        assert ready, "steps wait for one another in a circle"
        order.append(random.choice(ready))
        left.remove(order[-1])
    return order


def half_done(found: dict[str, Facts], random: Any) -> dict[str, Facts]:
    """A container that was created and not started, as a killed `up` leaves one."""
    made = [step for step in steps_for(found) if isinstance(step.act, Make)]
    if not made:
        return found
    step = random.choice(made)
    after = done(found, [step])
    rows = [
        each._replace(state="created") if each.role == step.id.partition("/")[2] else each
        for each in after[step.host].containers
    ]
    return after | {step.host: replace(after[step.host], containers=tuple(rows))}
