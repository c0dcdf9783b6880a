"""The documents say what the program does."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from cli_reference import ROOT, every_help, reference
from write_docs import CONSOLE, output

import sweepfw as package

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
# A line that a reader may type: in a block of code, `sweepfw VERB ...`, maybe after a prompt.
TYPED = re.compile(r"^\s*(?:\$ )?sweepfw ((?:infra |secret )?[a-z-]+)([^#\n]*)", re.MULTILINE)
BLOCK = re.compile(r"^```(?:console|sh|bash)?\n(.*?)^```$|((?:^ {4}.*\n)+)", re.MULTILINE | re.DOTALL)


def words(text: str) -> str:
    """The text without its line breaks: where click breaks lines differs between its versions."""
    return " ".join(text.split())


def test_every_command_is_in_the_reference_as_it_prints_its_help() -> None:
    written = (ROOT / "docs" / "cli.md").read_text()
    expected = reference()
    assert re.findall(r"^## .*$", written, re.MULTILINE) == re.findall(r"^## .*$", expected, re.MULTILINE)
    for ours, theirs in zip(written.split("\n## "), expected.split("\n## "), strict=True):
        assert words(ours) == words(theirs), "docs/cli.md is out of date: run scripts/docs"


@pytest.fixture(scope="module")
def verbs() -> dict[str, str]:
    """Every command, with its help."""
    return every_help()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_shows_exist(page: Path, verbs: dict[str, str]) -> None:
    blocks = "\n".join(one or two for one, two in BLOCK.findall(page.read_text()))
    for verb, rest in TYPED.findall(blocks):
        assert verb in verbs, f"{page.name}: `sweepfw {verb}` is no command"
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest):
            known = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", verbs[verb])
            assert known, f"{page.name}: `sweepfw {verb}` has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_what_plan_prints(tmp_path: Path) -> None:
    (tmp_path / ".sweepfw").mkdir()
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    shown = 0
    for block in CONSOLE.findall((ROOT / "README.md").read_text()):
        command, _, printed = block.partition("\n")
        if " plan " in command and "\n$ " not in block:
            shown += 1
            assert without_machine(output(command[2:], tmp_path)) == without_machine(printed)
    assert shown, "the README shows no plan"


def without_machine(text: str) -> str:
    """A plan's lines but those that tell of this machine: how many slots it has."""
    return "\n".join(line for line in text.splitlines() if "slot" not in line)


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == package.__version__
    assert f"\n## {package.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_asked_for_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    for dependency in project["dependencies"]:
        assert f"| {re.split(r'[<>=]', dependency)[0]} |" in explained
