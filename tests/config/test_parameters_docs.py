"""Every example of docs/parameters.md gives the commands that stand below it."""

import re
import shlex
from pathlib import Path

import pytest

from sweepfw.config.parameters import read_space
from sweepfw.config.yaml_reader import read_file
from sweepfw.core.command import argv
from sweepfw.core.grid import expand
from sweepfw.core.model import Spec

PAGE = (Path(__file__).parent.parent.parent / "docs" / "parameters.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
RULES = ("zip", "exclude", "include", "when", "repeats", "seed")


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 9
    assert PAGE.count("```yaml") == len(EXAMPLES)
    assert all(f"## {rule}" in PAGE or rule == "seed" for rule in RULES)


@pytest.mark.parametrize(("yaml", "commands"), EXAMPLES)
def test_an_example_gives_these_commands(yaml, commands, tmp_path):
    files = dict(re.findall(r"# (\w+)\.yml\n(.*?)(?=# \w+\.yml\n|\Z)", yaml, re.DOTALL))
    nodes = {}
    for name in ("project", "parameters"):
        path = tmp_path / f"{name}.yml"
        path.write_text(files.get(name, "{}"))
        nodes[name] = read_file(path).value
    project = {key: node.value for key, node in nodes["project"].items()}
    space = read_space(
        read_file(tmp_path / "parameters.yml"), {k: v for k, v in nodes["project"].items() if k in RULES}
    )
    command = project.get("command", "python train.py")
    shell = project.get("shell", False)
    spec = Spec("demo", "main", (command,) if shell else tuple(shlex.split(command)), shell=shell)
    got = [argv(spec, draft.params, {}) for draft in expand(space)]
    assert got == [shlex.split(line) for line in commands.splitlines()]


ROW = re.compile(r"^\| `([^`]+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
HEAD = re.compile(r"^\| value \| `(\w+): (\w+)`.* \| `\w+: (\w+)` \| `\w+: (\w+)`.* \|$", re.MULTILINE)


@pytest.mark.parametrize("table", [part for part in PAGE.split("\n\n") if HEAD.match(part)])
def test_the_tables_of_flags_are_true(table, tmp_path):
    head = HEAD.match(table)
    rows = ROW.findall(table)
    assert rows
    for value, *cells in rows:
        for kind, cell in zip(head.groups()[1:], cells, strict=True):
            name = {"0.1": "lr", "[64, 64]": "layers"}.get(value, "amp")
            (tmp_path / "p.yml").write_text(f"{name}: {{value: {value}}}")
            (draft,) = expand(read_space(read_file(tmp_path / "p.yml"), {}))
            spec = Spec("demo", "main", ("run",), **{head[1]: kind})
            expected = [] if cell == "nothing" else cell.strip("`").split()
            assert argv(spec, draft.params, {})[1:] == expected, (value, kind)
