"""What a keeper hears: orders from its client, and whether client and guardian still live."""

from __future__ import annotations

import select

from sweepfw.trial.guard.wire import Wire

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import Any


class Abandoned(Exception):  # noqa: N818  # it says what happened
    """The client or the guardian is gone: kill what runs, and end."""


class Orders:
    """One poll over the client's wire, the guardian's pipe and, while a trial runs, its descriptors."""

    def __init__(self, wire: Wire, guardian: int) -> None:
        self._wire = wire
        self._guardian = guardian
        self._poll = select.poll()
        self._poll.register(wire.fileno(), select.POLLIN)
        self._poll.register(guardian, 0)  # its end closes the pipe; nothing is ever written
        self._messages: list[Any] = []
        self.abandoned = False

    def watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        self._poll.unregister(fd)

    def wait(self, seconds: float | None) -> set[int]:
        """Wait until something happened; the watched descriptors that are ready. Never raises."""
        ready = set()
        for fd, _ in self._poll.poll(None if seconds is None else int(seconds * 1000 + 0.999)):
            if fd == self._guardian:
                self._end()
            elif fd == self._wire.fileno():
                self._listen()
            else:
                ready.add(fd)
        return ready

    def _listen(self) -> None:
        try:
            self._messages += self._wire.receive()
        except EOFError:
            self._end()

    def _end(self) -> None:
        if not self.abandoned:
            self.abandoned = True
            self._poll.unregister(self._wire.fileno())
            self._poll.unregister(self._guardian)

    def check(self) -> None:
        """Break off a long piece of work when nobody wants it any more. Raises Abandoned."""
        self.wait(0)
        if self.abandoned:
            raise Abandoned

    def next(self) -> Any | None:
        """The next message, if one has come."""
        return self._messages.pop(0) if self._messages else None

    def stop_for(self, seq: int) -> tuple[str, float] | None:
        """The client's wish to stop this trial: why, and the shortest grace asked for, in seconds.

        Stops of trials that ended already, which crossed our news of it, are dropped.
        """
        if not self._messages:
            return None
        stops = [message for message in self._messages if message[0] == "stop"]
        ours = [(why, grace) for _, meant, why, grace in stops if meant == seq]
        self._messages = [message for message in self._messages if message not in stops]
        return (ours[0][0], min(grace for _, grace in ours)) if ours else None
