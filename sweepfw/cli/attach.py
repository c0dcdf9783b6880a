"""`attach`: follow a sweep that another process runs, as if it ran here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names
from sweepfw.trial.attempt import printed

if TYPE_CHECKING:
    from typing import Any

    from sweepfw.cli.progress import Quiet
    from sweepfw.cli.site import Site, Sites
    from sweepfw.core.model import Attempt, Sweep

PAUSE = 0.2  # seconds between two looks


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@options.logs
@click.option("--quiet", "-q", is_flag=True, help="Print the leaderboard only, at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object a line.")
@options.sites
def attach(sites: Sites, sweep: str, logs: Any, quiet: bool, as_json: bool) -> int:
    """Follow SWEEP while another process, or a deployment, runs it. Ctrl-C leaves it; the sweep goes on.

    The exit code is the one that `run` would give.
    """
    from sweepfw.cli.progress import listener
    from sweepfw.core.naming import parse_target

    site, found = sites.find(parse_target(sweep, trial=False).sweep)
    view = listener(quiet=quiet, as_json=as_json, logs=logs)
    if not site.live(found):
        return _conclude(site, found, view, quiet=quiet)
    return follow(site, found, view, site.ledger.last_end(found.uid), quiet=quiet)


def follow(site: Site, sweep: Sweep, view: Quiet, cursor: int, *, quiet: bool, fresh: bool = False) -> int:
    """Show the sweep until nobody runs it any more, what ended after `cursor` included; run's exit code.

    `fresh`: it is shown from its beginning, so what runs by now has started under our eyes.

    Ctrl-C, SIGTERM and SIGHUP leave it, and it goes on.
    """
    from sweepfw.cli.execute import INTERRUPTED

    try:
        with _leaving() as heard:
            _follow(site, sweep, view, cursor, heard, fresh=fresh)
    except KeyboardInterrupt:
        view.close()
        where = f" on {site.name}" if site.remote else ""
        hint = f"sweepfw attach {sweep.name} follows it again, sweepfw stop {sweep.name} stops it"
        click.echo(f"left {sweep.name}; it goes on{where}. {hint}", err=True)
        return INTERRUPTED
    view.close()
    return _conclude(site, sweep, view, quiet=quiet)


def _conclude(site: Site, sweep: Sweep, view: Quiet, *, quiet: bool) -> int:
    """What came of it, and the exit code."""
    from sweepfw.cli.execute import exit_code, summarise
    from sweepfw.cli.progress import Events

    final = site.ledger.sweep(sweep.uid)
    if isinstance(view, Events):
        view.finish(final)
    else:
        summarise(site.ledger, final, quiet=quiet)
    return exit_code(final)


@contextmanager
def _leaving() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP leave as Ctrl-C does. The list is of those heard: an exception that is raised while
    an object is cleared away is lost."""
    import signal

    heard: list[int] = []

    def leave(number: int, frame: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, leave) for kind in kinds]
    try:
        yield heard
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _follow(site: Site, sweep: Sweep, view: Quiet, cursor: int, heard: list[int], *, fresh: bool) -> None:
    ledger, view.shows_hosts = site.ledger, site.remote
    there = [] if fresh else ledger.running(sweep.uid)
    running = {one.token: _Followed(site, sweep, one) for one in there}
    view.begin(sweep, site.slots() or len(running) or 1)
    for followed in running.values():
        view.joined(followed.grant, followed.slot)
    view.note(f"following {sweep.name}; Ctrl-C leaves it, and it goes on")
    seen = -1
    live = True
    while live:
        if heard:
            raise KeyboardInterrupt
        live = site.live(sweep)  # asked first: what ended before it is seen below
        now = ledger.changed()
        changed, seen = now != seen, now
        if changed or not live:
            for attempt in ledger.running(sweep.uid):
                if attempt.token not in running:
                    running[attempt.token] = followed = _Followed(site, sweep, attempt)
                    view.started(followed.grant, followed.slot)
        for followed in running.values():
            followed.show(view)
        if changed or not live:
            cursor, ended = ledger.ended_since(sweep.uid, cursor)
            for attempt in ended:
                one = running.pop(attempt.token, None)
                if one is None:  # it ended before it was seen to run
                    one = _Followed(site, sweep, attempt)
                    view.started(one.grant, one.slot)
                one.end(view, attempt)
        view.tick(ledger.sweep(sweep.uid) if changed else None)
        if live:
            time.sleep(PAUSE)


class _Followed:
    """One attempt that runs elsewhere, as the views know attempts."""

    def __init__(self, site: Site, sweep: Sweep, attempt: Attempt) -> None:
        from sweepfw.core.model import Grant
        from sweepfw.trial.attempt import Slot

        self._site, self._sweep = site, sweep
        self.grant = Grant(
            sweep.name, sweep.uid, attempt.trial, attempt.number, attempt.token, {}, 1, attempt.snapshot
        )
        self.slot = Slot(attempt.slot, attempt.host, 1)
        self._log = site.log(sweep, attempt.trial, attempt.number)

    def show(self, view: Quiet, *, ended: bool = False) -> None:
        if view.wants_output:
            while self._log.read(partial(view.output, self.grant), ended=ended):
                pass

    def end(self, view: Quiet, attempt: Attempt) -> None:
        from sweepfw.core.model import Outcome, Receipt

        self.show(view, ended=True)
        self._log.close()
        outcome = Outcome(
            attempt.state,
            attempt.reason,
            attempt.exit_code,
            attempt.ended or 0.0,
            attempt.metrics,
            attempt.outcome,
        )
        [trial] = self._site.ledger.trials(self.grant.uid, numbers=[attempt.trial])
        receipt = Receipt(recorded=True, accepted=attempt.accepted, trial_state=trial.state)
        tail = b""
        if attempt.state == "failed" and not view.wants_output:
            tail = self._site.tail(self._sweep, attempt.trial, attempt.number, printed(attempt.outcome))
        view.ended(self.grant, self.slot, outcome, receipt, tail)
