"""Intervals and ranges: exact, in order, and never made before they are asked for."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sweepfw.core.sequences import Interval, Range, finder, written
from sweepfw.core.values import Number, is_number
from sweepfw.errors import SweepError

decimals = st.decimals(-1000, 1000, allow_nan=False, allow_infinity=False, places=3)
extremes = st.builds(lambda n, e: Number(f"{n}e{e}"), st.integers(-999, 999), st.integers(-300, 300))


def texts(values):
    return [value.text for value in values]


def interval(*numbers):
    return Interval(*map(Number, numbers))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (("0.1", "0.5", "0.1"), "0.1 0.2 0.3 0.4"),
        (("1", "1.3", "0.1"), "1 1.1 1.2"),
        (("5", "20", "5"), "5 10 15"),
        (("5", "21", "5"), "5 10 15 20"),
        (("0", "3"), "0 1 2"),
        (("5", "0", "-2"), "5 3 1"),
        (("0.10", "0.30", "0.10"), "0.1 0.2"),
        (("1e-5", "3e-5", "1e-5"), "0.00001 0.00002"),
        (("1e-7", "3e-7", "1e-7"), "1e-7 2e-7"),
        (("-1", "1", "1"), "-1 0"),
        (("-0", "2"), "0 1"),
        (("010", "013"), "10 11 12"),
        (("1e15", "3e15", "1e15"), "1000000000000000 2e15"),
        (("10000000000000000", "10000000000000002"), "10000000000000000 10000000000000001"),
        (("1.5e16", "1.6e16", "1e16"), "1.5e16"),
        (("-1e300", "1e300", "1e300"), "-1e300 0"),
    ],
)
def test_an_interval_gives_exact_decimals(numbers, expected):
    values = interval(*numbers)
    assert texts(values) == expected.split()
    assert len(values) == len(expected.split())
    assert texts(values[i] for i in range(len(values))) == expected.split()


@given(decimals, decimals, decimals)
def test_an_interval_agrees_with_fractions(start, end, step):
    assume(step and start != end and (step > 0) == (end > start))
    assume((end - start) / step < 5000)
    values = interval(str(start), str(end), str(step))
    expected = []
    value = Fraction(start)
    while (value < end) if step > 0 else (value > end):
        expected.append(value)
        value += Fraction(step)
    assert [Fraction(each.exact) for each in values] == expected
    assert all(is_number(each.text) for each in values)
    assert all(values.find(each) == place for place, each in list(enumerate(values))[:20])


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (("0", "5", "0"), "step 0"),
        (("0", "5", "-1"), "away"),
        (("5", "0"), "away"),
        (("5", "5"), "empty"),
        (("0", "1e300"), "more than"),
    ],
)
def test_an_interval_without_sense_is_refused(numbers, why):
    with pytest.raises(SweepError, match=why):
        interval(*numbers)


def test_a_billion_values_cost_nothing():
    values = interval("0", "1000000000")
    assert len(values) == 10**9
    assert values[-1] == Number("999999999")
    assert list(finder(values)(Number("5e8"))) == [500_000_000]
    assert not finder(values)(Number("0.5"))
    assert not finder(values)("5")
    falling = interval("1000000000", "0", "-1")
    assert falling.find(Number("999999999")) == 1
    assert Number("1.0") in falling
    assert Number("0") not in falling


@pytest.mark.parametrize(
    ("low", "high", "num", "scale", "expected"),
    [
        ("1e-4", "1e-1", 4, "log", "0.0001 0.001 0.01 0.1"),
        ("1", "1000", 4, "log", "1 10 100 1000"),
        ("1", "10", 4, "linear", "1 4 7 10"),
        ("0", "1", 4, "linear", "0 0.333333333333333 0.666666666666667 1"),
        ("0.0", "1.0", 11, "linear", "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"),
        ("-1", "1", 3, "linear", "-1 0 1"),
        ("1", "2", 3, "log", "1 1.4142135623731 2"),
    ],
)
def test_a_range_includes_both_ends(low, high, num, scale, expected):
    values = Range(Number(low), Number(high), num, scale)
    assert texts(values) == expected.split()
    assert all(values.find(each) == place for place, each in enumerate(values))


@pytest.mark.parametrize(
    ("low", "high", "num", "scale", "why"),
    [
        ("1", "1", 2, "linear", "below"),
        ("2", "1", 2, "linear", "below"),
        ("0", "1", 1, "linear", "num is 1"),
        ("0", "1", 3, "log", "above 0"),
        ("1", "1.0000001", 10**9, "linear", "told apart"),
        ("1", "1.0000001", 10**9, "log", "told apart"),
    ],
)
def test_a_range_without_sense_is_refused(low, high, num, scale, why):
    with pytest.raises(SweepError, match=why):
        Range(Number(low), Number(high), num, scale)


@given(extremes)
def test_a_written_number_means_the_same(number):
    text = written(number.exact)
    assert is_number(text)
    assert Number(text).exact == number.exact
    size = abs(Fraction(number.exact))
    if not size or Fraction(1, 10**6) <= size <= 10**15:
        assert "e" not in text
    assert "." not in text.partition("e")[0] or not text.partition("e")[0].endswith("0")
