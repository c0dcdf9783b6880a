"""What people and programs see while a sweep runs: a progress line, plain lines, events, or nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TextIO

from sweepfw.cli.outlet import MOST, piece, show, takes
from sweepfw.cli.stream import Lines, last_lines
from sweepfw.cli.terminal import Screen, bare, cut, safe
from sweepfw.cli.words import duration, number, size
from sweepfw.core.model import Grant, Outcome, Receipt, Sweep
from sweepfw.core.values import typed
from sweepfw.trial.attempt import Slot

Logs = Literal["all", "failed", "none"]
FEW_SLOTS = 4  # up to so many at once, people can read what each prints


class Tally:
    """How many trials stand where, from what was so at the start and what ended since."""

    def __init__(self, sweep: Sweep, clock: Callable[[], float]) -> None:
        self.counts = Counter({state: n for state, n in sweep.counts.items() if n})
        self.total = sweep.total
        self._clock, self._begun, self._ended = clock, clock(), 0

    def started(self) -> None:
        self.counts["queued"] -= 1
        self.counts["running"] += 1

    def ended(self, state: str) -> None:
        self.counts["running"] -= 1
        self.counts[state] += 1
        self._ended += state in ("succeeded", "failed", "cancelled")

    def recount(self, sweep: Sweep) -> None:
        """The ledger was changed by others: extended, stopped, queued again."""
        self.counts = Counter(dict(sweep.counts))
        self.total = sweep.total

    @property
    def left(self) -> int:
        return self.counts["queued"] + self.counts["running"] + self.counts["held"]

    def to_go(self) -> float | None:
        """Seconds until all is done at the pace of this run; None before the first end."""
        if not self._ended:
            return None
        return (self._clock() - self._begun) / self._ended * self.left


class Quiet:
    """Shows nothing while it runs."""

    wants_output = False
    shows_hosts = False  # before each line, as where trials run on several

    def begin(self, sweep: Sweep, slots: int) -> None: ...
    def joined(self, grant: Grant, slot: Slot) -> None:
        """An attempt that ran already when we began."""

    def started(self, grant: Grant, slot: Slot) -> None: ...
    def output(self, grant: Grant, data: bytes) -> None: ...
    def ended(self, grant: Grant, slot: Slot, outcome: Outcome, receipt: Receipt, tail: bytes) -> None: ...
    def note(self, text: str) -> None: ...
    def tick(self, sweep: Sweep | None = None) -> None: ...
    def close(self, *, wait: bool = True) -> None: ...


class Plain(Quiet):
    """A line for each trial's end, and the trials' output with the trial before it."""

    def __init__(
        self, logs: Logs | None, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logs, self._out, self._clock = logs, out or sys.stdout, clock
        self._lock = threading.Lock()
        self._lines: dict[str, Lines] = {}
        self._buffer: list[str] = []
        self._hosts: dict[str, str] = {}  # token -> where the attempt runs
        self._warned = False  # of files that are not kept; once is enough
        self._screen = Screen()

    def begin(self, sweep: Sweep, slots: int) -> None:
        self.tally = Tally(sweep, self._clock)
        self._margin = len(str(sweep.total))
        self._widest = 0  # the longest name of a host so far
        logs = self._logs or ("all" if slots <= FEW_SLOTS else "failed")
        self._tails, self.wants_output = logs != "none", logs == "all"

    def joined(self, grant: Grant, slot: Slot) -> None:
        with self._lock:
            self._hosts[grant.token] = slot.host

    def started(self, grant: Grant, slot: Slot) -> None:
        with self._lock:
            self.tally.started()
            self._hosts[grant.token] = slot.host

    def output(self, grant: Grant, data: bytes) -> None:
        if not self.wants_output:
            return
        with self._lock:
            lines = self._lines.setdefault(grant.token, Lines())
            self._add(grant, lines.feed(data))

    def ended(self, grant: Grant, slot: Slot, outcome: Outcome, receipt: Receipt, tail: bytes) -> None:
        with self._lock:
            self._hosts[grant.token] = slot.host
            if lines := self._lines.pop(grant.token, None):
                self._add(grant, lines.end())
            elif outcome.state == "failed" and self._tails and not self.wants_output:
                self._add(grant, last_lines(tail))
            self.tally.ended(receipt.trial_state)
            self._buffer.append(self._told(grant, outcome, receipt))
            del self._hosts[grant.token]
            if outcome.details.get("left") and not self._warned:
                self._warned = True
                self._buffer.append(_left(outcome.details))

    def note(self, text: str) -> None:
        with self._lock:
            self._buffer.append(safe(text))
            self._draw()  # nobody calls `tick` while an environment is built

    def tick(self, sweep: Sweep | None = None) -> None:
        with self._lock:
            if sweep:
                self.tally.recount(sweep)
            self._draw()

    def close(self, *, wait: bool = True) -> None:
        with self._lock:
            self._draw(wait=wait)

    def _draw(self, *, wait: bool = False) -> None:
        """Show what is new, as far as the reader takes it; with `wait` all of it."""
        while self._buffer and (wait or len(self._buffer) > MOST or takes(self._out)):
            show(self._out, "".join(f"{line}\n" for line in piece(self._buffer)))

    def _host(self, grant: Grant) -> str:
        """The host in a column of its own, where there are several."""
        if not self.shows_hosts:
            return ""
        host = safe(self._hosts.get(grant.token, ""))
        self._widest = max(self._widest, len(host))
        return f"{host:<{self._widest}}  "

    def _add(self, grant: Grant, lines: Iterable[str]) -> None:
        prefix = self._screen.paint(f"{self._host(grant)}{grant.trial:>{self._margin}} |", "dim")
        self._buffer.extend(f"{prefix} {safe(bare(line).expandtabs())}" for line in lines)

    def _told(self, grant: Grant, outcome: Outcome, receipt: Receipt) -> str:
        word = self._screen.paint(outcome.state)
        reason = f": {outcome.reason}" if outcome.reason else ""
        seconds = outcome.details.get("seconds")
        took = f" after {duration(seconds)}" if isinstance(seconds, (int, float)) else ""
        told = ", ".join(f"{name} {number(m.last)}" for name, m in list(outcome.metrics.items())[:4])
        again = "; queued again" if receipt.trial_state == "queued" else ""
        return f"{self._host(grant)}{grant.sweep}/{grant.trial} {word}{safe(reason)}{took}{again}" + (
            f"  {safe(told)}" if told else ""
        )


def _left(details: Mapping[str, Any]) -> str:
    files = [f"{path} ({size(count)})" for path, count in details["left"][:3]]
    more = details.get("left_count", 0) - len(files)
    named = ", ".join(files) + (f" and {more} more" if more > 0 else "")
    return safe(f"warning: new files are not kept: {named}; name them under `outputs:` in project.yml")


class Bar(Plain):
    """Plain lines above one line that tells how far it is, drawn anew."""

    _drawn: str | None = None  # the last line; before `begin` there is none

    def begin(self, sweep: Sweep, slots: int) -> None:
        super().begin(sweep, slots)
        self._name, self._drawn, self._screen = sweep.name, "", Screen.of(self._out)

    def _draw(self, *, wait: bool = False) -> None:
        if self._drawn is None:
            return super()._draw(wait=wait)
        line = self._line()
        while (self._buffer or line != self._drawn) and (
            wait or len(self._buffer) > MOST or takes(self._out)
        ):
            above = "".join(f"{text}\n" for text in piece(self._buffer))
            self._drawn = "" if self._buffer else line
            show(self._out, f"\r\x1b[K{above}{self._drawn}")
        return None

    def close(self, *, wait: bool = True) -> None:
        super().close(wait=wait)
        with self._lock:
            if self._drawn and (wait or takes(self._out)):
                show(self._out, "\r\x1b[K")

    def _line(self) -> str:
        tally, counts = self.tally, self.tally.counts
        done = tally.total - tally.left
        words = [f"{done}/{tally.total}", f"{counts['running']} running"]
        failed = f"{counts['failed']} failed" if counts["failed"] else ""
        words += [failed] if failed else []
        words += [f"{waiting} left"] if (waiting := tally.left - counts["running"]) > 0 else []
        if (seconds := tally.to_go()) is not None and tally.left:
            words.append(f"about {duration(seconds)} to go")
        columns = self._screen.width or 80
        size = min(24, max(0, columns - 60))
        full = size * done // max(1, tally.total)
        line = cut(f"{self._name} {'█' * full}{'░' * (size - full)} " + "  ".join(words), columns - 1)
        return line.replace(failed, self._screen.paint(failed, "red"), 1) if failed else line


class Events(Quiet):
    """One JSON object a line, for programs."""

    def __init__(self, logs: Logs | None, out: TextIO | None = None) -> None:
        self._out, self.wants_output = out or sys.stdout, logs == "all"
        self._lock = threading.Lock()
        self._lines: dict[str, Lines] = {}

    def begin(self, sweep: Sweep, slots: int) -> None:
        self._say("begin", sweep=sweep.name, trials=sweep.total, counts=dict(sweep.counts), slots=slots)

    def started(self, grant: Grant, slot: Slot) -> None:
        params = {name: typed(value) for name, value in grant.params.items()}
        self._say("started", **_who(grant, slot), params=params)

    def output(self, grant: Grant, data: bytes) -> None:
        with self._lock:
            lines = list(self._lines.setdefault(grant.token, Lines()).feed(data))
        for line in lines:
            self._say("output", trial=grant.trial, attempt=grant.attempt, line=line)

    def ended(self, grant: Grant, slot: Slot, outcome: Outcome, receipt: Receipt, tail: bytes) -> None:
        from sweepfw.cli.records import number as finite

        if lines := self._lines.pop(grant.token, None):
            for line in lines.end():
                self._say("output", trial=grant.trial, attempt=grant.attempt, line=line)
        self._say(
            "ended",
            **_who(grant, slot),
            state=outcome.state,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            metrics={name: finite(metric.last) for name, metric in outcome.metrics.items()},
            trial_state=receipt.trial_state,
        )

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def finish(self, sweep: Sweep) -> None:
        self._say("end", sweep=sweep.name, state=sweep.state, reason=sweep.reason, counts=dict(sweep.counts))

    def _say(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, **facts})
        with self._lock:
            show(self._out, line + "\n")


def _who(grant: Grant, slot: Slot) -> dict[str, Any]:
    return {
        "sweep": grant.sweep,
        "trial": grant.trial,
        "attempt": grant.attempt,
        "host": slot.host,
        "slot": slot.name,
    }


def listener(*, quiet: bool, as_json: bool, logs: Logs | None) -> Quiet:
    """The one that fits the options and the terminal."""
    if as_json:
        return Events(logs)
    if quiet:
        return Quiet()
    return Bar(logs) if sys.stdout.isatty() else Plain(logs)
