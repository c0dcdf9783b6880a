"""What goes to other programs: a spreadsheet runs no cell, a page made of Markdown holds nothing but text."""

from __future__ import annotations

import csv
import html.parser
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.cli.tabular import csv_lines, markdown_lines
from sweepfw.core.values import is_number

FORMULAS = (
    "=1+1", "=cmd|'/c calc'!A0", "@SUM(A1)", "+1+cmd|'/c calc'!A0", "-1+2", "-", "+", "\t=1", "\r=1", "\n=1",
    "＝1+1", "＋1", "－1", "＠x", '=HYPERLINK("http://evil","x")', "-1e", "+-1", "-0x10", "-1,5", "- 1",
)  # fmt: skip
NUMBERS = ("-1", "+1", "-0.5", "-1e-5", "+1E+9", "-.5", "-inf", "0", "1e400", "-010")


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_become_texts(cell: str) -> None:
    """Also where the cell is a column's head, as a parameter's name."""
    rows = list(csv.reader(io.StringIO("".join(csv_lines([[cell, "x"], ["y", cell]])), newline="")))
    assert rows == [[f"'{cell}", "x"], ["y", f"'{cell}"]]


@pytest.mark.parametrize("cell", NUMBERS)
def test_numbers_stay_numbers(cell: str) -> None:
    assert list(csv.reader(csv_lines([[cell, "x"]]))) == [[cell, "x"]]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_cell_begins_as_a_formula(cell: str) -> None:
    ((first, _),) = csv.reader(io.StringIO("".join(csv_lines([[cell, "x"]])), newline=""))
    assert first == "" or first[0] not in "=+-@\t\r\n＝＋－＠" or is_number(first) or first == "-inf"


HTML = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a & b &lt;i&gt;",
    "[x](javascript:alert(1))", "![x](http://tracker.invalid/x.png)", "<javascript:alert(1)>", "`code`",
    "**bold** _it_ ~~no~~", "a|b|c", "x\\|y", "x\n\n# heading", "\r\n- item", "</td></table><h1>", "<!--x",
    "val_loss", "__init__",
)  # fmt: skip


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("cell", HTML)
def test_markdown_is_text(cell: str) -> None:
    """One line for each row, no tag but our own line breaks, no link, and what it says can be read."""
    head, _, row = markdown_lines([["a", cell], [cell, "b"]])
    assert head.count("\n") == row.count("\n") == 1 and "\r" not in head + row
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3  # the table's own
    tags = Tags()
    tags.feed(row)
    tags.close()
    assert set(tags.seen) <= {"br"}
    assert not re.search(r"(?<!\\)[\[\]`*]", row)
    plain = re.sub(r"\\([\\|`*_\[\]~])", r"\1", tags.text)
    assert plain.strip("\n |") == re.sub(r"[\r\n]", "", cell).strip("\n |") + " | b" or "&" in cell


def test_names_with_underscores_stay_readable() -> None:
    head, *_ = markdown_lines([["val_loss", "_x_"]])
    assert head == "| val_loss | \\_x\\_ |\n"
