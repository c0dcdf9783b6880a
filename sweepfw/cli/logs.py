"""`logs`: what a trial printed, and what it prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import trial_names
from sweepfw.errors import StoppedError, SweepError

if TYPE_CHECKING:
    from sweepfw.cli.site import Printed, Site, Sites
    from sweepfw.core.model import Sweep, Trial

PAUSE = 0.1  # seconds between two looks at a log that is followed
PATIENCE = 2.0  # seconds that nobody may run a queued trial before following it ends

Write = Callable[[bytes], None]


@click.command()
@click.argument("trial", metavar="SWEEP/N", shell_complete=trial_names)
@click.option("--follow", "-f", is_flag=True, help="Go on until the trial ends, its next attempts included.")
@click.option(
    "--attempt", "-a", type=click.IntRange(min=1), metavar="K", help="Which attempt. [default: the last]"
)
@options.sites
def logs(sites: Sites, trial: str, follow: bool, attempt: int | None) -> None:
    """Print what a trial printed, byte for byte.

    On a terminal, escape sequences other than colours are left out and control characters shown.
    """
    from sweepfw.core.naming import parse_target

    target = parse_target(trial, trial=True)
    assert target.trial is not None  # parse_target saw to it
    site, sweep = sites.find(target.sweep)
    reader = Reader(site, sweep, target.trial, writer())
    if follow:
        reader.follow(attempt)
    else:
        reader.show(attempt)


def writer() -> Write:
    """Bytes as they are into a pipe or file, made safe for a terminal."""
    from sweepfw.cli.terminal import SafeOutput, Screen

    if not sys.stdout.isatty():

        def write(data: bytes) -> None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        return write
    safe = SafeOutput(Screen.of(sys.stdout))

    def write_safely(data: bytes) -> None:
        sys.stdout.write(safe.feed(data))
        sys.stdout.flush()

    return write_safely


class Reader:
    """Reads the logs of one trial's attempts."""

    def __init__(self, site: Site, sweep: Sweep, trial: int, write: Write) -> None:
        self._site, self._ledger, self._sweep, self._number = site, site.ledger, sweep, trial
        self._write = write
        self._idle_since: float | None = None

    def show(self, attempt: int | None) -> None:
        """The log as it is now."""
        trial = self._trial()
        self._check(attempt, trial)
        if not trial.attempts:
            raise SweepError(f"{self._name} has not started yet; `sweepfw logs -f {self._name}` waits for it")
        log = self._log(attempt or trial.attempts)
        running = trial.state == "running" and (attempt or trial.attempts) == trial.attempts
        while log.read(self._write, ended=not running):
            pass

    def follow(self, attempt: int | None) -> None:
        """The log as it grows, until the trial ends, or the attempt where one is named."""
        self._check(attempt, self._trial())
        current = attempt or max(1, self._trial().attempts)
        while True:
            ended = self._follow_attempt(current)
            if attempt or ended:
                return
            current += 1
            print(f"sweepfw: {self._name} begins its attempt {current}", file=sys.stderr, flush=True)

    def _follow_attempt(self, attempt: int) -> bool:
        """Whether the trial has ended with it. Returns when a next attempt has begun, too."""
        log = self._log(attempt)
        while True:
            # Asked before reading: what is printed before an end is on the disk when the ledger knows of it.
            trial = self._trial()
            over = trial.attempts > attempt or (trial.attempts == attempt and trial.state != "running")
            grew = log.read(self._write, ended=over)
            if grew:
                continue
            if trial.attempts > attempt or trial.state in ("succeeded", "failed", "cancelled"):
                return trial.attempts <= attempt
            self._check_alive(trial)
            time.sleep(PAUSE)

    def _check_alive(self, trial: Trial) -> None:
        """StoppedError where the trial waits and nobody will run it."""
        if self._site.live(self._ledger.sweep(self._sweep.uid)):
            self._idle_since = None
            return
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since > PATIENCE:
            sweep = self._sweep.name
            raise StoppedError(
                f"{self._name} has no end and nobody runs {sweep}; `sweepfw resume {sweep}` does"
            )

    def _check(self, attempt: int | None, trial: Trial) -> None:
        if attempt is not None and attempt > trial.attempts:
            raise SweepError(f"{self._name} has no attempt {attempt}; it had {trial.attempts}")

    def _trial(self) -> Trial:
        (trial,) = self._ledger.trials(self._sweep.uid, numbers=[self._number])
        return trial

    def _log(self, attempt: int) -> Printed:
        return self._site.log(self._sweep, self._number, attempt)

    @property
    def _name(self) -> str:
        return f"{self._sweep.name}/{self._number}"
