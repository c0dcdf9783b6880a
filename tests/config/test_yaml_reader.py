from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.config import yaml_reader
from sweepfw.config.node import Node
from sweepfw.config.yaml_reader import read_document, read_file, read_text
from sweepfw.core.values import Number, Value
from sweepfw.errors import SweepError

CASES = Path(__file__).parent.parent / "cases" / "yaml"
REFUSED = yaml.safe_load((CASES / "refused.yml").read_text())


def bare(node: Node) -> object:
    """The node without places; an interval is marked by a leading "interval"."""
    if isinstance(node.value, dict):
        return {key: bare(value) for key, value in node.value.items()}
    if isinstance(node.value, tuple):
        inner = [bare(item) for item in node.value if isinstance(item, Node)]
        return ["interval", *inner] if node.interval else inner
    return node.value


def refusal(text: str | bytes, folder: Path) -> str:
    path = folder / "f.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SweepError) as caught:
        read_file(path, "f.yml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: repr(case["yaml"]))
def test_refusals_say_where_and_what(case: dict[str, str], tmp_path: Path) -> None:
    assert refusal(case["yaml"], tmp_path) == case["says"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: repr(case["yaml"]))
def test_refusals_hold_without_the_c_library(
    case: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert refusal(case["yaml"], tmp_path).startswith("f.yml:")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("tRUE", "tRUE"),
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("1e-5", Number("1e-5")),
        ("010", Number("010")),
        ("0.10", Number("0.10")),
        ("+.5", Number("+.5")),
        ("5.", Number("5.")),
        ("-0", Number("-0")),
        ("٣", "٣"),
        ("yes", "yes"),
        ("on", "on"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("!!int 3", Number("3")),
        ("!!float 3", Number("3")),
        ("!!bool true", True),
        ("!!null ~", None),
        ("🦋 ش", "🦋 ش"),
        ("; rm -rf ~", "; rm -rf ~"),
        ('"a\\tb\\nc"', "a\tb\nc"),
        ('"a\\u2028 b"', "a\u2028 b"),
    ],
)
def test_scalars_mean_what_is_written(text: str, value: Value) -> None:
    node = read_document(f"key: {text}\n", "f.yml")
    assert bare(node) == {"key": value}
    assert isinstance(node.value, dict)
    assert node.value["key"].place.startswith("f.yml:1:")


def test_structure_order_and_places() -> None:
    node = read_document("b: [1, x]\na: !!python/tuple [5, 20, 5]\n1: {true: !!seq [~]}\n", "p.yml")
    assert bare(node) == {
        "b": [Number("1"), "x"],
        "a": ["interval", Number("5"), Number("20"), Number("5")],
        "1": {"true": [None]},
    }
    assert isinstance(node.value, dict)
    assert list(node.value) == ["b", "a", "1"]
    assert node.value["a"].place == "p.yml:2:4"


def test_aliases_stand_for_their_value_at_their_own_place() -> None:
    node = read_document("a: &x [1]\nb: *x\n", "p.yml")
    assert bare(node) == {"a": [Number("1")], "b": [Number("1")]}
    assert isinstance(node.value, dict)
    assert node.value["b"].place == "p.yml:2:4"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~", "\ufeff"])
def test_an_empty_file_is_null(text: str, tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_bytes(text.encode())
    assert read_file(tmp_path / "f.yml").value is None


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert bare(read_file(tmp_path / "f.yml")) == {"a": Number("1"), "b": "x"}


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


def chain() -> str:
    return "\n".join(["a0: &a0 []", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100))])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "f.yml:1:51: nested deeper than 50 levels"),
        ("{a: " * 50_000, "f.yml:1:201: nested deeper than 50 levels"),
        ("- " * 100_000, "f.yml:1:101: nested deeper than 50 levels"),
        (bomb(), "f.yml:5:"),
        (chain(), "nested deeper than 50 levels by an alias"),
        ("a: " + "x" * 2_000_000, "f.yml: is larger than 1 MB"),
        (b"a: 1\nb: \xff", "f.yml:2:4: is not UTF-8"),
        ("a: 1".encode("utf-16"), "f.yml:1:1: is not UTF-8"),
        ("a: " + "9" * 5000, "too long for a number"),
    ],
    ids=["lists", "mappings", "block", "bomb", "chain", "size", "bytes", "utf-16", "digits"],
)
def test_what_would_cost_is_refused_at_once(text: str | bytes, says: str, tmp_path: Path) -> None:
    began = time.process_time()
    said = refusal(text, tmp_path)
    assert says in said
    assert len(said) < 200
    assert time.process_time() - began < 5


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, says in (
        (Path("/dev/zero"), "is not a file"),
        (tmp_path, "is not a file"),
        (tmp_path / "no", "can't"),
    ):
        with pytest.raises(SweepError, match=says):
            read_file(path)


def test_paths_are_shown_relative_where_that_is_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert yaml_reader.show_path(tmp_path / "a" / "f.yml") == "f.yml"
    assert yaml_reader.show_path(Path("f.yml")) == "f.yml"
    assert yaml_reader.show_path(Path("/f.yml")) == "/f.yml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", Number("0.1")),
        (" x ", "x"),
        ("a #b", "a #b"),
        ("a: b", "a: b"),
        ("*", "*"),
        ("- x", "- x"),
        ("@x", "@x"),
        ("", None),
        ("'0.1'", "0.1"),
        ("[1, x]", [Number("1"), "x"]),
        ("{min: 1}", {"min": Number("1")}),
        ("!!python/tuple [1, 3]", ["interval", Number("1"), Number("3")]),
    ],
)
def test_text_of_the_command_line(text: str, value: object) -> None:
    assert bare(read_text(text, "--set lr")) == value


@pytest.mark.parametrize(
    "text", ["[1,", "'x", "[1] x", "{a: 1, a: 2}", ".inf", "a\x07", "!!foo x", "'a' 'b'"]
)
def test_refused_text_names_its_place_without_a_line(text: str) -> None:
    with pytest.raises(SweepError, match=r"^--set lr: [^\n]*$"):
        read_text(text, "--set lr")


@given(st.text() | st.text("[]{}:,'\"!&*#|>-? \n\tab1"))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for read in (lambda: read_document(text, "f.yml"), lambda: read_text(text, "--set a")):
        try:
            read()
        except SweepError as error:
            assert str(error).isprintable()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=yaml_reader._BREAKS)))
def test_quoted_text_comes_through_byte_for_byte(text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    assert read_text(quoted, "--set a").value == text
