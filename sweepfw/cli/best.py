"""`best`: the best trials by the objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.site import Found, Sites
    from sweepfw.core.model import Objective
    from sweepfw.core.ranking import Ranking


@click.command()
@click.argument("sweeps", metavar="SWEEP...", nargs=-1, required=True, shell_complete=sweep_names)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    metavar="K",
    default=10,
    show_default=True,
    help="How many to show.",
)
@click.option("--metric", metavar="NAME", help="Rank by this metric instead of the project's objective.")
@click.option(
    "--goal",
    type=click.Choice(["minimize", "maximize"]),
    default="minimize",
    show_default=True,
    help="With --metric: what is better.",
)
@click.option(
    "--at",
    type=click.Choice(["best", "last"]),
    default="last",
    show_default=True,
    help="With --metric: which report of a trial counts.",
)
@options.as_json
@options.sites
def best(
    *,
    sites: Sites,
    sweeps: tuple[str, ...],
    count: int,
    metric: str | None,
    goal: Literal["minimize", "maximize"],
    at: Literal["best", "last"],
    as_json: bool,
) -> None:
    """Show the best trials of one or more sweeps by the objective, with their parameters.

    Trials that differ only in repeat and seed stand together: mean, standard deviation, number, lowest and
    highest. What is not finite is worst.
    """
    from sweepfw.core.model import Objective

    objective = Objective(metric, goal, at) if metric else None
    ranking = _ranking(sites.find_all(sweeps), objective)
    if as_json:
        _print_json(ranking, count)
    else:
        import sys

        from sweepfw.cli.render import Screen, leaderboard

        click.echo("\n".join(leaderboard(ranking, limit=count, screen=Screen.of(sys.stdout))))


def _ranking(found: list[Found], objective: Objective | None) -> Ranking:
    from sweepfw.cli import records
    from sweepfw.core.ranking import merge

    rankings: list[Ranking] = []
    for site, sweep in found:
        ranking = records.ranking(site.ledger, sweep, objective)
        if ranking is None:
            raise SweepError(f"{sweep.name} has no objective; say `--metric NAME --goal maximize|minimize`")
        if rankings and ranking.objective != rankings[0].objective:
            raise SweepError(
                f"{found[0].sweep.name} and {sweep.name} have different objectives; "
                "say `--metric NAME --goal maximize|minimize` for all"
            )
        rankings.append(ranking)
    return merge(rankings)


def _print_json(ranking: Ranking, count: int) -> None:
    import json

    from sweepfw.cli import records

    found = [records.entry(entry, ranking.objective) for entry in ranking.entries[:count]]
    click.echo(json.dumps(found, indent=2))
