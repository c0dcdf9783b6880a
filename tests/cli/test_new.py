from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from sweepfw.cli.new import SAMPLES, SHIPPED, TEMPLATE
from sweepfw.config.node import Node
from sweepfw.config.project import load_project, spec_for
from sweepfw.config.yaml_reader import read_file
from sweepfw.core.grid import count
from sweepfw.core.space import Space

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
FILES = {"project.yml", "parameters.yml", "train.py"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_new_makes_a_project_that_can_be_frozen(sweepfw: Command, workspace_folder: Path) -> None:
    done = sweepfw("new", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sweepfw run mine" in done.stdout
    folder = workspace_folder / "projects" / "mine"
    assert names(folder) == FILES
    spec = spec_for(load_project(folder))
    assert spec.command == ("python", "train.py")
    assert spec.objective is not None
    assert count(Space.from_json(spec.space)).number == 6


def test_new_says_its_folder_from_within_a_subfolder(sweepfw: Command, workspace_folder: Path) -> None:
    (workspace_folder / "sub").mkdir()
    done = sweepfw("new", "mine", cwd=workspace_folder / "sub")
    assert done.returncode == 0
    assert names(workspace_folder / "projects" / "mine") == FILES


@pytest.mark.parametrize("name", ["-rf", "../x", "a b", "", ".", "..", "x\ny", "é", "a" * 81])
def test_new_refuses_names_that_are_none(name: str, sweepfw: Command, workspace_folder: Path) -> None:
    done = sweepfw("new", "--", name)
    assert done.returncode == 2
    assert "can't be a project's name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(workspace_folder / "projects") == set()


@pytest.mark.parametrize("sample", SHIPPED)
def test_new_copies_a_sample_as_it_ships(sample: str, sweepfw: Command, workspace_folder: Path) -> None:
    done = sweepfw("new", "mine", "--from", sample)
    assert (done.returncode, done.stderr) == (0, "")
    made, shipped = workspace_folder / "projects" / "mine", ROOT / "projects" / sample
    assert {path.name: path.read_text() for path in made.iterdir()} == {
        path.name: path.read_text() for path in shipped.iterdir() if path.is_file()
    }
    for name in names(made):
        assert name in done.stdout
    planned = sweepfw("plan", "mine", "--limit", "0")
    assert planned.returncode == 0
    assert planned.stdout.startswith("mine")


def test_samples_that_ship_are_named_for_the_wheel() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    data = tools["setuptools"]["package-data"]["sweepfw"]
    assert {f"cli/samples/{name}/*" for name in SHIPPED} == {each for each in data if "samples" in each}
    for name in SHIPPED:  # a folder in a folder would need a pattern of its own
        assert not [path for path in (SAMPLES / name).rglob("*/*") if "__pycache__" not in path.parts]


@pytest.mark.parametrize(
    ("sample", "hint"),
    [("digit", "did you mean digits?"), ("../echo", "did you mean echo?"), ("zzz", "echo")],
)
def test_new_of_a_sample_that_does_not_ship(
    sample: str, hint: str, sweepfw: Command, workspace_folder: Path
) -> None:
    done = sweepfw("new", "mine", "--from", sample)
    assert done.returncode == 2
    assert done.stderr.startswith(f"sweepfw: --from {sample}: no such sample; ") and hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(workspace_folder / "projects") == set()


def test_new_never_overwrites(sweepfw: Command, workspace_folder: Path) -> None:
    folder = workspace_folder / "projects" / "mine"
    folder.mkdir()
    done = sweepfw("new", "mine")
    assert done.returncode == 2
    assert done.stderr == "sweepfw: projects/mine: is there already; take another name, or remove it first\n"
    assert names(folder) == set()


def test_new_where_nothing_can_be_made(sweepfw: Command, workspace_folder: Path) -> None:
    (workspace_folder / "projects").rmdir()
    (workspace_folder / "projects").write_text("a file in the way")
    done = sweepfw("new", "mine")
    assert done.returncode == 2
    assert done.stderr.startswith("sweepfw: projects/mine: can't be made (")
    assert done.stderr.count("\n") == 1


def test_the_templates_training_runs_by_hand_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def train(epochs: int) -> str:
        argv = [sys.executable, "-I", str(TEMPLATE / "train.py"), "--lr=0.1", f"--epochs={epochs}"]
        return subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert train(3).count("loss") == 3
    again = train(5)
    assert again.startswith("going on after epoch 3")
    assert again.count("loss") == 2
    assert (tmp_path / "output" / "model.json").exists()


def test_the_template_shows_keys_that_exist(tmp_path: Path) -> None:
    """Each commented line of the template can be brought in as it stands."""
    lines = (TEMPLATE / "project.yml").read_text().splitlines()
    inactive = [line[2:] for line in lines if line.startswith("# ") and ": " in line and line[2].islower()]
    assert len(inactive) >= 8
    (tmp_path / "requirements.txt").write_text("")
    for line in inactive:
        (tmp_path / "project.yml").write_text("command: a\n" + line)
        (tmp_path / "parameters.yml").write_text("seed: 1" if line.startswith("seed") else "")
        spec_for(load_project(tmp_path))
    parameters = (TEMPLATE / "parameters.yml").read_text().splitlines()
    (tmp_path / "project.yml").write_text("command: a")
    (tmp_path / "parameters.yml").write_text("\n".join(line.removeprefix("# ") for line in parameters[2:]))
    assert len(spec_for(load_project(tmp_path)).space["parameters"]) == 6


def test_init_writes_both_files_where_the_code_is(sweepfw: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    done = sweepfw("init", "--command", "python train.py --fast", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Wrote project.yml and parameters.yml here.")
    assert "sweepfw run ." in done.stdout
    spec = spec_for(load_project(tmp_path))
    assert spec.command == ("python", "train.py", "--fast")
    assert count(Space.from_json(spec.space)).number == 1


@pytest.mark.parametrize(
    "command", ["a 'x: y' # z", "[a]", "*", "- a", "a 🦋", '"a b" c\\d', "true", "1", " a ", "@x", "#a"]
)
def test_init_keeps_the_command_as_it_was_typed(command: str, sweepfw: Command, tmp_path: Path) -> None:
    done = sweepfw("init", "--command", command, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    written = read_file(tmp_path / "project.yml").value
    assert isinstance(written, dict)
    assert isinstance(written["command"], Node)
    assert written["command"].value == command


@pytest.mark.parametrize("command", ["a 'b", "a | b", "A=1 b", "", " ", "a\x07"])
def test_init_refuses_a_command_that_could_not_run(command: str, sweepfw: Command, tmp_path: Path) -> None:
    done = sweepfw("init", "--command", command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("sweepfw: --command: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "project.yml").exists()
    assert not (tmp_path / "parameters.yml").exists()


def test_init_never_overwrites(sweepfw: Command, tmp_path: Path) -> None:
    (tmp_path / "parameters.yml").write_text("lr: 1")
    assert sweepfw("init", "--command", "a", cwd=tmp_path).stdout.startswith("Wrote project.yml here.")
    assert (tmp_path / "parameters.yml").read_text() == "lr: 1"
    done = sweepfw("init", "--command", "b", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "sweepfw: project.yml: is there already; edit it, or remove it first\n"


def test_init_without_a_terminal_needs_the_command(sweepfw: Command, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    done = sweepfw("init", cwd=tmp_path)
    assert done.returncode == 2
    assert "--command 'python main.py'" in done.stderr
    assert names(tmp_path) >= {"main.py"}
    assert not (tmp_path / "project.yml").exists()


def test_init_of_what_is_no_folder(sweepfw: Command, tmp_path: Path) -> None:
    done = sweepfw("init", "--command", "a", "none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "sweepfw: none: is not a folder; `sweepfw new NAME` makes a project from nothing\n"


def test_init_asks_at_a_terminal_and_proposes_the_script(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    argv = ["-m", "sweepfw", "init"]
    terminal = pexpect.spawn(
        sys.executable,
        argv,
        cwd=str(tmp_path),
        encoding="utf-8",
        env={**os.environ, "TERM": "dumb"},
        timeout=120,
    )
    terminal.expect_exact("[python main.py]:")
    terminal.sendline("")
    terminal.expect_exact("sweepfw run .")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert "command: python main.py\n" in (tmp_path / "project.yml").read_text()
