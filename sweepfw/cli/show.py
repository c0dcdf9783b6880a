"""`show`: a sweep, or one trial of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import targets

if TYPE_CHECKING:
    from sweepfw.cli.site import Site, Sites
    from sweepfw.cli.terminal import Screen
    from sweepfw.core.model import Sweep
    from sweepfw.core.naming import Target
    from sweepfw.core.ranking import Ranking
    from sweepfw.ledger.interface import Ledger

MOST_REASONS = 10  # kinds of failure that are listed
MOST_NUMBERS = 60  # characters of the list of a reason's trials
MOST_TRIALS = 5  # of the leaderboard


@click.command()
@click.argument("what", metavar="SWEEP[/N]", shell_complete=targets)
@options.as_json
@options.sites
def show(sites: Sites, what: str, as_json: bool) -> None:
    """Show SWEEP: how far it is, its best trials, its failures. SWEEP/N: one trial.

    What to type next stands at the end.
    """
    import sys

    from sweepfw.cli.terminal import Screen
    from sweepfw.core.naming import parse_target

    target = parse_target(what)
    site, sweep = sites.find(target.sweep)
    if as_json:
        _print_json(site.ledger, sweep, target)
        return
    screen = Screen.of(sys.stdout)
    if target.trial is None:
        lines = _sweep(site, sweep, screen)
    else:
        from sweepfw.cli.show_trial import describe

        lines = describe(site, sweep, target.trial, screen)
    for line in lines:
        click.echo(line)


def _print_json(ledger: Ledger, sweep: Sweep, target: Target) -> None:
    from sweepfw.cli import records

    if target.trial is not None:
        (trial,) = ledger.trials(sweep.uid, numbers=[target.trial])
        attempts = ledger.attempts(sweep.uid, target.trial)
        found = {"sweep": sweep.name, **records.trial(trial, attempts, sweep.spec.objective)}
        click.echo(json.dumps(found, indent=2))
        return
    head = {
        "sweep": sweep.name,
        "state": sweep.state,
        "counts": dict(sweep.counts),
        "provenance": dict(sweep.provenance),
        "project": sweep.spec.project,
        "task": sweep.spec.task,
        "created": sweep.created,
        "ended": sweep.ended,
        "reason": sweep.reason,
        "note": sweep.note,
        "snapshot": sweep.snapshot,
    }
    # Written trial by trial: a sweep may have 100,000 of them.
    import sys

    out = sys.stdout
    out.write(json.dumps(head)[:-1] + ', "trials": [')
    for position, record in enumerate(records.trials(ledger, sweep)):
        out.write((",\n" if position else "\n") + json.dumps(record))
    out.write("\n]}\n")


def _sweep(site: Site, sweep: Sweep, screen: Screen) -> Iterator[str]:
    from sweepfw.cli import records
    from sweepfw.cli.ls import shown_state
    from sweepfw.cli.render import leaderboard, safe

    ledger, state = site.ledger, shown_state(site, sweep)
    reason = f": {safe(sweep.reason)}" if sweep.reason else ""
    where = f"  on {site.name}" if site.remote else ""
    yield f"{screen.paint(safe(sweep.name), 'bold')}  {screen.paint(state)}{where}{reason}"
    yield from _facts(ledger, sweep)
    yield from _running(ledger, sweep, screen)
    yield from _failures(ledger, sweep, screen)
    ranking = records.ranking(ledger, sweep)
    if ranking and ranking.entries:
        yield ""
        yield from leaderboard(ranking, limit=MOST_TRIALS, screen=screen)
    yield ""
    yield from _next(ledger, sweep, state, ranking)


def _facts(ledger: Ledger, sweep: Sweep) -> Iterator[str]:
    from sweepfw.cli.render import duration, local_time, safe

    counts = ", ".join(f"{number:,} {state}" for state, number in sweep.counts.items() if number)
    took = "" if sweep.ended is None else f", took {duration(sweep.ended - sweep.created)}"
    facts = {
        "project": f"{sweep.spec.project}, task {sweep.spec.task}",
        "note": sweep.note,
        "trials": f"{sweep.total:,}: {counts}",
        "started": local_time(sweep.created) + took,
        "code": code(sweep),
        "mixed": ", ".join(
            f"some trials ran snapshot {newer[:12]}"
            for newer in sorted(ledger.snapshots(sweep.uid) - {sweep.snapshot})
        ),
    }
    for name, fact in facts.items():
        if fact:
            yield f"  {name:<9} {safe(fact)}"


def code(sweep: Sweep) -> str:
    """`snapshot 1a2b3c, git 4d5e6f on main with uncommitted changes`."""
    git = sweep.provenance.get("git")
    git = git if isinstance(git, dict) else sweep.provenance
    parts = [f"snapshot {sweep.snapshot[:12]}"]
    if commit := git.get("commit"):
        branch = f" on {git['branch']}" if git.get("branch") else ""
        changed = " with uncommitted changes" if git.get("dirty") else ""
        parts.append(f"git {str(commit)[:12]}{branch}{changed}")
    return ", ".join(parts)


def _running(ledger: Ledger, sweep: Sweep, screen: Screen) -> Iterator[str]:
    from sweepfw.cli.render import duration, table

    now = time.time()
    running = ledger.running(sweep.uid)
    if running:
        rows = [
            [f"{sweep.name}/{one.trial}", one.host, one.slot, duration(now - one.started)] for one in running
        ]
        yield ""
        yield from table(["RUNNING", "HOST", "SLOT", "FOR"], rows, screen)


def _failures(ledger: Ledger, sweep: Sweep, screen: Screen) -> Iterator[str]:
    from sweepfw.cli.render import cut, ranges, table

    failed: dict[str, list[int]] = {}
    if sweep.counts.get("failed"):
        for trial in ledger.trials(sweep.uid, states=("failed",)):
            failed.setdefault(trial.reason, []).append(trial.number)
    if failed:
        most = sorted(failed.items(), key=lambda item: -len(item[1]))
        rows = [
            [reason, str(len(trials)), cut(ranges(trials), MOST_NUMBERS)]
            for reason, trials in most[:MOST_REASONS]
        ]
        yield ""
        yield from table(["FAILED", "TRIALS", "NUMBERS"], rows, screen)
        if len(most) > MOST_REASONS:
            yield f"… and {len(most) - MOST_REASONS} other reasons"


def _telling(ledger: Ledger, sweep: Sweep) -> int | None:
    """A trial that has printed, or has room to: one that failed, if there is one."""
    for state in ("failed", "running", "succeeded"):
        if sweep.counts.get(state):
            return next((trial.number for trial in ledger.trials(sweep.uid, states=(state,))), None)
    return None


def _next(ledger: Ledger, sweep: Sweep, state: str, ranking: Ranking | None) -> Iterator[str]:
    """What to type next, by where the sweep stands."""
    from sweepfw.cli.render import plural

    commands: dict[str, str] = {}
    if state == "running":
        commands[f"sweepfw attach {sweep.name}"] = "follow it"
        commands[f"sweepfw stop {sweep.name}"] = "cancel what is left"
    elif sweep.counts.get("queued") or sweep.counts.get("running"):
        commands[f"sweepfw resume {sweep.name}"] = "run what lacks an end"
    elif state == "stopped":
        commands[f"sweepfw resume {sweep.name} --cancelled"] = "run the cancelled trials too"
    if failed := sweep.counts.get("failed"):
        commands[f"sweepfw retry {sweep.name}"] = f"run {plural(failed, 'failed trial')} again"
    if ranking and ranking.entries:
        commands[f"sweepfw show {sweep.name}/{ranking.entries[0].trials[0]}"] = "the best trial"
        commands[f"sweepfw export {sweep.name} --format csv"] = "all parameters and metrics"
    elif (trial := _telling(ledger, sweep)) is not None:
        commands[f"sweepfw logs {sweep.name}/{trial}"] = "what a trial printed"
    longest = max(map(len, commands), default=0)
    for command, why in commands.items():
        yield f"  {command:<{longest}}  {why}"
