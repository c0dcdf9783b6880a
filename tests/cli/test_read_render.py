"""Tables, numbers and text: aligned, short, and harmless for terminals."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.cli.render import leaderboard, table
from sweepfw.cli.terminal import SafeOutput, Screen, cut, safe, width
from sweepfw.cli.words import age, duration, number, ranges, size
from sweepfw.core.model import MetricSummary, Objective, Spec, Sweep, Trial
from sweepfw.core.ranking import rank
from sweepfw.core.values import Number

TERMINAL = Screen(80, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x07\x9b31m", "\\x1b[2J\\x07\\x9b31m"),
        ("\u202eevil\u2066\u200f", "\\u202eevil\\u2066\\u200f"),
        ("\ud800\u2028", "\\ud800\\u2028"),
        ("émoji 👩\u200d🔬 日本 \xa0\u3000שלום", "émoji 👩\u200d🔬 日本 \xa0\u3000שלום"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    for char in safe(text):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(char) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )


@given(
    st.lists(
        st.sampled_from(
            [b"a\n", b"\x1b[31m", b"\x1b]0;t", b"\x07", b"\x1b\\", b"\x1b", b"\r", "é".encode(), b"\xff"]
        )
    ),
    st.lists(st.integers(0, 60)),
)
def test_output_in_pieces_is_the_same_and_harmless(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    whole = SafeOutput(TERMINAL).feed(data, final=True)
    output, shown, last = SafeOutput(TERMINAL), "", 0
    for place in sorted(min(each, len(data)) for each in cuts):
        shown += output.feed(data[last:place])
        last = place
    shown += output.feed(data[last:], final=True)
    assert shown == whole
    assert re.sub(r"\x1b\[31m", "", shown).replace("\n", "").isprintable()


def test_output_colours_only_where_there_are_some() -> None:
    data = b"\x1b[1;31mred\x1b[0m\x1b[3A\x1b[?25l\x1bM up \x1bP1;2q#\x1b\\ \x1b]8;;http://x\x07link"
    assert SafeOutput(TERMINAL).feed(data) == "\x1b[1;31mred\x1b[0m up  link"
    assert SafeOutput(Screen()).feed(data) == "red up  link"


def test_a_sequence_without_an_end_is_not_kept() -> None:
    output = SafeOutput(TERMINAL)
    shown = "".join(output.feed(b"\x1b]" + b"x" * 1000) for _ in range(20))
    assert len(shown) > 10_000 and len(output._held) <= 4096


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (0.44, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m 00s"),
        (72, "1m 12s"),
        (7500, "2h 05m"),
        (273600, "3d 04h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200000, "2d")]
)
def test_age(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (1234567, "1.2 MB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234567, "0.123457"), (3.0, "3"), (1.5e-7, "1.5e-07"), (float("nan"), "nan")]
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


@given(st.sets(st.integers(1, 40)))
def test_ranges_name_each_once(numbers: set[int]) -> None:
    named = [part.split("-") for part in ranges(sorted(numbers)).split(",") if part]
    assert [n for ends in named for n in range(int(ends[0]), int(ends[-1]) + 1)] == sorted(numbers)


def test_width_and_cut_know_wide_characters() -> None:
    assert (width("日本"), width("e\u0301"), width("abc")) == (4, 1, 3)
    assert cut("日本語", 5) == "日本…" and cut("日本語", 4) == "日…" and cut("abc", 3) == "abc"


CELLS = st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), min_size=1, max_size=5)


@given(CELLS, st.integers(30, 100))
def test_columns_stand_under_each_other_and_fit(rows: list[list[str]], columns: int) -> None:
    lines = table(["A", "B", "C"], rows, Screen(columns))
    assert len(lines) == len(rows) + 1
    assert all(width(line) <= columns for line in lines)


def test_a_table() -> None:
    rows = [["a", "1.5", "日本"], ["long name", "-20", "x\ny"]]
    assert table(["NAME", "N", "TEXT"], rows) == [
        "NAME         N  TEXT",
        "a          1.5  日本",
        "long name  -20  x\\ny",
    ]


def test_states_have_colours_on_a_terminal_only() -> None:
    assert "\x1b[31mfailed\x1b[0m" in table(["STATE"], [["failed"]], TERMINAL)[1]
    assert table(["STATE"], [["failed"]])[1] == "failed"


class Stream:
    def __init__(self, terminal: bool) -> None:
        self.isatty = lambda: terminal


def test_the_screen_is_what_the_stream_is() -> None:
    assert Screen.of(Stream(False), {}) == Screen(None, False)  # type: ignore[arg-type]
    terminal = {"COLUMNS": "60"}
    assert Screen.of(Stream(True), terminal) == Screen(60, True)  # type: ignore[arg-type]
    assert Screen.of(Stream(True), {**terminal, "NO_COLOR": "1"}) == Screen(60, False)  # type: ignore[arg-type]
    assert Screen.of(Stream(True), {**terminal, "TERM": "dumb"}) == Screen(60, False)  # type: ignore[arg-type]


def test_a_leaderboard() -> None:
    sweep = Sweep("u", "d-1", Spec("d", "t", ("x",)), "s1", "done", 0.0)
    trials = [
        Trial(
            n,
            "succeeded",
            {"lr": Number(lr), "opt": opt, "n": Number("5")},
            metrics={"acc": MetricSummary(v, v, v)},
            snapshot=snapshot,
        )
        for n, (lr, opt, v, snapshot) in enumerate(
            [
                ("0.1", "sgd\x1b[2J", 0.9, "s1"),
                ("1e-3", "adam", 0.95, "s2"),
                ("0.1", "x", float("nan"), "s1"),
            ],
            1,
        )
    ]
    assert leaderboard(rank(sweep, trials, Objective("acc", "maximize"))) == [
        "acc, highest first (the last report of each trial)",
        "   TRIAL    acc    lr  opt",
        "1  d-1/2*  0.95  1e-3  adam",
        "2  d-1/1    0.9   0.1  sgd\\x1b[2J",
        "3  d-1/3    nan   0.1  x",
        "the same in all: n=5",
        "* ran newer code than the rest of its sweep (retry --current-code)",
    ]
