"""Slots: what a host has and what trials need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs
from sweepfw.core.schedule import Room, slots_for
from sweepfw.errors import SweepError

GB = 10**9
SMALL = tuple(Gpu(n, f"GPU-{n}", "RTX 3090", 24 * GB) for n in range(2))
LARGE = tuple(Gpu(n, f"GPU-{n}", "A100", 80 * GB) for n in range(2, 4))
BARE = Room("box", 8, memory=32 * GB)
MIXED = BARE._replace(gpus=(*LARGE, *SMALL))


def shape(room: Room, needs: Needs, jobs: int | None = None) -> list[tuple[int, tuple[str, ...] | None]]:
    plans = slots_for(room, needs, jobs)
    assert [plan.name for plan in plans] == [str(n) for n in range(len(plans))]
    return [(plan.cpus, plan.gpus) for plan in plans]


def test_without_gpus_the_cpus_count() -> None:
    assert shape(BARE, Needs()) == [(1, ())] * 8
    assert shape(BARE, Needs(cpus=3)) == [(4, ())] * 2  # what is left over is shared out
    assert shape(BARE, Needs(cpus=0.5)) == [(1, ())] * 16


def test_the_users_number_may_exceed_the_cpus_and_never_the_gpus() -> None:
    assert len(slots_for(BARE, Needs(), 20)) == 20
    assert shape(BARE, Needs(), 2) == [(4, ())] * 2
    assert len(slots_for(MIXED, Needs(), 20)) == 4
    assert shape(MIXED, Needs(), 1) == [(8, ("GPU-0",))]
    assert shape(MIXED, Needs(gpus=0), 20) == [(1, None)] * 20


def test_one_slot_for_each_gpu_in_their_order() -> None:
    assert shape(MIXED, Needs()) == [(2, (f"GPU-{n}",)) for n in range(4)]
    assert shape(MIXED, Needs(gpus=2)) == [(4, ("GPU-0", "GPU-1")), (4, ("GPU-2", "GPU-3"))]
    assert shape(MIXED, Needs(gpus=3)) == [(8, ("GPU-0", "GPU-1", "GPU-2"))]
    assert shape(MIXED, Needs(vram=40 * GB)) == [(4, ("GPU-2",)), (4, ("GPU-3",))]


def test_cpus_hold_gpus_back_only_where_trials_ask_for_several() -> None:
    assert len(slots_for(MIXED._replace(cpus=2), Needs())) == 4
    assert len(slots_for(MIXED, Needs(cpus=4))) == 2


def test_memory_bounds_the_number() -> None:
    assert len(slots_for(BARE, Needs(memory=10 * GB))) == 3
    assert len(slots_for(BARE, Needs(memory=10 * GB), 8)) == 3
    assert len(slots_for(MIXED, Needs(memory=10 * GB))) == 3
    assert len(slots_for(BARE._replace(memory=None), Needs(memory=10 * GB))) == 8  # not known: not bound


@pytest.mark.parametrize(
    ("room", "needs", "jobs", "said"),
    [
        (BARE, Needs(cpus=9), None, "needs.cpus: trials need 9, but box has 8"),
        (BARE, Needs(gpus=1), None, "needs.gpus: trials need 1 GPU, but box has no GPU"),
        (MIXED, Needs(gpus=5), None, "needs.gpus: trials need 5 GPUs, but box has RTX|A100"),
        (
            MIXED,
            Needs(vram=90 * GB),
            None,
            "needs.vram: trials need 1 GPU with 90GB, but box has A100 with 80GB",
        ),
        (BARE, Needs(vram=1 * GB), None, "needs.vram: .* no GPU"),
        (BARE, Needs(memory=33 * GB), None, "needs.memory: trials need 33GB, but box has 32GB"),
        (BARE, Needs(paths=("/data",)), None, "needs.paths: box has no /data"),
        (BARE, Needs(hosts=("gpu1",)), None, "needs.hosts: trials need gpu1, but box has the name box"),
        (BARE, Needs(labels=("fast",)), None, "needs.labels: trials need fast, but box has no labels"),
        (BARE, Needs(), 0, "-j 0"),
    ],
)
def test_needs_that_can_not_be_met_say_what_is_there(
    room: Room, needs: Needs, jobs: int | None, said: str
) -> None:
    with pytest.raises(SweepError, match=said):
        slots_for(room, needs, jobs)


def test_paths_and_labels_that_are_there() -> None:
    room = BARE._replace(paths=frozenset({"/data"}), labels=frozenset({"fast", "big"}))
    assert slots_for(room, Needs(paths=("/data",), labels=("fast",), hosts=("box", "other")))


@given(
    cpus=st.integers(1, 64),
    gpus=st.integers(0, 8),
    needs=st.builds(
        Needs,
        gpus=st.none() | st.integers(0, 4),
        cpus=st.sampled_from([0.5, 1, 2, 8]),
        memory=st.none() | st.integers(1, 40).map(lambda n: n * GB),
    ),
    jobs=st.none() | st.integers(1, 100),
)
def test_no_gpu_is_given_twice_and_there_is_a_slot_or_a_reason(
    cpus: int, gpus: int, needs: Needs, jobs: int | None
) -> None:
    room = Room("box", cpus, tuple(Gpu(n, f"GPU-{n}", "X", GB) for n in range(gpus)), 32 * GB)
    try:
        plans = slots_for(room, needs, jobs)
    except SweepError:
        return
    given_out = [uuid for plan in plans for uuid in plan.gpus or ()]
    assert plans
    assert len(given_out) == len(set(given_out))
    assert jobs is None or len(plans) <= jobs
    assert all(plan.cpus >= max(1, needs.cpus) for plan in plans)
    assert needs.memory is None or len(plans) * needs.memory <= 32 * GB
