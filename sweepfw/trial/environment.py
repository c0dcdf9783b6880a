"""The Python that trials run with: found, or built once for each content of a requirements file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Environment
from sweepfw.errors import SweepError
from sweepfw.trial.interpreter import Resolved, inherit, named

if TYPE_CHECKING:
    from sweepfw.trial.guard.secret import Hidden


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
        return named(wanted.value, root, env)
    from sweepfw.trial.building import build

    return build(wanted.value, place, snapshot, env, lock=lock, say=say, cancelled=cancelled, secrets=secrets)


def check(wanted: Environment, root: Path, env: Mapping[str, str] = os.environ) -> None:
    """SweepError for an environment that can't be, before anything is frozen or written."""
    if wanted.kind == "python":
        named(wanted.value, root, env)
    elif wanted.kind == "requirements" and not (root / wanted.value).is_file():
        raise SweepError(
            f"environment: {root} has no {wanted.value}; name a requirements file of the project"
        )
