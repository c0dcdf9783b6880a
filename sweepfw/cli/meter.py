"""How much has come, while it comes."""

from __future__ import annotations

import sys
import threading
import time

PAUSE = 0.2  # seconds between two looks of a person


class Meter:
    """Bytes as they come, on a terminal's line of their own; nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._what, self._count, self._shown = what, 0, 0.0
        self._lock = threading.Lock()
        self._on = sys.stderr.isatty()

    def took(self, count: int) -> None:
        """Safe to call from several threads."""
        with self._lock:
            self._count += count
            if self._on and time.monotonic() - self._shown > PAUSE:
                self._shown = time.monotonic()
                self._show("")

    def _show(self, end: str) -> None:
        from sweepfw.cli.render import size

        print(f"\r{self._what}: {size(self._count)} ", end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on and self._count:
            self._show("\n")
