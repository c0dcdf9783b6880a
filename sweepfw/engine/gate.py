"""Who may run beside whom: trials run together, but one under suspicion runs alone."""

from __future__ import annotations

import threading


class Gate:
    """Shared by default; `enter_alone` waits until all others have left and keeps new ones out."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0  # who wants to be alone goes before those who come later

    def enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1

    def enter_alone(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True

    def leave(self) -> None:
        with self._changed:
            if self._alone:
                self._alone = False
            else:
                self._inside -= 1
            self._changed.notify_all()
