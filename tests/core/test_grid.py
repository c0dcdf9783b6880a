"""The grid against a model that makes every combination and throws away what should not be there."""

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepfw.core import grid
from sweepfw.core.grid import Count, check_limit, count, expand
from sweepfw.core.sequences import Interval
from sweepfw.core.space import Parameter, Space
from sweepfw.core.values import Number, encode, meaning
from sweepfw.errors import SweepError


def numbers(*texts):
    return tuple(map(Number, texts))


def space(rules=None, **values):
    return Space(tuple(Parameter(name, items) for name, items in values.items()), **(rules or {}))


def shown(a_space):
    return [
        " ".join(f"{n}={getattr(v, 'text', v)}" for n, v in each.params.items()) + f" #{each.repeat}"
        for each in expand(a_space)
    ]


def meets(params, wanted):
    """Whether a combination has all these values; a list stands for any of its items, too."""
    for name, value in wanted.items():
        choices = {meaning(value)} | (
            {meaning(item) for item in value} if isinstance(value, tuple) else set()
        )
        if name not in params or meaning(params[name]) not in choices:
            return False
    return True


def without_idle(params, when):
    """What `when` leaves: parameters whose conditions hold, until nothing changes."""
    known = {name: value for name, value in params.items() if name not in when}
    while True:
        more = {n: params[n] for n in params if n in when and n not in known and meets(known, when[n])}
        if not more:
            return {name: value for name, value in params.items() if name in known}
        known |= more


def naive(a_space):
    """All trials, by brute force."""
    values = {each.name: list(each.values) for each in a_space.parameters if each.name != a_space.seed}
    groups = {name: group for group in a_space.zip for name in group}
    axes, done = [], set()
    for name in values:
        if name not in done:
            group = [each for each in values if each in groups.get(name, (name,))]
            done |= set(group)
            axes.append(
                [dict(zip(group, row, strict=True)) for row in zip(*(values[n] for n in group), strict=True)]
            )
    kept = {}
    for rows in itertools.product(*axes):
        whole = {name: value for row in rows for name, value in row.items()}
        params = without_idle({name: whole[name] for name in values}, a_space.when)
        if not any(meets(params, entry) for entry in a_space.exclude):
            kept.setdefault(key(params), params)
    for entry in a_space.include:
        whole = {name: entry.get(name, items[0]) for name, items in values.items()}
        params = without_idle(whole, a_space.when)
        kept.setdefault(key(params), params)
    trials = []
    for params in kept.values():
        for repeat in range(1, a_space.repeats + 1):
            seed = {a_space.seed: Number(str(repeat))} if a_space.seed else {}
            names = a_space.names
            both = {**params, **seed}
            trials.append(({name: both[name] for name in names if name in both}, repeat))
    return trials


def key(params):
    return frozenset((name, meaning(value)) for name, value in params.items())


POOL = [Number("0.1"), Number("0.10"), Number("1"), "1", True, None, "sgd", (Number("1"), "a")]


two_of_pool = st.sampled_from(POOL[1:4])


def row_meaning(row):
    return tuple(map(meaning, row))


@st.composite
def spaces(draw):
    names = draw(st.permutations(["a", "b", "c", "d"]))[: draw(st.integers(1, 4))]
    zipped = draw(st.booleans()) and len(names) > 1
    values = {}
    if zipped:  # rows differ, but a column may hold a value twice
        rows = draw(
            st.lists(st.tuples(two_of_pool, two_of_pool), min_size=1, max_size=3, unique_by=row_meaning)
        )
        values = dict(zip(names, zip(*rows, strict=True), strict=False))
    for name in names[len(values) :]:
        if draw(st.integers(0, 4)) == 0:
            values[name] = Interval(Number("0"), Number("3"))
        else:
            values[name] = tuple(
                draw(st.lists(st.sampled_from(POOL), unique_by=meaning, min_size=1, max_size=3))
            )
    entry = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: wanted(values[name]) for name in chosen})
    )
    when = {}
    for place, name in enumerate(draw(st.permutations(names))):
        earlier = [other for other in when if other != name] + [other for other in names if other not in when]
        candidates = [other for other in earlier if other != name and not depends(when, other, name)]
        if place and candidates and draw(st.integers(0, 2)) == 0:
            other = draw(st.sampled_from(candidates))
            when[name] = {other: draw(wanted(values[other]))}
    rules = {
        "zip": (tuple(names[:2]),) if zipped else (),
        "exclude": tuple(draw(st.lists(entry, max_size=2))),
        "when": when,
        "repeats": draw(st.integers(1, 2)),
        "seed": draw(st.sampled_from([None, None, "seed"])),
    }
    include = []
    for _ in range(draw(st.integers(0, 2))):
        whole = {
            name: draw(st.one_of(wanted(items), st.sampled_from(POOL))) for name, items in values.items()
        }
        include.append(without_idle(whole, when))
    rules["include"] = tuple(each for each in include if each)
    listed = list(values.items())
    if rules["seed"] and draw(st.booleans()):
        listed.insert(draw(st.integers(0, len(listed))), ("seed", numbers("0")))
    return Space(tuple(Parameter(*each) for each in listed), **rules)


def wanted(values):
    one = st.sampled_from(list(values))
    return st.one_of(
        one,
        one,
        st.lists(one.filter(lambda v: not isinstance(v, tuple)), min_size=1, max_size=2).map(tuple)
        if any(not isinstance(v, tuple) for v in values)
        else one,
    )


def depends(when, name, on):
    return name == on or any(depends(when, other, on) for other in when.get(name, ()))


@settings(max_examples=400, deadline=None)
@given(spaces())
def test_the_grid_is_what_brute_force_makes(a_space):
    trials = [(dict(each.params), each.repeat) for each in expand(a_space)]
    assert [(list(params.items()), n) for params, n in trials] == [
        (list(params.items()), n) for params, n in naive(a_space)
    ]
    assert count(a_space) == Count(len(trials))
    assert len({(key(params), n) for params, n in trials}) == len(trials)
    assert Space.from_json(a_space.to_json()) == a_space


@settings(max_examples=100, deadline=None)
@given(spaces())
def test_walking_the_grid_finds_the_same(a_space):
    expected = [(encode(each.params), each.repeat) for each in expand(a_space)]
    most, grid.MOST_BOXES = grid.MOST_BOXES, 0
    try:
        assert [(encode(each.params), each.repeat) for each in expand(a_space)] == expected
        assert count(a_space).number >= len(expected)
        assert not count(a_space).exact
        if expected:
            assert check_limit(a_space, len(expected)) == Count(len(expected))
            with pytest.raises(SweepError, match=f"more than {len(expected) - 1} trials"):
                check_limit(a_space, len(expected) - 1)
    finally:
        grid.MOST_BOXES = most


def test_the_first_parameter_is_slowest_and_repeats_innermost():
    a_space = space({"repeats": 2}, a=("x", "y"), b=numbers("1", "2"))
    assert shown(a_space) == [
        "a=x b=1 #1",
        "a=x b=1 #2",
        "a=x b=2 #1",
        "a=x b=2 #2",
        "a=y b=1 #1",
        "a=y b=1 #2",
        "a=y b=2 #1",
        "a=y b=2 #2",
    ]


def test_the_seed_gets_the_number_of_the_repeat():
    assert shown(space({"repeats": 2, "seed": "seed"}, a=("x",))) == ["a=x seed=1 #1", "a=x seed=2 #2"]
    named = space({"repeats": 2, "seed": "seed"}, seed=numbers("7"), a=("x",))
    assert shown(named) == ["seed=1 a=x #1", "seed=2 a=x #2"]


def test_no_parameters_are_one_trial():
    assert shown(space()) == [" #1"]
    assert count(space({"repeats": 3})) == Count(3)


def test_zipped_parameters_stand_where_the_first_of_them_stands():
    a_space = space({"zip": (("c", "a"),)}, a=numbers("1", "2"), b=("x", "y"), c=numbers("1", "1"))
    assert shown(a_space) == ["a=1 b=x c=1 #1", "a=1 b=y c=1 #1", "a=2 b=x c=1 #1", "a=2 b=y c=1 #1"]


def test_when_leaves_out_and_makes_one_of_what_is_equal():
    rules = {"when": {"momentum": {"opt": "sgd"}}}
    a_space = space(rules, momentum=numbers("0", "0.9"), opt=("sgd", "adam"))
    assert shown(a_space) == ["momentum=0 opt=sgd #1", "opt=adam #1", "momentum=0.9 opt=sgd #1"]


def test_when_makes_one_of_zipped_rows_that_become_equal():
    rules = {"zip": (("a", "b"),), "when": {"a": {"o": "p"}}}
    a_space = space(rules, a=numbers("1", "2", "3"), b=("x", "x", "y"), o=("p", "q"))
    assert shown(a_space) == [
        "a=1 b=x o=p #1",
        "b=x o=q #1",
        "a=2 b=x o=p #1",
        "a=3 b=y o=p #1",
        "b=y o=q #1",
    ]
    assert count(a_space) == Count(5)


def test_exclude_matches_what_is_left_by_when():
    rules = {"when": {"m": {"opt": "sgd"}}, "exclude": ({"m": Number("0.0")},)}
    a_space = space(rules, opt=("sgd", "adam"), m=numbers("0", "0.9"))
    assert shown(a_space) == ["opt=sgd m=0.9 #1", "opt=adam #1"]


def test_include_brings_back_what_exclude_took():
    rules = {
        "exclude": ({"a": "x"},),
        "include": ({"a": "x", "b": Number("1.0")}, {"a": "y", "b": Number("2")}),
    }
    assert shown(space(rules, a=("x", "y"), b=numbers("1", "2"))) == [
        "a=y b=1 #1",
        "a=y b=2 #1",
        "a=x b=1.0 #1",
    ]


def test_huge_grids_are_counted_and_begun_at_once():
    wide = Interval(Number("0"), Number("1000000000"))
    rules = {"exclude": ({"a": Number("5"), "c": "x"},), "when": {"c": {"b": Number("77")}}, "repeats": 3}
    a_space = space(rules, a=wide, b=wide, c=("x", "y", "z"))
    # c takes part only where b is 77: 2 more there for each a, and one is excluded.
    assert count(a_space) == Count((10**18 + 2 * 10**9 - 1) * 3)
    assert next(expand(a_space)).params == {"a": Number("0"), "b": Number("0")}
    with pytest.raises(SweepError, match=r"3,000,000,005,999,999,997 trials.*--max-trials is 100,000"):
        check_limit(a_space, 100_000)
    assert count(space(a=wide, b=wide)) == Count(10**18)


def test_many_conditional_parameters_cost_what_is_left_of_them():
    names = [f"x{n}" for n in range(10)]
    values = {name: numbers(*map(str, range(8))) for name in names}
    when = {name: {"opt": Number(str(n))} for n, name in enumerate(names)}
    a_space = space({"when": when}, **values, opt=numbers(*map(str, range(10))))  # 10^10 before when
    assert count(a_space) == Count(80)
    assert sum(1 for _ in expand(a_space)) == 80


def test_expansion_is_flat_in_memory():
    digits = numbers(*map(str, range(10)))
    a_space = space(a=digits, b=digits, c=digits, d=digits, e=digits)
    tracemalloc.start()
    assert sum(1 for _ in expand(a_space)) == 100_000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_an_empty_grid_is_refused():
    with pytest.raises(SweepError, match="exclude leaves no combination"):
        check_limit(space({"exclude": ({"a": "x"},)}, a=("x",)), 10)
