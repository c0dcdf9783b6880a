"""Values keep the user's text, and mean what they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.values import Number, decode, decode_all, encode, is_number, meaning, text, typed

numbers = st.from_regex(
    r"[-+]?([0-9]{1,6}(\.[0-9]{0,4})?|\.[0-9]{1,4})([eE][-+]?[0-9]{1,2})?", fullmatch=True
)
scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.none(), numbers.map(Number)
)
values = st.one_of(scalars, st.lists(scalars, min_size=1, max_size=3).map(tuple))


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_parameters_survive_storing(params):
    stored = encode(params)
    assert decode(stored) == params
    assert list(decode(stored)) == list(params)
    assert encode(decode(stored)) == stored


@given(values, values)
def test_equal_values_mean_the_same(one, other):
    assert meaning(one) == meaning(one)
    if one == other:
        assert meaning(one) == meaning(other) or isinstance(one, bool) != isinstance(other, bool)


@given(st.lists(st.dictionaries(st.text(), values)))
def test_many_are_decoded_as_each_alone(several):
    stored = [encode(params) for params in several]
    assert decode_all(stored) == [decode(each) for each in stored] == several


def test_meaning_looks_through_the_text_of_numbers_only():
    assert meaning(Number("0.1")) == meaning(Number("0.10")) == meaning(Number("1e-1"))
    assert meaning(Number("010")) == meaning(Number("10"))
    assert meaning((Number("1.0"), "a")) == meaning((Number("1"), "a"))
    different = ["1", Number("1"), True, None, "true", "", (Number("1"),), ("1",)]
    assert len({meaning(value) for value in different}) == len(different)


@pytest.mark.parametrize("word", ["1e-5", "010", ".5", "5.", "-1", "+1E10"])
def test_numbers_are_recognised(word):
    assert is_number(word)
    assert text(Number(word)) == word


@pytest.mark.parametrize("word", ["", "e5", "1_000", "0x1F", "1:30", "nan", "inf", "٣", "1e", "--1", "1\n"])
def test_other_words_are_not_numbers(word):
    assert not is_number(word)


def test_typed_values_are_those_of_json():
    params = (Number("010"), Number("1e-5"), Number("0.10"), True, None, "x")
    assert typed(params) == [10, 1e-5, 0.1, True, None, "x"]
    assert isinstance(typed(Number("010")), int)
