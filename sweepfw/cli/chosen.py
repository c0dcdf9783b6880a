"""The deployment that a command means, for commands that are about nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from sweepfw.cli.complete import deployment_names
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState

on = click.option(
    "--on",
    metavar="D",
    shell_complete=deployment_names,
    help="The deployment D. [default: the one of this workspace's config.yml, or your only one]",
)


def chosen(on: str | None) -> DeploymentState:
    """SweepError where there is none, or where several may be meant."""
    from sweepfw.cli.options import workspace
    from sweepfw.config.deployments import choose

    state = choose(on, here=False, workspace=workspace())
    if state is None:
        raise SweepError("there is no deployment; bring one up with: sweepfw infra up -a HOST[,HOST]")
    return state


def one_of(word: str, choices: Iterable[str], what: str) -> str:
    """The word, if it is among the choices. SweepError that names them."""
    known = list(choices)
    if word not in known:
        raise SweepError(f"{word[:60]}: no such {what}; there are {', '.join(known)}")
    return word
