"""`pull`: bring output files home from a deployment, straight from the hosts that made them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from sweepfw.cli import chosen, options
from sweepfw.cli.complete import targets
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.naming import Target
    from sweepfw.fleet.collection import Collected
    from sweepfw.fleet.home import Key
    from sweepfw.ledger.interface import Ledger

LOST, UNREACHABLE = 1, 4


@click.command()
@click.argument("what", metavar="SWEEP[/N]", shell_complete=targets)
@click.option("--best", type=click.IntRange(min=1), metavar="N", help="Those of the best N trials only.")
@chosen.on
def pull(what: str, best: int | None, on: str | None) -> int:
    """Bring the output files of SWEEP, or of one trial, home to runs/; only what is missing here.

    Exit code 1 where files are lost with their host, 4 where a host that has some can't be reached.
    """
    from sweepfw.core.naming import parse_target
    from sweepfw.fleet.home import mark_folder
    from sweepfw.fleet.reach import connect

    target = parse_target(what)
    state, place = chosen.chosen(on), options.workspace()
    with connect(state) as reached:
        sweep = reached.ledger.sweep(target.sweep)
        keys = _wanted(reached.ledger, sweep, target, best)
        place.prepare()
        mark_folder(place, sweep)
        return _pull(state, place, reached.ledger, sweep, keys)


def _wanted(ledger: Ledger, sweep: Sweep, target: Target, best: int | None) -> Collection[Key]:
    """The attempts whose files are wanted; SweepError where there is no such trial, or no best."""
    from sweepfw.fleet.home import Key, best_attempts, with_outputs

    if target.trial is not None:
        list(ledger.trials(sweep.uid, numbers=[target.trial]))  # SweepError where there is none
    if best is not None and sweep.spec.objective is None:
        raise SweepError(f"{sweep.name} has no objective, so none is best; leave out --best")
    left = with_outputs(ledger.attempts(sweep.uid, target.trial))
    keys = {Key(sweep.name, trial, attempt) for trial, attempt in left}
    return keys if best is None else keys & best_attempts(sweep, ledger, best)


def _pull(
    state: DeploymentState, place: Workspace, ledger: Ledger, sweep: Sweep, keys: Collection[Key]
) -> int:
    from sweepfw.cli.meter import Meter
    from sweepfw.fleet.collection import Collected, collect, makers
    from sweepfw.fleet.home import lost
    from sweepfw.fleet.hosts import opened

    numbers = {(key.trial, key.attempt) for key in keys}
    attempts = [each for each in ledger.attempts(sweep.uid) if (each.trial, each.number) in numbers]
    wanted = makers(state, attempts)
    there = [host for host in state.deployment.hosts if host.name in wanted]
    done = Collected()
    if there:
        with opened(state, there) as hosts, Meter("output files") as meter:
            done = collect(state, place, hosts, sweep.name, keys, meter.took)
    gone = lost(sweep, ledger, place, keys, done.failures)
    return _report(done, gone)


def _report(done: Collected, gone: list[str]) -> int:
    from sweepfw.cli.render import plural, safe, size

    came = f"{plural(done.files, 'file')} came, {size(done.size)}" if done.files else "nothing new to bring"
    click.echo(came)
    for line in (*map(str, done.failures.values()), *done.refused, *gone):
        click.echo(f"! {safe(line)}", err=True)
    if done.failures:
        return UNREACHABLE
    return LOST if gone or done.refused else 0
