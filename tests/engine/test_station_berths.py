"""A worker's slots and GPUs: never two trials in one place, never one that others use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs
from sweepfw.engine.berths import Berth, Berths

GB = 10**9


def gpus(*memories: int) -> list[Gpu]:
    return [Gpu(at, f"GPU-{at}", "T", memory * GB) for at, memory in enumerate(memories)]


def test_without_gpus_a_trial_sees_what_is_there() -> None:
    berths = Berths("a", 2, 8, [])
    first, second = berths.take(Needs()), berths.take(Needs(cpus=5, gpus=0))
    assert first and second
    assert (first.slot.name, first.slot.gpus, first.slot.cpus) == ("0", None, 4)
    assert (second.slot.name, second.slot.gpus, second.slot.cpus) == ("1", (), 5)
    assert berths.take(Needs()) is None
    first.give()
    first.give()
    again = berths.take(Needs())
    assert again and again.slot.name == "0"
    assert berths.take(Needs()) is None
    assert Berths("a", 2, 8, []).take(Needs(gpus=1)) is None


def test_a_trial_gets_the_smallest_gpu_that_will_do() -> None:
    berths = Berths("a", 4, 4, gpus(24, 8, 24))
    taken = [berths.take(needs) for needs in (Needs(), Needs(vram=20 * GB), Needs(vram=20 * GB))]
    assert [berth.slot.gpus for berth in taken if berth] == [("GPU-1",), ("GPU-0",), ("GPU-2",)]
    assert berths.take(Needs()) is None
    cpu = berths.take(Needs(gpus=0))
    assert cpu and cpu.slot.gpus == ()


def test_gpus_of_others_are_not_handed_out() -> None:
    berths = Berths("a", 2, 4, gpus(8, 8))
    assert berths.mark(["GPU-0"], foreign=True) and not berths.mark(["GPU-0"], foreign=True)
    berth = berths.take(Needs())
    assert berth and berth.slot.gpus == ("GPU-1",)
    assert berths.idle_gpus() == ["GPU-0"] and berths.take(Needs()) is None
    assert berths.mark(["GPU-0"], foreign=False) and berths.take(Needs()) is not None


@given(
    slots=st.integers(1, 6),
    memories=st.lists(st.sampled_from([8, 24]), max_size=5),
    acts=st.lists(
        st.tuples(st.booleans(), st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, 20 * GB]))
    ),
)
def test_nothing_is_given_twice(
    slots: int, memories: list[int], acts: list[tuple[bool, int | None, int | None]]
) -> None:
    berths = Berths("a", slots, 8, gpus(*memories))
    held: list[Berth] = []
    for take, count, vram in acts:
        if take:
            berth = berths.take(Needs(gpus=count, vram=vram if count != 0 else None))
            held += [berth] if berth else []
        elif held:
            held.pop(0).give()
        names = [berth.slot.name for berth in held]
        used = [uuid for berth in held for uuid in berth.slot.gpus or ()]
        assert len(names) == len(set(names)) <= slots
        assert len(used) == len(set(used))
