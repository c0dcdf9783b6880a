"""export: rows for other programs, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspaces import SPEC, Made, call, digits, make

from sweepfw.cli.tabular import csv_lines, markdown_lines
from sweepfw.errors import SweepError


@pytest.fixture
def made(workspace_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.chdir(workspace_folder)
    made = make(workspace_folder)
    yield made
    made.ledger.disconnect()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv(made: Made) -> None:
    digits(made)
    first, second, third = rows(call("export", "digits-1", "--format", "csv").stdout)
    assert (first["sweep"], first["trial"], first["state"], first["attempts"]) == (
        "digits-1",
        "1",
        "succeeded",
        "1",
    )
    assert (second["lr"], second["opt"], second["acc"], second["loss"]) == ("0.1", "adam", "0.875", "0.25")
    assert (third["reason"], third["acc"], third["host"]) == ("exit 3", "", "tower")
    assert third["ended"] == "2033-05-18T03:33:20Z"


def test_parameters_are_as_written_and_told_apart_from_metrics(made: Made) -> None:
    sweep = made.sweep([{"acc": "010", "trial": True, "layers": None}, {"acc": 0.50, "trial": False}])
    made.attempt(sweep, 1, reports=[{"acc": math.nan, "host": 1.0}])
    first, second = rows(call("export", sweep.name, "--format", "csv").stdout)
    assert (first["params.acc"], first["metrics.acc"], first["params.trial"]) == ("010", "nan", "true")
    assert (first["trial"], first["metrics.host"], first["layers"], second["layers"]) == (
        "1",
        "1.0",
        "null",
        "",
    )


def test_several_sweeps_have_the_columns_of_all(made: Made) -> None:
    for params in ({"a": 1}, {"b": 2}):
        made.attempt(made.sweep([params]), 1, reports=[{f"m{params.keys()}": 1.0}])
    found = rows(call("export", "digits-1", "digits-2").stdout)
    assert [(row["sweep"], row["a"], row["b"]) for row in found] == [
        ("digits-1", "1", ""),
        ("digits-2", "", "2"),
    ]


def test_history(made: Made) -> None:
    sweep = made.sweep([{"x": 1}])
    grant = made.attempt(sweep, 1, reports=[{"step": 1, "acc": 0.5}, {"acc": 0.75, "loss": 1.0}])
    parsed = made.place.attempt(sweep.name, 1, grant.attempt) / "parsed.jsonl"
    parsed.write_text('{"step": 7, "err": NaN}\n{"step": 1, "acc": 0.5}\n{"torn')
    found = rows(call("export", sweep.name, "--history").stdout)
    assert [(row["metric"], row["step"], row["value"]) for row in found] == [
        ("acc", "1", "0.5"),
        ("acc", "", "0.75"),
        ("loss", "", "1.0"),
        ("err", "7", "nan"),  # acc was reported, so it is not taken from the output as well
    ]
    lines = call("export", sweep.name, "--history", "--format", "jsonl").stdout.splitlines()
    assert json.loads(lines[0]) == {
        "sweep": "digits-1",
        "trial": 1,
        "attempt": 1,
        "metric": "acc",
        "step": 1,
        "value": 0.5,
    }
    assert json.loads(lines[-1])["value"] == "NaN"


def test_json_and_jsonl_are_what_show_prints(made: Made) -> None:
    digits(made)
    shown = json.loads(call("show", "digits-1", "--json").stdout)["trials"]
    array = json.loads(call("export", "digits-1", "--format", "json").stdout)
    lines = call("export", "digits-1", "--format", "jsonl").stdout.splitlines()
    assert array == [json.loads(line) for line in lines] == [{"sweep": "digits-1", **each} for each in shown]


def test_a_sweep_without_trials_that_ended(made: Made) -> None:
    made.sweep([{"x": 1}])
    assert json.loads(call("export", "digits-1", "--history", "--format", "json").stdout) == []
    assert call("export", "digits-1", "--history").stdout == "sweep,trial,attempt,metric,step,value\n"


def test_markdown(made: Made) -> None:
    sweep = made.sweep([{"x": "a|b"}])
    lines = call("export", sweep.name, "--format", "md").stdout.splitlines()
    assert lines[0].startswith("| sweep | trial |") and lines[1].startswith("| --- | --- |")
    assert lines[2].endswith("| a\\|b |")


def test_into_a_file(made: Made, tmp_path: Path) -> None:
    digits(made)
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    assert call("export", "digits-1", "-o", str(path)).stdout == ""
    assert len(path.read_text().splitlines()) == 3  # the ending says which format
    assert list(tmp_path.glob(".*tmp")) == []
    with pytest.raises(SweepError, match="can't be written"):
        call("export", "digits-1", "-o", str(tmp_path / "not/there.csv"))


def test_a_reader_that_goes_away_is_no_error(made: Made, workspace_folder: Path) -> None:
    made.sweep([{"x": n, "text": "y" * 500} for n in range(1000)])
    command = f"{sys.executable} -m sweepfw export digits-1 | head -1"
    done = subprocess.run(command, shell=True, cwd=workspace_folder, capture_output=True, text=True)
    assert done.stdout.startswith("sweep,trial") and done.stderr == ""


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\tx", "\r=1", "-", "-nan"]
)
def test_formulas_are_defused(cell: str) -> None:
    (row,) = csv.reader(io.StringIO("".join(csv_lines([[cell]])), newline=""))
    assert row == [f"'{cell}"]


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1e-5", "-inf", "a=b", "1-2", "", "nan"])
def test_numbers_and_other_texts_stay(cell: str) -> None:
    (row,) = csv.reader(io.StringIO("".join(csv_lines([[cell, "x"]]))))
    assert row == [cell, "x"]


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2)))
def test_csv_is_read_back(table: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO("".join(csv_lines(table)), newline="")))
    assert [[cell.removeprefix("'") for cell in row] for row in read] == [
        [cell.removeprefix("'") for cell in row] for row in table
    ]


def test_markdown_keeps_its_rows() -> None:
    assert list(markdown_lines([["a", "b"], ["x\ny", "\\|"]])) == [
        "| a | b |\n",
        "| --- | --- |\n",
        "| x<br>y | \\\\\\| |\n",
    ]


def test_the_default_task_has_no_columns_of_its_own(made: Made) -> None:
    made.sweep([{}], SPEC)
    assert call("export", "digits-1").stdout.splitlines()[0].endswith(",seconds")
