"""The Python that trials run with: found, or built once for each content of a requirements file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Environment
from sweepfw.errors import SweepError
from sweepfw.shell.local import find_command

if TYPE_CHECKING:
    from sweepfw.trial.guard.secret import Hidden


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a trial's environment is. `python` stands for the command's first `python`.

    `variables` go over the user's own. `lock` is the text that names every package with its version, where
    we built the environment. `held` keeps `collect` from it: an open file; close it when no trial runs.
    """

    python: str
    variables: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None
    describe: str = ""
    held: int | None = None

    def over(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment's variables with ours over them."""
        return {**environment, **self.variables}


def resolve(
    wanted: Environment,
    place: Workspace,
    root: Path,
    snapshot: str,
    *,
    env: Mapping[str, str] = os.environ,
    lock: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    secrets: Hidden | None = None,
) -> Resolved:
    """Find the environment that trials of this snapshot run with, and build it where it has to be.

    `root` is the project's folder. `lock`: what the sweep was locked to before, which is built again. `say`
    hears lines of progress, `cancelled` is asked a few times a second; builders get `secrets`, which show
    nowhere. Raises SweepError for what is not there, SetupFailed where building fails, StoppedError where it
    was cancelled.
    """
    if wanted.kind == "inherit":
        return inherit(env)
    if wanted.kind == "python":
        return _named(wanted.value, root, env)
    from sweepfw.trial.building import build

    return build(wanted.value, place, snapshot, env, lock=lock, say=say, cancelled=cancelled, secrets=secrets)


def check(wanted: Environment, root: Path, env: Mapping[str, str] = os.environ) -> None:
    """SweepError for an environment that can't be, before anything is frozen or written."""
    if wanted.kind == "python":
        _named(wanted.value, root, env)
    elif wanted.kind == "requirements" and not (root / wanted.value).is_file():
        raise SweepError(
            f"environment: {root} has no {wanted.value}; name a requirements file of the project"
        )


def inherit(env: Mapping[str, str] = os.environ) -> Resolved:
    """The user's own: the active virtual environment, else conda's, else what PATH has.

    Never the Python that runs sweepfw itself, which may live in an environment of its own.
    """
    for variable, word in (("VIRTUAL_ENV", "virtual environment"), ("CONDA_PREFIX", "conda environment")):
        prefix = env.get(variable)
        if prefix and (python := find_command(f"{prefix}/bin/python", env)):
            return Resolved(python, _first_on_path(f"{prefix}/bin", env), describe=f"{word} {prefix}")
    python = find_command("python", env) or find_command("python3", env)
    return Resolved(python or "python", describe=python or "no Python on PATH")


def _named(value: str, root: Path, env: Mapping[str, str]) -> Resolved:
    """The interpreter at a path (of the project, where it is relative), or of a name on PATH."""
    text = str(Path(value).expanduser()) if value.startswith("~") else value
    if "/" in text and (root / text / "bin/python").is_file():
        text = f"{text}/bin/python"  # the folder of a virtual environment
    python = find_command(text, env, str(root))
    if python is None:
        raise SweepError(f"environment: python: {value} can't be run here; name an interpreter, or its path")
    folder = Path(python).parent
    variables = _first_on_path(str(folder), env) if "/" in text else {}
    if (folder.parent / "pyvenv.cfg").is_file():
        variables["VIRTUAL_ENV"] = str(folder.parent)
    return Resolved(python, variables, describe=python)


def activated(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """What activating a virtual environment sets. An empty PYTHONHOME counts as none."""
    home = {"PYTHONHOME": ""} if env.get("PYTHONHOME") else {}
    return {"VIRTUAL_ENV": str(folder), **_first_on_path(f"{folder}/bin", env), **home}


def _first_on_path(folder: str, env: Mapping[str, str]) -> dict[str, str]:
    path = env.get("PATH", os.defpath)
    return {} if path.split(":")[0] == folder else {"PATH": f"{folder}:{path}"}
