"""The steps of `up` as people see them: a line for each that ended, on a terminal one for those that run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from sweepfw.cli.terminal import Screen, bare, cut, safe
from sweepfw.cli.words import duration

if TYPE_CHECKING:
    from sweepfw.fleet.plan import Step

_LONG = 10.0  # seconds; without a terminal, a step that takes longer is told of while it runs


class Board:
    """See fleet.apply.Progress. Safe to call from several threads."""

    def __init__(
        self, steps: Sequence[Step], out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._clock = out or sys.stdout, clock
        self._screen = Screen.of(self._out)
        self._width = max((len(step.host) for step in steps), default=0)
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Step, float, str]] = {}
        self._told: set[str] = set()
        self._shown = False  # whether the terminal's last line is ours

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._clear()
            self._out.flush()

    def __call__(
        self, step: Step, state: Literal["begun", "detail", "done", "failed"], detail: str = ""
    ) -> None:
        with self._lock:
            now = self._clock()
            if state in ("begun", "detail"):
                begun = self._running[step.id][1] if step.id in self._running else now
                self._running[step.id] = (step, begun, _short(detail) or self._detail(step.id))
                self._tell_long(step, now - begun)
            else:
                _, begun, _ = self._running.pop(step.id)
                self._print(step, state, now - begun)
            self._redraw()

    def _detail(self, id: str) -> str:
        return self._running[id][2] if id in self._running else ""

    def _print(self, step: Step, state: str, seconds: float) -> None:
        self._clear()
        good = state == "done"
        sign = self._screen.paint("✓" if good else "✗", "green" if good else "red")
        took = f"  {duration(seconds)}" if seconds >= 1 else ""
        self._out.write(f"{sign} {step.host.ljust(self._width)}  {safe(step.what)}{took}\n")

    def _tell_long(self, step: Step, seconds: float) -> None:
        if self._screen.width is None and seconds > _LONG and step.id not in self._told:
            self._told.add(step.id)
            self._out.write(f"  {step.host.ljust(self._width)}  {safe(step.what)} ...\n")
            self._out.flush()

    def _redraw(self) -> None:
        if self._screen.width is None:
            self._out.flush()
            return
        self._clear()
        parts = [
            f"{step.host}: {step.what}{f' ({detail})' if detail else ''}"
            for step, _, detail in self._running.values()
        ]
        if parts:
            line = cut(safe("… " + " · ".join(parts)), self._screen.width - 1)
            self._out.write(self._screen.paint(line, "dim"))
            self._shown = True
        self._out.flush()

    def _clear(self) -> None:
        if self._shown:
            self._out.write("\r\x1b[2K")
            self._shown = False


def _short(detail: str) -> str:
    """The gist of a line of a build's output."""
    return " ".join(bare(detail).split())[:80]
