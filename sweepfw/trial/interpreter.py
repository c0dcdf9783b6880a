"""The Pythons that a machine has: the user's own, one that is named, and what using one sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw.errors import SweepError
from sweepfw.shell.local import find_command


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


def named(value: str, root: Path, env: Mapping[str, str]) -> Resolved:
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
