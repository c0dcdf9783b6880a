"""`infra down`: bring home what a deployment holds, then take it off its hosts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from sweepfw import crash
from sweepfw.cli import chosen, options
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.fleet.departure import Departure
    from sweepfw.fleet.home import Wanted
    from sweepfw.fleet.reach import Reached

UNREACHABLE = 4


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option(
    "--outputs",
    metavar="all|best:N|none",
    help="Which output files to bring home: all, those of the best N trials of each sweep, or none. "
    "[default: ask]",
)
@click.option(
    "--forget", is_flag=True, help="Give up hosts that can't be reached: what is there stays there."
)
@chosen.on
def down(yes: bool, outputs: str | None, forget: bool, on: str | None) -> int:
    """Bring sweeps home to this workspace, then remove the deployment from its hosts.

    Ledger, logs, metrics and small files always come home; large output files as --outputs says. Trials that
    run are interrupted: they are queued again, and `resume` runs them here. Whatever is not this
    deployment's stays. Killed, or with hosts out of reach, it is finished by the next `infra down`.
    """
    from sweepfw.fleet.departure import Departure, all_hosts
    from sweepfw.fleet.home import Wanted
    from sweepfw.fleet.hosts import opened

    wanted = Wanted.parse(outputs) if outputs is not None else None
    state = chosen.chosen(on)
    place = options.workspace()
    with state.lock(), opened(state, all_hosts(state)) as hosts:
        departure = Departure(state, place, hosts, _say)
        departure.look()
        _check_head(departure, yes=yes)
        with _reached(departure) as head:
            if head:
                _ask_about_sweeps(departure, head, yes=yes)
            wanted = _which_outputs(departure, wanted, yes=yes)
            if head:  # nothing was changed until here
                _send_no_more(departure, head)
        _bring_home(departure, place, wanted)
        _say("removing containers, networks, volumes, images, folders and keys")
        departure.remove()
        return _end(departure, forget=forget)


def _say(line: str) -> None:
    from sweepfw.cli.terminal import safe

    click.echo(safe(line), err=True)


def _asking(yes: bool) -> bool:
    """Whether there is somebody to be asked."""
    return not yes and sys.stdin.isatty()


def _confirm(question: str, hint: str, *, yes: bool) -> None:
    """Go on, or end with exit code 1. SweepError with the hint where nobody can be asked, and nobody said
    yes."""
    if yes:
        return
    if not _asking(yes):
        raise SweepError(hint)
    if not click.confirm(question, err=True):
        _say("nothing was taken down")
        raise click.exceptions.Exit(1)


def _check_head(departure: Departure, *, yes: bool) -> None:
    head = departure.state.deployment.head
    for failure in departure.failures.values():
        _say(f"! {failure}")
    if head in departure.failures:
        _confirm(
            f"Ledger and logs stay on {head} until it can be reached. Take down the other hosts?",
            f"{head}: the head's host can't be reached, and the ledger is there; type --yes to go on without",
            yes=yes,
        )


@contextmanager
def _reached(departure: Departure) -> Iterator[Reached | None]:
    """The head's service; None where it does not answer."""
    from sweepfw.fleet.reach import connect

    head = departure.found.get(departure.state.deployment.head)
    service = head.container("head") if head else None
    reached = None
    if service is not None and service.state == "running":
        try:
            reached = connect(departure.state)
        except SweepError as error:
            _say(f"! {error}; its ledger is read from its disk")
    with reached or nullcontext():
        yield reached


def _ask_about_sweeps(departure: Departure, head: Reached, *, yes: bool) -> None:
    """Say what runs, and whose it is."""
    from sweepfw.cli.words import plural

    name = departure.state.name
    sweeps = head.ledger.sweeps()
    others = strangers(sweeps, departure.place)
    for line in others:
        _say(line)
    running = sum(sweep.counts.get("running", 0) for sweep in sweeps)
    if running:
        trials = f"{plural(running, 'trial')} running"
        question = f"{name}: {trials}, to be interrupted and queued again. Take it down?"
        hint = f"{name}: {trials}; stop the sweeps first, or type --yes to interrupt them"
        _confirm(question, hint, yes=yes)
    elif others:
        hint = f"{name} holds sweeps of others; type --yes to take it down all the same"
        _confirm(f"{name} holds sweeps of others. Take it down?", hint, yes=yes)


def _send_no_more(departure: Departure, head: Reached) -> None:
    """No worker gets a trial from now on; `infra up` undoes that."""
    for host in departure.state.deployment.workers:
        head.desk.drain(host)
        crash.point("down.drained")


def strangers(sweeps: list[Sweep], place: Workspace) -> list[str]:
    """Sweeps without an end that others submitted, or that were submitted from elsewhere, a line each."""
    import getpass
    import os

    me = f"{getpass.getuser()}@{os.uname().nodename}"
    found = []
    for sweep in sweeps:
        who = str(sweep.provenance.get("submitter", me))
        where = str(sweep.provenance.get("workspace", place.root))
        if (who, where) != (me, str(place.root)):
            found.append(
                f"{sweep.name} was submitted by {who} from {where}; it comes home here ({sweep.state})"
            )
    return found


def _which_outputs(departure: Departure, wanted: Wanted | None, *, yes: bool) -> Wanted:
    """What is to come; asked for where nobody said it and there is something to lose."""
    import shutil

    from sweepfw.cli.render import plural, size
    from sweepfw.fleet.home import Wanted

    items = departure.list_outputs()
    if not items:
        return wanted or Wanted("all")
    total = sum(item.size for item in items)
    free = shutil.disk_usage(departure.place.root).free
    told = f"{plural(len(items), 'output file')} on the hosts, {size(total)}; {size(free)} free here"
    _say(told)
    if wanted is not None:
        return wanted
    if not _asking(yes):
        raise SweepError(f"{told}: they would be lost; say which to bring home: --outputs all|best:N|none")
    answer = click.prompt("Which to bring home? all, best:N or none", default="all", err=True)
    return Wanted.parse(answer.strip())


def _bring_home(departure: Departure, place: Workspace, wanted: Wanted) -> None:
    from sweepfw.cli.meter import Meter
    from sweepfw.ledger.local import open_ledger

    if departure.found:
        _say("stopping workers, then the head")
        departure.stop()
        crash.point("down.stopped")
    if departure.head is None and not departure.listings:
        return
    place.prepare()
    ledger = open_ledger(place, create=True)
    try:
        _say("bringing home ledger, logs and small files")
        departure.list_outputs()  # again: a trial that ended meanwhile has left its files
        departure.bring_ledger(ledger)
        with Meter("output files") as meter:
            departure.bring_outputs(ledger, wanted, meter.took)
        for line in departure.lost(ledger, wanted):
            _say(f"! {line}")
    finally:
        ledger.disconnect()
    new = ", ".join(departure.came.new)
    if new:
        _say(f"came home: {new}")


def _end(departure: Departure, *, forget: bool) -> int:
    name = departure.state.name
    left = departure.failures
    if left and not forget:
        departure.keep()
        for failure in left.values():
            _say(f"! {failure}")
        click.echo(
            f"{name} is not gone from {', '.join(left)}; when they answer: sweepfw infra down", err=True
        )
        return UNREACHABLE
    departure.forget()
    rest = f"; what is on {', '.join(left)} stays there" if left else ""
    click.echo(f"{name} is down{rest}")
    return 0
