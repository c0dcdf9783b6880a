"""parameters.yml, rules and --set, from text to arguments or to the one line of complaint. Cases are data."""

import shlex
from pathlib import Path

import pytest
import yaml

from sweepfw.config.parameters import apply_sets, read_space, unite
from sweepfw.config.sets import split_commas
from sweepfw.config.yaml_reader import read_file, read_text
from sweepfw.core.command import argv
from sweepfw.core.grid import count, expand
from sweepfw.core.model import Spec
from sweepfw.core.space import Space
from sweepfw.errors import SweepError

CASES = Path(__file__).parent.parent / "cases" / "space"


def cases(name):
    loaded = yaml.safe_load((CASES / name).read_text())
    return [pytest.param(case, id=f"{n}") for n, case in enumerate(loaded, 1)]


@pytest.fixture(autouse=True)
def in_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def space_of(case):
    Path("parameters.yml").write_text(case["parameters"])
    Path("project.yml").write_text(case.get("rules", "{}"))
    rules = read_file(Path("project.yml"), "project.yml").value
    space = read_space(read_file(Path("parameters.yml"), "parameters.yml"), rules)
    space = apply_sets(space, case.get("set", []), read_text)
    return unite(space, case["extend"], read_text) if "extend" in case else space


@pytest.mark.parametrize("case", cases("commands.yml"))
def test_parameters_become_these_arguments(case):
    space = space_of(case)
    settings = {key: case[key] for key in ("flags", "booleans") if key in case}
    spec = Spec("demo", "main", ("run",), **settings)
    got = [argv(spec, draft.params, {})[1:] for draft in expand(space)]
    assert got == [shlex.split(line) for line in case["argv"]]
    assert count(space).number == len(got)
    assert Space.from_json(space.to_json()) == space


@pytest.mark.parametrize("case", cases("refused.yml"))
def test_bad_input_gets_one_line(case):
    with pytest.raises(SweepError) as caught:
        space_of(case)
    assert str(caught.value) == case["says"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a, b ,c", ["a", "b", "c"]),
        ("a,", ["a", ""]),
        (",", ["", ""]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("c,'it''s, so'", ["c", "'it''s, so'"]),
        ('"a\\",b",c', ['"a\\",b"', "c"]),
        ("don't,won't", ["don't", "won't"]),
        ("'open,x", ["'open", "x"]),
        ("a\nb,c", ["a\nb", "c"]),
    ],
)
def test_commas_separate_but_not_in_quotes(text, pieces):
    assert split_commas(text) == pieces


def test_a_stored_space_stays_compact():
    space = space_of({"parameters": "a: !!python/tuple [0, 1000000000]\nb: {min: 0, max: 1, num: 1000000}"})
    assert len(str(space.to_json())) < 300
    assert count(space).number == 10**15


def test_the_rules_of_a_space_made_in_code_hold_too():
    with pytest.raises(SweepError, match="no values"):
        Space.from_json({"parameters": [["a", []]]})
    with pytest.raises(SweepError, match="twice"):
        Space.from_json({"parameters": [["a", ["x"]], ["a", ["y"]]]})
    with pytest.raises(SweepError, match="can't name"):
        Space.from_json({"parameters": [["a b", ["x"]]]})
    with pytest.raises(SweepError, match="repeats"):
        Space.from_json({"repeats": 0})
    with pytest.raises(SweepError, match="'b', which is no parameter"):
        Space.from_json({"parameters": [["a", ["x"]]], "exclude": [{"b": 1}]})
