"""A bell: threads wait for it, others ring it; no ring between a look and a wait is missed."""

from __future__ import annotations

import threading


class Bell:
    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0
        self._broken = False

    @property
    def rings(self) -> int:
        """How often it rang: to be read before one looks at what it rings for."""
        return self._rings

    def ring(self) -> None:
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float) -> bool:
        """Whether it rang since `seen`, at the latest after so many seconds. At once after `end`."""
        with self._condition:
            self._condition.wait_for(lambda: self._rings != seen or self._broken, max(0.0, seconds))
            return self._rings != seen and not self._broken

    @property
    def ended(self) -> bool:
        return self._broken

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._condition:
            self._broken = True
            self._condition.notify_all()
