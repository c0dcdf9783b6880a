"""Which trial is sent where."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core import placement
from sweepfw.core.deployment import Advert
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs, Waiting, Worker
from sweepfw.core.placement import Load, Publication, Station, place
from sweepfw.core.states import TRIES_WHEN_LOST

GB = 10**9
PLAIN = Needs()


def gpu(index: int, size: int = 24, *, taken: bool = False) -> Gpu:
    return Gpu(index, f"GPU-{index}", "A100", size * GB, pids=(1,) if taken else ())


def station(
    host: str = "a", slots: int = 2, loads: tuple[Load, ...] = (), *, cautious: bool = False, **advert: object
) -> Station:
    told = Advert(slots=slots, **{"cpus": slots, **advert})  # type: ignore[arg-type]  # a test's own words
    return Station(Worker(host, "00"), told, loads, cautious)


def sweep(
    uid: str = "s",
    trials: int = 3,
    needs: Needs = PLAIN,
    *,
    running: int = 0,
    created: float = 0,
    losses: int = 0,
) -> Waiting:
    return Waiting(uid, uid, created, needs, running, tuple((n, losses) for n in range(1, trials + 1)))


def sent(found: list[Publication]) -> list[str]:
    return [f"{each.load.uid}/{each.load.trial}@{each.worker.host}" for each in found]


def load(uid: str = "other", trial: int = 1, needs: Needs = PLAIN, *, alone: bool = False) -> Load:
    return Load(uid, trial, needs, alone)


def test_no_more_at_once_than_was_asked_for() -> None:
    few = sweep(trials=9, running=1)._replace(at_once=3)
    assert sent(place([station("a", 8, (load("s", 20),))], [few])) == ["s/1@a", "s/2@a"]
    assert sent(place([station("a", 8)], [few._replace(running=3), sweep("t", 1)])) == ["t/1@a"]


def test_no_more_at_once_though_one_has_to_run_alone() -> None:
    few = sweep(trials=3)._replace(at_once=1, trials=((1, TRIES_WHEN_LOST), (2, 0), (3, 0)))
    assert sent(place([station("a", 2), station("b", 2)], [few])) == ["s/1@a"]


def test_a_sweep_fills_the_slots_evenly_and_no_more() -> None:
    assert sent(place([station("a", 2), station("b", 2)], [sweep(trials=9)])) == [
        "s/1@a",
        "s/2@b",
        "s/3@a",
        "s/4@b",
    ]


def test_slots_that_are_taken_stay_taken() -> None:
    busy = station("a", 2, (load(trial=1), load(trial=2)))
    assert sent(place([busy, station("b", 1)], [sweep()])) == ["s/1@b"]


def test_sweeps_share_fairly_the_one_with_the_fewest_running_first_then_the_oldest() -> None:
    old, young = sweep("old", 9, running=2, created=1), sweep("young", 9, created=2)
    assert sent(place([station("a", 4)], [old, young])) == ["young/1@a", "young/2@a", "old/1@a", "young/3@a"]


def test_gpus_are_given_by_what_is_said() -> None:
    host = station("g", 4, gpus=(gpu(0), gpu(1)), cpus=8)
    assert len(place([host], [sweep(trials=9)])) == 2  # one each where nothing is said
    assert len(place([host], [sweep(trials=9, needs=Needs(gpus=0))])) == 4
    assert len(place([host], [sweep(trials=9, needs=Needs(gpus=2))])) == 1
    assert len(place([station("c", 3)], [sweep(trials=9)])) == 3  # and none where there are none
    assert not place([station("c", 3)], [sweep(needs=Needs(gpus=1))])


def test_a_gpu_that_others_use_gets_no_trial() -> None:
    host = station("g", 4, gpus=(gpu(0), gpu(1, taken=True)), cpus=8)
    assert len(place([host], [sweep(trials=9)])) == 1
    alltaken = station("g", 4, gpus=(gpu(0, taken=True),), cpus=8)
    assert not place([alltaken], [sweep()])  # not even without a GPU: it wants one where there are any


def test_large_gpus_are_kept_count_of() -> None:
    host = station("g", 4, gpus=(gpu(0, 24), gpu(1, 80)), cpus=8)
    large = Needs(vram=40 * GB)
    assert len(place([host], [sweep(trials=9, needs=large)])) == 1
    both = [sweep("large", 9, large), sweep("small", 9, Needs(vram=10 * GB), created=1)]
    assert sent(place([host], both)) == ["large/1@g", "small/1@g"]


def test_trials_without_gpus_leave_hosts_with_gpus_to_others() -> None:
    hosts = [station("a", 2, gpus=(gpu(0),)), station("b", 1)]
    assert sent(place(hosts, [sweep(needs=Needs(gpus=0))])) == ["s/1@b", "s/2@a", "s/3@a"]


def test_several_cpus_are_counted_and_slots_may_exceed_cpus() -> None:
    assert len(place([station("a", 8, cpus=2)], [sweep(trials=20)])) == 8
    assert len(place([station("a", 8, cpus=8)], [sweep(trials=20, needs=Needs(cpus=3))])) == 2
    mixed = place([station("a", 4)], [sweep("l", 9, Needs(cpus=3)), sweep("s", 9, created=1)])
    assert sent(mixed) == ["l/1@a", "s/1@a"]


def test_memory_is_counted() -> None:
    host = station("a", 8, memory=10 * GB)
    assert len(place([host], [sweep(trials=20, needs=Needs(memory=4 * GB))])) == 2


@pytest.mark.parametrize(
    ("needs", "advert", "why"),
    [
        (Needs(hosts=("b", "c")), {}, "needs.hosts: a is none of b, c"),
        (Needs(labels=("fast",)), {"labels": ("slow",)}, "needs.labels: a has no label fast"),
        (Needs(labels=("fast",)), {"labels": ("fast",)}, None),
        (Needs(paths=("/data/x",)), {"mounts": ("/data",)}, None),
        (Needs(paths=("/data/",)), {"mounts": ("/data",)}, None),
        (Needs(paths=("/database",)), {"mounts": ("/data",)}, "needs.paths: a has no mount for /database"),
        (Needs(paths=("data",)), {}, None),
        (Needs(cpus=3), {}, "needs.cpus: a has 2, trials need 3"),
        (Needs(memory=9 * GB), {"memory": 8 * GB}, "needs.memory: a has 8GB, trials need 9GB"),
        (Needs(memory=9 * GB), {}, None),
        (Needs(gpus=2), {"gpus": (gpu(0),)}, "needs.gpus: a has 1 GPUs, trials need 2"),
        (Needs(vram=40 * GB), {"gpus": (gpu(0),)}, "needs.vram: a has 0 GPUs with 40GB, trials need 1"),
        (Needs(gpus=1), {"gpus": (gpu(0, taken=True),)}, None),  # others may leave
    ],
)
def test_what_a_host_can_never_run_is_said(needs: Needs, advert: dict[str, object], why: str | None) -> None:
    host = station("a", 2, **advert)
    said = placement.unmet("a", host.advert, needs)
    assert said == why
    if why:
        assert not place([host], [sweep(needs=needs)])


def test_a_trial_with_many_losses_runs_alone() -> None:
    lost = sweep("lost", 1, losses=TRIES_WHEN_LOST, created=5)
    found = place([station("a", 2)], [sweep("s", 9), lost])
    assert sent(found) == ["lost/1@a"]
    assert found[0].load.alone
    beside = station("a", 2, (load("lost", 1, alone=True),))
    assert not place([beside], [sweep("s", 9)])


def test_a_host_is_emptied_for_a_trial_that_must_run_alone() -> None:
    lost = sweep("lost", 1, losses=TRIES_WHEN_LOST, running=7, created=5)
    hosts = [station("a", 2, (load(),)), station("b", 2, (load(trial=2), load(trial=3)))]
    assert not place(hosts, [sweep("s", 9), lost])
    hosts = [station("a", 2), station("b", 2, (load(trial=2),))]
    assert sent(place(hosts, [sweep("s", 9), lost])) == ["lost/1@a", "s/1@b"]


def test_of_many_trials_that_must_run_alone_one_of_a_sweep_empties_hosts() -> None:
    lost = sweep("lost", 9, losses=TRIES_WHEN_LOST)
    hosts = [station("a", 2, (load("lost", 99, alone=True),)), station("b", 2, (load(),))]
    assert sent(place(hosts, [lost, sweep("s", 9, created=1)])) == ["s/1@b"]


def test_a_large_trial_is_not_starved_by_small_ones() -> None:
    host = station("a", 4, tuple(load(trial=n) for n in range(2)))
    large, small = sweep("large", 1, Needs(cpus=4)), sweep("small", 9, running=2, created=1)
    assert not place([host], [large, small])
    assert len(place([host], [small])) == 2


def test_room_is_kept_only_of_what_is_wanted() -> None:
    """All GPUs are in use: trials that want none are not kept waiting for them."""
    host = station("a", 4, (load(needs=Needs(gpus=1)),), gpus=(gpu(0),))
    hosts = sent(place([host], [sweep("g", 9, Needs(gpus=1)), sweep("c", 9, Needs(gpus=0), running=1)]))
    assert hosts == ["c/1@a", "c/2@a"]


def test_a_host_where_trials_fail_at_once_takes_one_at_a_time() -> None:
    assert len(place([station("a", 4, cautious=True)], [sweep(trials=9)])) == 1
    assert not place([station("a", 4, (load(),), cautious=True)], [sweep(trials=9)])


def test_a_trial_is_not_sent_where_an_attempt_of_it_may_still_run() -> None:
    host = station("a", 2, (load("s", 1),))
    assert sent(place([host], [sweep(trials=2)])) == ["s/2@a"]


# -- properties ----------------------------------------------------------------------------------------

_NEEDS = st.builds(
    Needs,
    gpus=st.sampled_from([None, 0, 1, 2]),
    cpus=st.sampled_from([0.5, 1, 2, 4]),
    memory=st.sampled_from([None, GB, 4 * GB]),
    vram=st.sampled_from([None, None, 30 * GB]),
    hosts=st.sampled_from([(), (), ("a",), ("b", "c")]),
    labels=st.sampled_from([(), (), ("x",)]),
)
_ADVERTS = st.builds(
    Advert,
    slots=st.integers(0, 6),
    cpus=st.sampled_from([1, 2, 4, 8]),
    memory=st.sampled_from([None, 6 * GB]),
    gpus=st.lists(st.tuples(st.sampled_from([24, 80]), st.booleans()), max_size=4).map(
        lambda found: tuple(gpu(n, size, taken=used) for n, (size, used) in enumerate(found))
    ),
    labels=st.sampled_from([(), ("x",)]),
)
_STATIONS = st.lists(st.tuples(_ADVERTS, st.booleans()), max_size=3).map(
    lambda found: [
        Station(Worker("abc"[n], "00"), advert, (), cautious) for n, (advert, cautious) in enumerate(found)
    ]
)
_SWEEPS = st.lists(
    st.tuples(_NEEDS, st.integers(0, 3), st.lists(st.sampled_from([0, 0, 0, 3]), max_size=8)), max_size=4
).map(
    lambda found: [
        Waiting(f"s{n}", f"s{n}", float(n), needs, running, tuple(enumerate(losses, 1)))
        for n, (needs, running, losses) in enumerate(found)
    ]
)


def _after(stations: list[Station], found: list[Publication]) -> list[Station]:
    return [
        each._replace(loads=each.loads + tuple(p.load for p in found if p.worker == each.worker))
        for each in stations
    ]


@given(_STATIONS, _SWEEPS)
def test_nothing_is_sent_twice_or_beyond_what_there_is(
    stations: list[Station], sweeps: list[Waiting]
) -> None:
    found = place(stations, sweeps)
    assert max(Counter(each.load[:2] for each in found).values(), default=1) == 1
    waiting = {(each.uid, number) for each in sweeps for number, _ in each.trials}
    assert {each.load[:2] for each in found} <= waiting
    for each in _after(stations, found):
        advert, needs = each.advert, [load.needs for load in each.loads]
        assert len(needs) <= (1 if each.cautious else advert.slots)
        assert not any(load.alone for load in each.loads) or len(needs) == 1
        assert sum(n.memory or 0 for n in needs) <= (advert.memory or 10**15)
        assert sum(n.cpus for n in needs if n.cpus > 1) <= advert.cpus
        assert all(placement.unmet(each.worker.host, advert, n) is None for n in needs)
        free = sorted(g.memory or 0 for g in advert.gpus if not g.pids)
        for want in sorted(needs, key=lambda n: n.vram or 0):
            for _ in range(placement.gpus_wanted(advert, want)):
                free.remove(next(size for size in free if size >= (want.vram or 0)))


@given(_STATIONS, _SWEEPS)
def test_no_slot_stays_empty_that_some_trial_could_use(
    stations: list[Station], sweeps: list[Waiting]
) -> None:
    """But for room that is kept: with trials of one kind in each sweep that has some running, none is."""
    sweeps = [
        each._replace(running=each.running + 1, trials=tuple((n, 0) for n, _ in each.trials))
        for each in sweeps
    ]
    found = place(stations, sweeps)
    gone = {each.load[:2] for each in found}
    left = [
        each._replace(trials=tuple(t for t in each.trials if (each.uid, t[0]) not in gone)) for each in sweeps
    ]
    assert not place(_after(stations, found), left)


@given(st.integers(1, 6), st.lists(st.integers(0, 9), min_size=2, max_size=4))
def test_equal_sweeps_get_equal_shares(slots: int, running: list[int]) -> None:
    sweeps = [sweep(f"s{n}", 20, running=count, created=n) for n, count in enumerate(running)]
    got = Counter(each.load.uid for each in place([station("a", slots)], sweeps))
    after = [count + got[f"s{n}"] for n, count in enumerate(running)]
    served = [total for n, total in enumerate(after) if got[f"s{n}"]]
    assert max(served) <= min(after) + 1
    assert sum(got.values()) == slots


@given(_STATIONS, _SWEEPS)
def test_the_same_question_has_the_same_answer(stations: list[Station], sweeps: list[Waiting]) -> None:
    assert place(stations, sweeps) == place(stations[::-1], sweeps[::-1])
    order = [
        each.load.trial for each in place(stations, sweeps) if each.load.uid == "s0" and not each.load.alone
    ]
    assert all(a < b for a, b in pairwise(order))
