"""`attach`: follow a sweep that another process runs, as if it ran here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import sweep_names

if TYPE_CHECKING:
    from typing import Any

    from sweepfw.cli.progress import Quiet
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Attempt, Sweep
    from sweepfw.ledger.interface import Ledger

PAUSE = 0.2  # seconds between two looks


@click.command()
@click.argument("sweep", shell_complete=sweep_names)
@options.logs
@click.option("--quiet", "-q", is_flag=True, help="Print the leaderboard only, at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object a line.")
def attach(sweep: str, logs: Any, quiet: bool, as_json: bool) -> int:
    """Follow SWEEP while another process runs it. Ctrl-C leaves it; the sweep goes on.

    The exit code is the one that `run` would give.
    """
    from sweepfw.cli.execute import INTERRUPTED, exit_code, summarise
    from sweepfw.cli.progress import Events, listener
    from sweepfw.core.naming import parse_target
    from sweepfw.engine.lock import SweepLock

    place = options.workspace()
    ledger = options.existing(place)
    found = ledger.sweep(parse_target(sweep, trial=False).sweep)
    view = listener(quiet=quiet, as_json=as_json, logs=logs)
    if SweepLock.held(place, found.uid):
        try:
            _follow(place, ledger, found, view)
        except KeyboardInterrupt:
            view.close()
            click.echo(f"left {found.name}; it goes on. To stop it: sweepfw stop {found.name}", err=True)
            return INTERRUPTED
        view.close()
    final = ledger.sweep(found.uid)
    if isinstance(view, Events):
        view.finish(final)
    else:
        summarise(ledger, final, quiet=quiet)
    return exit_code(final)


def _follow(place: Workspace, ledger: Ledger, sweep: Sweep, view: Quiet) -> None:
    from sweepfw.engine.lock import SweepLock

    cursor, _ = ledger.ended_since(sweep.uid, 0)
    running = {attempt.token: _Followed(place, sweep, attempt) for attempt in ledger.running(sweep.uid)}
    view.begin(sweep, len(running) or 1)
    view.note(f"following {sweep.name}; Ctrl-C leaves it, and it goes on")
    seen = 0
    live = True
    while live:
        live = SweepLock.held(place, sweep.uid)  # asked first: what ended before it is seen below
        changed = ledger.changed() != seen
        if changed or not live:
            seen = ledger.changed()
            for attempt in ledger.running(sweep.uid):
                if attempt.token not in running:
                    running[attempt.token] = followed = _Followed(place, sweep, attempt)
                    view.started(followed.grant, followed.slot)
        for followed in running.values():
            followed.show(view)
        cursor, ended = ledger.ended_since(sweep.uid, cursor)
        for attempt in ended:
            followed = running.get(attempt.token) or _Followed(place, sweep, attempt)
            followed.end(ledger, view, attempt)
            running.pop(attempt.token, None)
        view.tick(ledger.sweep(sweep.uid) if changed else None)
        if live:
            time.sleep(PAUSE)


class _Followed:
    """One attempt that runs elsewhere, as the views know attempts."""

    def __init__(self, place: Workspace, sweep: Sweep, attempt: Attempt) -> None:
        from sweepfw.core.model import Grant
        from sweepfw.trial.attempt import Slot
        from sweepfw.trial.output import Reports

        self.grant = Grant(
            sweep.name, sweep.uid, attempt.trial, attempt.number, attempt.token, {}, 1, attempt.snapshot
        )
        self.slot = Slot(attempt.slot, attempt.host, 1)
        self._data = b""
        self._reports = Reports(
            str(place.attempt(sweep.name, attempt.trial, attempt.number)),
            (),
            self._add,
            sweep.spec.log_limit,
            keep=False,
        )

    def _add(self, data: bytes) -> None:
        self._data += data

    def show(self, view: Quiet) -> None:
        if view.wants_output:
            self._reports.look()
            if self._data:
                view.output(self.grant, self._data)
                self._data = b""

    def end(self, ledger: Ledger, view: Quiet, attempt: Attempt) -> None:
        from sweepfw.core.model import Outcome, Receipt

        self.show(view)
        outcome = Outcome(
            attempt.state,
            attempt.reason,
            attempt.exit_code,
            attempt.ended or 0.0,
            attempt.metrics,
            attempt.outcome,
        )
        [trial] = ledger.trials(self.grant.uid, numbers=[attempt.trial])
        receipt = Receipt(recorded=True, accepted=attempt.accepted, trial_state=trial.state)
        tail = self._reports.tail() if attempt.state == "failed" else b""
        view.ended(self.grant, self.slot, outcome, receipt, tail)
