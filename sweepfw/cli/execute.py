"""Run a sweep that is in the ledger, show it, and end with its exit code. For all verbs that run trials."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from sweepfw import modes
from sweepfw.cli.outlet import show
from sweepfw.cli.progress import Events, Quiet, listener
from sweepfw.engine.session import Session
from sweepfw.errors import StoppedError, SweepError
from sweepfw.trial.guard.reap import kill_children

if TYPE_CHECKING:
    from sweepfw.cli.options import Running
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.secrets import Secrets
    from sweepfw.engine.lock import SweepLock
    from sweepfw.ledger.interface import Ledger
    from sweepfw.trial.guard.client import Guardian

INTERRUPTED = 130
# This very sweepfw, while the user's folder (which may hold a random.py) stays out of the way of imports.
_BOOT = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); import sweepfw; sys.path.pop(0); "
    "from sweepfw.cli.main import main; main()"
)


def execute(
    place: Workspace,
    ledger: Ledger,
    sweep: Sweep,
    lock: SweepLock,
    guardian: Guardian,
    how: Running,
    *,
    only: Collection[int] | None = None,
    secrets: Secrets | None = None,
) -> int:
    """Work on the sweep until nothing is left; the exit code of `run`."""
    view = listener(quiet=how.quiet, as_json=how.as_json, logs=how.logs)
    session = Session(
        place,
        ledger,
        sweep,
        lock,
        guardian,
        view,
        jobs=how.jobs,
        only=only,
        fail_fast=how.fail_fast,
        secrets=secrets,
    )
    failure: SweepError | None = None
    with _interrupts(session, view) as signals:
        try:
            session.run(view.begin, lambda: _tick(view, session))
        except KeyboardInterrupt:
            pass  # before the first trial
        except SweepError as error:
            failure = error
        finally:
            end(guardian)
            view.close(wait=len(signals) < 2)
    final = ledger.sweep(sweep.uid)
    if isinstance(view, Events):
        view.finish(final)
    else:
        summarise(ledger, final, quiet=how.quiet)
    if failure and not signals:
        raise failure
    return INTERRUPTED if signals else exit_code(final, only)


def end(guardian: Guardian) -> None:
    """No process of a trial is left, nor one of ours that asked for GPUs and got no answer."""
    guardian.close()
    kill_children(seconds=1)


def _tick(view: Quiet, session: Session) -> None:
    view.tick(session.news())


def exit_code(sweep: Sweep, only: Collection[int] | None = None) -> int:
    """0 all succeeded, 1 some failed, 3 stopped or paused: also where single trials were cancelled."""
    if sweep.state in ("paused", "stopped"):
        return StoppedError.exit_code
    if sweep.counts.get("failed"):
        return 1
    left = 0 if only else sweep.counts.get("queued", 0) + sweep.counts.get("held", 0)
    return StoppedError.exit_code if left or sweep.counts.get("cancelled") else 0


@contextmanager
def _interrupts(session: Session, view: Quiet) -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP end the run in order; a second one ends it at once."""
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)
        session.interrupts = len(heard)
        if not session.working:
            raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: list[Callable[[int, FrameType | None], object] | int | None] = [
        signal.signal(k, hear) for k in kinds
    ]
    try:
        yield heard
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)


def summarise(ledger: Ledger, sweep: Sweep, *, quiet: bool) -> None:
    """The leaderboard, what failed, and what to type next."""
    lines = _leaderboard(ledger, sweep)
    if not quiet:
        lines += [""] * bool(lines) + _words(ledger, sweep)
    if lines:
        show(sys.stdout, "\n".join([*lines, ""]))


def _leaderboard(ledger: Ledger, sweep: Sweep) -> list[str]:
    if not sweep.spec.objective or not sweep.counts.get("succeeded"):
        return []
    from sweepfw.cli.render import leaderboard
    from sweepfw.cli.terminal import Screen
    from sweepfw.core.ranking import rank

    trials = ledger.trials(sweep.uid, states=["succeeded"])
    return leaderboard(rank(sweep, trials, sweep.spec.objective), screen=Screen.of(sys.stdout))


def _words(ledger: Ledger, sweep: Sweep) -> list[str]:
    from sweepfw.cli.terminal import safe
    from sweepfw.cli.words import ranges

    told = ", ".join(f"{n:,} {state}" for state, n in sweep.counts.items() if n)
    reason = f" ({safe(sweep.reason)})" if sweep.reason else ""
    lines = [f"{sweep.name} is {sweep.state}{reason}: {told}"]
    if sweep.counts.get("failed"):
        reasons: dict[str, list[int]] = {}
        for trial in ledger.trials(sweep.uid, states=["failed"]):
            reasons.setdefault(trial.reason, []).append(trial.number)
        lines += [f"  {safe(why)}: {ranges(numbers)}" for why, numbers in reasons.items()]
        lines.append(
            f"again: sweepfw retry {sweep.name}    look: sweepfw logs {sweep.name}/{min(reasons.values())[0]}"
        )
    if sweep.counts.get("queued") or sweep.state == "paused":
        lines.append(f"to go on: sweepfw resume {sweep.name}")
    elif sweep.counts.get("cancelled"):
        lines.append(f"to run the cancelled too: sweepfw resume {sweep.name} --cancelled")
    elif not sweep.counts.get("failed"):
        lines.append(f"all about it: sweepfw show {sweep.name}")
    return lines


def detach(place: Workspace, sweep: Sweep, how: Running, only: str | None = None) -> int:
    """Let another process run the sweep, in a session of its own, and say how to follow it."""
    import subprocess
    import time

    from sweepfw.engine.lock import SweepLock

    words = [sys.executable, "-P", "-c", _BOOT, "resume", sweep.name, *how.arguments()]
    words += ["--only", only] if only else []
    log = place.run(sweep.name) / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=place.root,
            umask=modes.users(),
        )
    deadline = time.monotonic() + 10
    while process.poll() is None and not SweepLock.held(place, sweep.uid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll():
        raise StoppedError(f"{sweep.name} did not start in the background; {log} tells why")
    if not how.quiet and not how.as_json:
        click.echo(f"{sweep.name} runs in the background; follow it with: sweepfw attach {sweep.name}")
    elif how.as_json:
        import json

        click.echo(json.dumps({"event": "detached", "sweep": sweep.name}))
    return 0
