"""`new` makes a project from the template or a sample, `init` of a folder that is there; none overwrites."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sweepfw import modes
from sweepfw.errors import SweepError

TEMPLATE = Path(__file__).parent / "template"
SAMPLES = Path(__file__).parent / "samples"  # our own projects/, through a link; files in an installation
SHIPPED = {
    "echo": "prints its parameters and host",
    "digits": "trains on scikit-learn's handwritten digits",
}
FIRST = ("project.yml", "parameters.yml")  # what to look at first
SCRIPTS = ("train.py", "main.py", "run.py")

_PROJECT = """\
# What to run; the parameters to vary stand in parameters.yml. Every key: docs/project.md

command: {command}

# Numbers to read from the output, where it says "loss: 0.2" or "loss=0.2",
# and the one that makes a trial good:
# metrics: [loss]
# objective: {{metric: loss, goal: minimize}}

# timeout: 1h
# environment: {{requirements: requirements.txt}}
"""
_PARAMETERS = """\
# A name and its values. Every combination is one trial: the command with --name=value behind it.

# lr: [0.1, 0.01]                         # a list: each of them
# epochs: 20                              # a single value
# batch: !!python/tuple [8, 33, 8]        # an interval [start, end): 8, 16, 24, 32
# decay: {min: 1e-4, max: 1e-1, num: 4, scale: log}
"""


def _proposals(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    return [name for name in SHIPPED if name.startswith(typed)]


@click.command()
@click.option(
    "--from",
    "sample",
    metavar="SAMPLE",
    shell_complete=_proposals,
    help="Copy a sample project: " + ", or ".join(f"{name} ({what})" for name, what in SHIPPED.items()) + ". "
    "[default: the template]",
)
@click.argument("name")
def new(name: str, sample: str | None) -> None:
    """Make projects/NAME from a template that runs as it is, or from a sample.

    The template is a command, the parameters to vary, and a small training in plain Python; all three say
    in comments what can be changed.
    """
    import re

    from sweepfw.cli.terminal import safe
    from sweepfw.config.project import NAME
    from sweepfw.config.workspace import Workspace
    from sweepfw.config.yaml_reader import show_path

    if not re.fullmatch(NAME, name):
        raise SweepError(
            f"{name!r}: can't be a project's name; use letters, digits, '_', '.' and '-', such as mine"
        )
    source = TEMPLATE if sample is None else _sample(sample)
    folder = Workspace.find(Path.cwd()).projects / name
    *files, last = _copy(source, folder)
    click.echo(f"Made {safe(show_path(folder))} with {', '.join(files)} and {last}. It runs as it is:")
    click.echo(f"  sweepfw plan {name}    what would run\n  sweepfw run {name}     run it")


def _sample(name: str) -> Path:
    if name in SHIPPED:
        return SAMPLES / name
    from difflib import get_close_matches

    near = get_close_matches(name, SHIPPED, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {' and '.join(SHIPPED)}"
    raise SweepError(f"--from {name}: no such sample; {hint}")


def _copy(source: Path, folder: Path) -> list[str]:
    """The whole project or nothing: made beside, then renamed. The names of its files."""
    from shutil import rmtree

    from sweepfw.config.yaml_reader import show_path

    place = show_path(folder)
    if os.path.lexists(folder):
        raise SweepError(f"{place}: is there already; take another name, or remove it first")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    rest = sorted(file.name for file in source.iterdir() if file.is_file() and file.name not in FIRST)
    files = [*FIRST, *rest]
    try:
        with modes.loosened():
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside.mkdir()
            for file in files:  # not its mode: an installation may be read-only
                (beside / file).write_bytes((source / file).read_bytes())
        beside.rename(folder)
    except OSError as error:
        raise SweepError(
            f"{place}: can't be made ({error.strerror}); run sweepfw in a folder you own"
        ) from None
    finally:
        rmtree(beside, ignore_errors=True)
    return files


@click.command()
@click.option("--command", "-c", metavar="TEXT", help="What a trial runs, such as 'python train.py'.")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
def init(command: str | None, folder: Path) -> None:
    """Make a project of an existing folder: write project.yml and parameters.yml there.

    Asks for the command unless --command gives it. A file that is there is never overwritten.
    """
    from shlex import quote

    from sweepfw.cli.terminal import safe
    from sweepfw.config.project import FILE, PARAMETERS
    from sweepfw.config.yaml_reader import show_path

    place = show_path(folder)
    if not folder.is_dir():
        raise SweepError(f"{place}: is not a folder; `sweepfw new NAME` makes a project from nothing")
    for name in (FILE, "project.yaml"):
        if os.path.lexists(folder / name):
            raise SweepError(f"{show_path(folder / name)}: is there already; edit it, or remove it first")
    text = _PROJECT.format(command=_checked(_ask(folder) if command is None else command))
    written = [
        name for name, body in ((PARAMETERS, _PARAMETERS), (FILE, text)) if _write(folder / name, body)
    ]
    ref = safe(quote(place if "/" in place or place == "." else f"./{place}"))
    where = "here" if place == "." else f"in {safe(place)}"
    click.echo(f"Wrote {' and '.join(reversed(written))} {where}. Say in {PARAMETERS} what to vary, then:")
    click.echo(f"  sweepfw plan {ref}    what would run\n  sweepfw run {ref}     run it")


def _ask(folder: Path) -> str:
    """The command, from the person at the terminal."""
    import sys

    proposal = next((f"python {name}" for name in SCRIPTS if (folder / name).is_file()), None)
    if not sys.stdin.isatty():
        example = proposal or "python train.py"
        raise click.UsageError(f"There is no terminal to ask for the command; add --command '{example}'.")
    answer: str = click.prompt("The command that a trial runs", default=proposal)
    return answer


def _checked(command: str) -> str:
    """The command as YAML that reads back as this text; SweepError where it can't be split into words."""
    import json

    from sweepfw.config import settings
    from sweepfw.config.yaml_reader import read_text

    quoted = json.dumps(command, ensure_ascii=False)
    settings.command(read_text(quoted, "--command"))
    return quoted if _needs_quotes(command) else command


def _needs_quotes(command: str) -> bool:
    from sweepfw.config.node import Node
    from sweepfw.config.yaml_reader import read_document

    try:
        return read_document(f"command: {command}", "").value != {"command": Node(command, ":1:10")}
    except SweepError:
        return True


def _write(path: Path, text: str) -> bool:
    """Whether the file was written; one that is there stays."""
    from sweepfw.config.yaml_reader import show_path

    try:
        with modes.loosened(), path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise SweepError(f"{show_path(path)}: can't be written ({error.strerror})") from None
    return True
