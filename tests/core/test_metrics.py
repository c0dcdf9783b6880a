"""Metrics from output and reports: what is read, what is not, and what is made of many points."""

from __future__ import annotations

import json
import math
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core import metrics
from sweepfw.core.metrics import (
    LINE_LIMIT,
    NAMES_LIMIT,
    Fold,
    OutputMetrics,
    Point,
    combine,
    fold,
    parse_line,
    parse_lines,
    value_at,
    values,
)
from sweepfw.core.model import Objective

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases/metrics/lines.yml").read_text())


def read(declared: list[tuple[str, str | None]], *pieces: bytes) -> list[Point]:
    parser = OutputMetrics(declared)
    return [point for piece in pieces for point in parser.feed(piece)] + parser.end()


@pytest.mark.parametrize("case", CASES, ids=[case["say"] for case in CASES])
def test_lines(case: dict) -> None:
    declared = [(each, None) if isinstance(each, str) else tuple(each) for each in case["declared"]]
    points = [[point.name, point.value, point.step] for point in read(declared, case["text"].encode())]
    assert points == case["points"]


def test_nan_is_read() -> None:
    (point,) = read([("x", None)], b"x: NaN\n")
    assert math.isnan(point.value)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"loss: 0.5", b"step 3 loss=1 acc: 2", b"\x1b[1mloss\x1b[0m: 3", b"\r", b"", b"val_loss: 1"]
        ),
        st.binary(max_size=20),
    )
)


@given(LINES, st.lists(st.integers(0, 400)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_pieces_do_not_matter(lines: list[bytes], cuts: list[int], end: bytes) -> None:
    data = end.join(lines)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    declared = [("loss", None), ("acc", None)]
    whole = read(declared, data)
    assert read(declared, *pieces) == whole
    # A pattern of the user's own takes another path through the lines; it sees the same.
    assert read([*declared, ("own", "never(x)")], *pieces) == whole


def test_a_line_without_an_end_is_read_in_pieces_and_not_kept() -> None:
    parser = OutputMetrics([("loss", None)])
    count = 0
    for _ in range(200):
        count += len(parser.feed(b"loss: 0.5 and more words " * 400))
        assert len(parser._pending) <= LINE_LIMIT + 10_000
    for _ in range(20):
        count += len(parser.feed(b"x" * LINE_LIMIT))
        assert len(parser._pending) <= LINE_LIMIT
    assert count >= 200 * 400 * 0.99


@pytest.mark.parametrize("start", ["step", "step:", "x", "x:", "x: 1"])
@pytest.mark.parametrize("filler", [" ", "\t", "1", "1e", "1."])
def test_no_line_takes_long(start: str, filler: str) -> None:
    """Reading is linear: a line that almost matches, 60,000 times over, must not hold the run up."""
    text = f"{start}{filler * (60_000 // len(filler))}q x: 7\n"
    began = time.process_time()
    assert OutputMetrics([("x", None)]).feed(text.encode())[-1] == Point("x", 7)
    assert time.process_time() - began < 5


def test_patterns_have_no_possessive_groups() -> None:
    """Python 3.11.0 to 3.11.4 takes half of one that fails: `1e` for a number. Characters' are fine."""
    patterns = [metrics._NUMBER, metrics._END, metrics._STEP.decode(), metrics._ESCAPES.decode()]
    assert not [text for text in patterns if re.search(r"\)[?*+]\+|\(\?>", text)]


def test_nothing_declared_keeps_nothing() -> None:
    parser = OutputMetrics([])
    assert parser.feed(b"loss: 3") == [] and parser.end() == []


@pytest.mark.parametrize(
    ("line", "points"),
    [
        ('{"step": 3, "loss": 0.2, "acc": 1}', [("loss", 0.2, 3), ("acc", 1, 3)]),
        ('{"loss": 0.2}', [("loss", 0.2, None)]),
        (
            '{"loss": "Infinity", "acc": -Infinity, "good": true}',
            [("loss", math.inf, None), ("acc", -math.inf, None), ("good", 1, None)],
        ),
        ('{"loss": 1e999, "big": 1' + "0" * 400 + "}", [("loss", math.inf, None), ("big", math.inf, None)]),
        ('{"phase": "train", "tags": [1], "none": null, "loss": 1}', [("loss", 1, None)]),
        ('{"step": "three", "loss": 1}', [("loss", 1, None)]),
        ('{"a\\u001b[31m\\ud800": 1}', [("a\ufffd[31m\ufffd", 1, None)]),
        ("{}", []),
    ],
)
def test_reported_lines(line: str, points: list[tuple]) -> None:
    assert [(p.name, p.value, p.step) for p in parse_line(line.encode()) or ()] == points


def test_bad_lines_are_counted_and_harmless() -> None:
    data = b'{"loss": 1}\n{"loss": 2\n[1]\n3\n\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"loss": 2}\n'
    points, bad = parse_lines(data)
    assert [point.value for point in points] == [1, 2] and bad == 5


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(NUMBERS, st.none() | st.integers(0, 99)), min_size=1))
def test_fold_against_the_whole_list(reports: list[tuple[float, int | None]]) -> None:
    summary = None
    for value, step in reports:
        summary = fold(summary, Point("x", value, step))
    assert summary is not None and summary.count == len(reports)
    assert repr(summary.last) == repr(reports[-1][0]) and summary.last_step == reports[-1][1]
    finite = [value for value, _ in reports if math.isfinite(value)]
    if finite:
        assert (summary.lowest, summary.highest) == (min(finite), max(finite))
        assert (summary.lowest, summary.lowest_step) in reports
        assert (summary.highest, summary.highest_step) in reports
    else:
        assert not math.isfinite(summary.lowest) and not math.isfinite(summary.highest)


def test_values_at_the_objective() -> None:
    folded = Fold()
    folded.add([Point("acc", value, step) for step, value in enumerate([0.5, 0.9, math.inf, 0.7])])
    folded.add([Point("loss", 3.0), Point("loss", 4.0)])
    acc = folded.summaries["acc"]
    assert value_at(acc, "last", "maximize") == 0.7
    assert value_at(acc, "best", "maximize") == 0.9 and acc.highest_step == 1
    assert value_at(acc, "best", "minimize") == 0.5
    assert values(folded.summaries, Objective("acc", "maximize", "best")) == {"acc": 0.9, "loss": 4.0}
    assert values(folded.summaries, None) == {"acc": 0.7, "loss": 4.0}


def test_made_up_names_do_not_fill_the_ledger() -> None:
    folded = Fold()
    folded.add(Point(f"m{n}", 1.0) for n in range(NAMES_LIMIT + 5))
    folded.add([Point("m0", 2.0), Point("y" * 1000, 1.0)])
    assert len(folded.summaries) == NAMES_LIMIT and folded.dropped == 6
    assert folded.summaries["m0"].last == 2.0


def test_what_was_reported_is_not_taken_from_the_output_too() -> None:
    reported, printed = Fold(), Fold()
    reported.add([Point("loss", 1.0)])
    printed.add([Point("loss", 1.0), Point("acc", 2.0)])
    both = combine(reported.summaries, printed.summaries)
    assert both["loss"].count == 1 and set(both) == {"loss", "acc"}


def test_reports_of_the_trial_side_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweepfw.inside import sweepfw

    path = tmp_path / "metrics.jsonl"
    monkeypatch.setenv("SWEEPFW_METRICS", str(path))
    sweepfw.report(loss=0.25, acc=math.inf, step=3)
    sweepfw.report(**{"val/loss": -math.inf})
    points, bad = parse_lines(path.read_bytes())
    assert (
        points == [Point("loss", 0.25, 3), Point("acc", math.inf, 3), Point("val/loss", -math.inf)]
        and not bad
    )
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_examples_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    table = page.partition("| printed | read |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) >= 10
    for row in table:
        printed, told = (cell.strip() for cell in row.strip("|").split(" | "))
        points = read([("loss", None), ("acc", None)], printed.strip("`").encode())
        said = [
            f"{point.name} {point.value:g}" + ("" if point.step is None else f" at step {point.step:g}")
            for point in points
        ]
        assert (", ".join(said) or "nothing") == told, row
