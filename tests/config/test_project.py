from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.config import schema
from sweepfw.config.project import (
    find_project,
    load_project,
    parameters_file,
    slug,
    spec_for,
    unused_parameter_files,
)
from sweepfw.config.workspace import Workspace
from sweepfw.core.grid import expand
from sweepfw.core.model import Spec
from sweepfw.core.space import Space
from sweepfw.core.values import typed
from sweepfw.errors import SweepError

CASES = Path(__file__).parent.parent / "cases" / "project"
REFUSED = yaml.safe_load((CASES / "refused.yml").read_text())
FROZEN = yaml.safe_load((CASES / "frozen.yml").read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, as the current one, with a requirements file; another lies outside."""
    root = tmp_path / "digits"
    root.mkdir()
    (root / "requirements.txt").write_text("")
    (tmp_path / "outside.txt").write_text("")
    monkeypatch.chdir(root)
    return root


def freeze(folder: Path, text: str, task: str | None = None, **options: Any) -> Spec:
    (folder / "project.yml").write_text(text)
    return spec_for(load_project(folder), task, **options)


def combinations(spec: Spec) -> list[dict[str, object]]:
    return [
        {name: typed(value) for name, value in draft.params.items()}
        for draft in expand(Space.from_json(spec.space))
    ]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: repr(case["project"]))
def test_refusals_say_where_and_what(case: dict[str, str], folder: Path) -> None:
    with pytest.raises(SweepError) as caught:
        freeze(folder, case["project"])
    said = str(caught.value)
    assert said.startswith("project.yml:" + case["says"])
    assert "\n" not in said
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("case", FROZEN, ids=lambda case: f"{case.get('task', '')} {case['project']!r}")
def test_a_task_is_frozen_as_written(case: dict[str, Any], folder: Path) -> None:
    spec = asdict(freeze(folder, case["project"], case.get("task")))
    for field, value in case["spec"].items():
        assert json.loads(json.dumps(spec[field])) == value, field


def test_an_interpreter_is_found_from_the_project_and_links_stay(folder: Path) -> None:
    spec = freeze(folder, "command: a\nenvironment: {python: ../env/bin/python}")
    assert spec.environment.value == str(folder.parent / "env/bin/python")


def test_without_parameters_there_is_one_trial(folder: Path) -> None:
    assert combinations(freeze(folder, "command: a")) == [{}]
    (folder / "parameters.yml").write_text("# nothing yet\n")
    assert combinations(freeze(folder, "command: a")) == [{}]


def test_parameters_come_from_a_file_or_stand_inline(folder: Path) -> None:
    (folder / "parameters.yml").write_text("lr: [1, 2]")
    (folder / "other.yml").write_text("x: 3")
    text = (
        "command: a\ntasks: {a: , b: {parameters: other.yml}, c: {parameters: {y: 4}}, d: {parameters: {}}}"
    )
    found = [combinations(freeze(folder, text, task)) for task in "abcd"]
    assert found == [[{"lr": 1}, {"lr": 2}], [{"x": 3}], [{"y": 4}], [{}]]
    project = load_project(folder)
    assert [parameters_file(project, task) for task in "abcd"] == [
        folder / "parameters.yml",
        folder / "other.yml",
        None,
        None,
    ]


def test_complaints_about_parameters_name_their_own_file(folder: Path) -> None:
    (folder / "parameters.yml").write_text("lr: 1\nlr: 2")
    with pytest.raises(SweepError, match=r"^parameters.yml:2:1: "):
        freeze(folder, "command: a")


def test_the_command_line_stands_above_the_files(folder: Path) -> None:
    (folder / "parameters.yml").write_text("lr: [1, 2]\nopt: sgd")
    spec = freeze(folder, "command: a\nrepeats: 2", sets=["lr=3,4"], repeats=1)
    assert combinations(spec) == [{"lr": 3, "opt": "sgd"}, {"lr": 4, "opt": "sgd"}]
    with pytest.raises(SweepError, match=r"^--repeats: "):
        freeze(folder, "command: a", repeats=0)
    with pytest.raises(SweepError, match="--set"):
        freeze(folder, "command: a", sets=["lt=1"])


def test_unknown_tasks_are_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(SweepError, match=r"^project.yml: no task 'trian'; did you mean 'train'\?$"):
        freeze(folder, "tasks: {echo: a, train: b}", "trian")


def test_parameter_files_that_no_task_names_are_found(folder: Path) -> None:
    for name in ("parameters.yml", "parameters-big.yml", "other_params.yaml", "config.yml"):
        (folder / name).write_text("")
    (folder / "project.yml").write_text("command: a")
    unused = unused_parameter_files(load_project(folder))
    assert [path.name for path in unused] == ["other_params.yaml", "parameters-big.yml"]


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("digits", "digits"),
        ("my run (2)", "my-run-2"),
        ("-x", "x"),
        ("Überraschung", "Uberraschung"),
        ("проект", "project"),
    ],
)
def test_folder_names_become_fit_for_sweeps(name: str, fit: str) -> None:
    assert slug(name) == fit


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with two projects, one beside them, and a folder that is none."""
    for name in ("projects/mine", "projects/digits", "elsewhere/own", "projects/empty", "sub"):
        (tmp_path / name).mkdir(parents=True)
        if name not in ("projects/empty", "sub"):
            (tmp_path / name / "project.yml").write_text("command: a")
    (tmp_path / ".sweepfw").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("cwd", "ref", "found"),
    [
        (".", "mine", "projects/mine"),
        ("sub", "mine", "projects/mine"),
        ("elsewhere", "own", "elsewhere/own"),
        ("elsewhere/own", ".", "elsewhere/own"),
        ("elsewhere/own", "../own", "elsewhere/own"),
        (".", "elsewhere/own", "elsewhere/own"),
        (".", "elsewhere/own/", "elsewhere/own"),
        (".", "elsewhere/own/project.yml", "elsewhere/own"),
        ("elsewhere/own", "project.yml", "elsewhere/own"),
    ],
)
def test_projects_are_found_by_name_and_path(place: Path, cwd: str, ref: str, found: str) -> None:
    assert find_project(Workspace.find(place / cwd), ref, place / cwd) == place / found


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("mien", "mien: no such project; did you mean 'mine'?"),
        ("zzz", "zzz: no such project; known: digits, mine"),
        ("-rf", "-rf: no such project; known: digits, mine"),
        ("", "a project's name is empty; name one under projects/, or a path"),
        ("../../etcetera", "../../etcetera: no such project; known: digits, mine"),
        ("/etc", "/etc: has no project.yml; `sweepfw init /etc` writes one"),
        ("empty", "projects/empty: has no project.yml; `sweepfw init projects/empty` writes one"),
        ("x" * 300, "x" * 57 + "...: no such project; known: digits, mine"),
        ("a\nb", "a\\nb: no such project; known: digits, mine"),
    ],
)
def test_what_is_no_project_gets_one_line(place: Path, ref: str, says: str) -> None:
    with pytest.raises(SweepError) as caught:
        find_project(Workspace.find(place), ref, place)
    assert str(caught.value) == says


def test_a_file_of_the_wrong_name_is_pointed_at(place: Path) -> None:
    (place / "projects/empty/project.yaml").write_text("command: a")
    with pytest.raises(SweepError, match=r"^projects/empty/project.yaml: rename it to project.yml$"):
        find_project(Workspace.find(place), "empty", place)


def test_the_echo_project_shows_a_value_a_list_and_an_interval() -> None:
    root = Path(__file__).parents[2] / "projects" / "echo"
    found = combinations(spec_for(load_project(root)))
    assert found[0] == {"greeting": "hello", "batchsize": 100, "epoch": 5}
    assert found[-1] == {"greeting": "hello", "batchsize": 500, "epoch": 15}
    assert len(found) == 6


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1h", "1MB", "a|b"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | SCALARS, inner, max_size=3),
    max_leaves=5,
)
INNER = sorted({key.name.partition(".")[2] for key in schema.KEYS} - {""})


@given(
    st.sampled_from(schema.NAMES),
    VALUES | st.dictionaries(st.sampled_from(INNER), VALUES, max_size=2),
    st.booleans(),
)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object, in_task: bool
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    keys = {"command": "a", key: value}
    text = yaml.safe_dump({"tasks": {"one": keys}} if in_task else keys, allow_unicode=True)
    (root / "project.yml").write_text(text, encoding="utf-8", errors="replace")
    try:
        spec_for(load_project(root))
    except SweepError as error:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", str(error))


@pytest.mark.parametrize("source", ["../way/key", "../key", "way/key"])
def test_a_secret_in_the_project_is_refused_whatever_links_lead_there(folder: Path, source: str) -> None:
    (folder / "key").write_text("x")
    (folder.parent / "way").symlink_to(folder)
    (folder.parent / "key").symlink_to(folder / "key")
    (folder / "way").symlink_to(folder.parent)
    with pytest.raises(SweepError, match=f"'{source}' lies in the project"):
        freeze(folder, f"command: a\nsecrets: {{A: {{file: {source}}}}}")


def test_a_secret_beside_a_project_that_is_reached_by_a_link_is_outside(folder: Path) -> None:
    """Its path is kept as it was written: what a link leads to may be another by then."""
    (folder.parent / "way").symlink_to(folder)
    (folder.parent / "current").symlink_to(folder.parent / "keys")
    (folder / "project.yml").write_text("command: a\nsecrets: {A: {file: ../current/a}}")
    [need] = spec_for(load_project(folder.parent / "way"), None).secrets
    assert need.source == str(folder.parent / "current/a")
