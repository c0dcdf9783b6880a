"""docs/project.md shows every key of project.yml, and none that isn't there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sweepfw.config import schema
from sweepfw.config.node import Node
from sweepfw.config.project import load_project
from sweepfw.config.settings import REASONS
from sweepfw.config.yaml_reader import read_document
from sweepfw.core.model import Needs, Objective, Spec
from sweepfw.errors import SweepError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "project.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_reference_is_the_table_of_keys() -> None:
    shown = "\n".join(line for line in DOCUMENT.splitlines() if line.startswith("|"))
    assert shown == schema.reference(), "write the table anew: python -m sweepfw.config.schema"


def test_every_key_has_a_sentence_and_a_reader() -> None:
    by_project = {"command", "tasks", "parameters"}
    for key in schema.KEYS:
        assert key.says.endswith("."), key.name
        assert key.takes and key.default, key.name
    assert set(schema.NAMES) == by_project | set(schema.SPACE) | set(schema.READERS)


def test_every_setting_of_a_spec_has_a_key_and_the_reverse() -> None:
    ours = {"project", "task", "space", "at_once", "fail_fast"}  # the last two are options of `run`
    settings = {field.name for field in fields(Spec)} - ours
    assert settings == {"command"} | set(schema.READERS)


@pytest.mark.parametrize(("outer", "kind"), [("needs", Needs), ("objective", Objective)])
def test_every_inner_key_is_shown(outer: str, kind: type) -> None:
    shown = {key.name.partition(".")[2] for key in schema.KEYS if key.name.startswith(outer + ".")}
    assert shown == {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    "name",
    [
        "timeout",
        "grace",
        "log_limit",
        "snapshot_limit",
        "max_failures",
        "flags",
        "on_lost",
        "checkpoint_every",
    ],
)
def test_shown_defaults_are_the_real_ones(name: str) -> None:
    (key,) = (key for key in schema.KEYS if key.name == name)
    default = {field.name: field.default for field in fields(Spec)}[name]
    shown = key.default.strip("`")
    if shown == "none":
        assert default is None
    else:
        node = read_document(f"{name}: {shown}", "f").value
        assert isinstance(node, dict)
        assert schema.READERS[name](node[name]) == default


def test_every_reason_is_shown() -> None:
    for reason in REASONS:
        assert f"`{reason.replace(' N', ' ')}" in DOCUMENT


def test_the_examples_are_read_as_they_stand(tmp_path: Path) -> None:
    example = [block for block in BLOCKS if block.startswith("# project.yml") or "tasks:" in block]
    assert len(example) == 2
    for block in example:
        (tmp_path / "project.yml").write_text(block)
        for keys in load_project(tmp_path).tasks.values():
            for name, read in schema.READERS.items():
                if name in keys:
                    read(keys[name])


def test_both_ways_to_write_a_command_are_the_same() -> None:
    (block,) = (block for block in BLOCKS if "two words" in block)
    listed, split = (read_document(line, "f").value for line in block.splitlines())
    assert isinstance(listed, dict)
    assert isinstance(split, dict)
    from sweepfw.config.settings import command

    assert (
        command(listed["command"])
        == command(split["command"])
        == ("python", "train.py", "--note", "two words")
    )


def test_what_the_page_says_of_yaml_is_so() -> None:
    for text in ("yes", "no", "on", "off", "0x1F", "1_000", "1:30", "2026-01-01"):
        assert read_document(text, "f") == Node(text, "f:1:1")
    with pytest.raises(SweepError, match="merge keys"):
        read_document("<<: {a: 1}", "f")
