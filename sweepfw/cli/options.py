"""Options that several verbs share, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from sweepfw.cli.complete import deployment_names, task_names
from sweepfw.config.workspace import Workspace

if TYPE_CHECKING:
    from sweepfw.ledger.interface import Ledger

F = TypeVar("F", bound=Callable[..., Any])


class Running(NamedTuple):
    """The options of whatever runs trials: `-j --logs --quiet --json --detach --fail-fast`."""

    jobs: int | None
    logs: Any
    quiet: bool
    as_json: bool
    detach: bool
    fail_fast: bool

    def arguments(self) -> list[str]:
        """As they are typed, but for --detach."""
        words = ["-j", str(self.jobs)] if self.jobs else []
        words += ["--logs", self.logs] if self.logs else []
        chosen = {"--quiet": self.quiet, "--json": self.as_json, "--fail-fast": self.fail_fast}
        return words + [word for word, on in chosen.items() if on]


jobs = click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many trials at once. [default: one per GPU, else by needs.cpus]",
)
logs = click.option(
    "--logs",
    type=click.Choice(["all", "failed", "none"]),
    help="Whose output to show: all trials', failed ones' last lines, or none. "
    "[default: all up to 4 at once, else failed]",
)


def running(command: F) -> F:
    """Add the options of `Running`; the command gets them as its argument `how`."""
    from functools import wraps

    @wraps(command)
    def with_how(**options: Any) -> Any:
        how = Running(*(options.pop(name) for name in Running._fields))
        return command(how=how, **options)

    decorated: Any = with_how
    for option in (
        click.option(
            "--fail-fast", is_flag=True, help="Stop all at the first failed trial, and pause the sweep."
        ),
        click.option("--detach", "-d", is_flag=True, help="Run in the background; `attach` follows it."),
        click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object a line."),
        click.option("--quiet", "-q", is_flag=True, help="Print the leaderboard only."),
        logs,
        jobs,
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click decorates by adding attributes


def values(help: str) -> Callable[[F], F]:
    """`--set NAME=V[,V]`, and what it does here."""
    return click.option(
        "--set", "sets", multiple=True, metavar="NAME=V[,V]", help=f"{help} May be given again."
    )


sets = values("Use these values for a parameter that the project has.")
task = click.option(
    "--task",
    "-t",
    metavar="TASK",
    shell_complete=task_names,
    help="Which of the project's tasks. [default: the first]",
)
repeats = click.option(
    "--repeats",
    type=int,
    metavar="N",
    help="Run each combination so many times. [default: the project's `repeats`]",
)
max_trials = click.option(
    "--max-trials",
    type=click.IntRange(min=1),
    default=100_000,
    metavar="N",
    help="Refuse a grid of more trials. [default: 100,000]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def sites(command: F) -> F:
    """Add `--on` and `--here`; the command gets the Sites that they mean as its argument `sites`."""
    from functools import wraps

    @wraps(command)
    def with_sites(*, on: str | None, here: bool, **options: Any) -> Any:
        from sweepfw.cli.site import Sites

        return command(sites=Sites(on, here=here), **options)

    decorated: Any = with_sites
    for option in (
        click.option("--here", is_flag=True, help="This machine, whatever deployments there are."),
        click.option(
            "--on",
            metavar="D",
            shell_complete=deployment_names,
            help="The deployment D. [default: the one of this workspace's config.yml, or your only one]",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click decorates by adding attributes


def workspace() -> Workspace:
    return Workspace.find(Path.cwd())


def existing(place: Workspace) -> Ledger:
    """The workspace's ledger. SweepError where there is none."""
    from sweepfw.ledger.local import open_ledger

    return open_ledger(place, create=False)
