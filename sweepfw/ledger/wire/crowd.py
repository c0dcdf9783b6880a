"""The connections that are open: how many there may be, and who gives way to whom.

Whoever reaches the service's address can open connections, and whoever has a token can keep them. Neither may
take the place of others. Where too many have shown no token yet, the one that came first is let go: who has
one shows it within a moment. And each caller has a number of its own, of which the longest idle is let go.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from sweepfw.ledger.wire.access import Caller
from sweepfw.ledger.wire.framing import BrokenError

NEWCOMERS = 500  # connections on which no token was shown yet
EACH = 500  # of one caller

_Place: TypeAlias = dict[socket.socket, bool]  # whether a call is under way, the longest idle first


class Crowd:
    """Safe from many threads. What is let go is shut; the thread that serves it sees that and ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._places: dict[Caller | None, _Place] = {None: {}}  # None: newcomers
        self._callers: dict[socket.socket, Caller | None] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._callers)

    @contextmanager
    def held(self, connection: socket.socket) -> Iterator[None]:
        """It is a newcomer, and open, until this ends. BrokenError where there are to be no more."""
        with self._lock:
            self._check_open()
            newcomers = self._places[None]
            if len(newcomers) >= NEWCOMERS:
                self._let_go(newcomers)
            self._enter(connection, None, busy=False)
        try:
            yield
        finally:
            with self._lock:
                self._leave(connection)

    def is_new(self, connection: socket.socket) -> bool:
        return self._callers.get(connection) is None

    def busy(self, connection: socket.socket, caller: Caller) -> bool:
        """The caller has a call under way there; False where it has too many already."""
        with self._lock:
            place = self._places.setdefault(caller, {})
            if connection not in place and len(place) >= EACH and not self._let_go(place):
                return False
            self._enter(connection, caller, busy=True)
            return True

    def idle(self, connection: socket.socket) -> None:
        """Its call was answered. BrokenError where there are to be no more."""
        with self._lock:
            self._check_open()
            self._enter(connection, self._callers[connection], busy=False)

    def make_room(self) -> None:
        """No more can be opened at all: let a newcomer go."""
        with self._lock:
            self._let_go(self._places[None])

    def shut(self, *, idle_only: bool) -> bool:
        """Let go of all; nothing goes on after its call. Whether there are calls under way that are left to
        end."""
        with self._lock:
            self._closing = True
            places = [item for place in self._places.values() for item in place.items()]
            for connection, busy in places:
                if not (busy and idle_only):
                    shut(connection, socket.SHUT_RDWR)
            return idle_only and any(busy for _, busy in places)

    # -- with the lock held ----------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closing:
            raise BrokenError("the service stops")

    def _enter(self, connection: socket.socket, caller: Caller | None, *, busy: bool) -> None:
        self._leave(connection)
        self._places[caller][connection] = busy
        self._callers[connection] = caller

    def _leave(self, connection: socket.socket) -> None:
        if connection in self._callers:
            self._places[self._callers.pop(connection)].pop(connection)

    def _let_go(self, place: _Place) -> bool:
        """The longest idle one, if there is one."""
        connection = next((each for each, busy in place.items() if not busy), None)
        if connection is None:
            return False
        shut(connection, socket.SHUT_RDWR)
        self._leave(connection)
        return True


def shut(connection: socket.socket, how: int) -> None:
    # Not SSLSocket's own, which lets go of TLS first: another thread would go on in plain text.
    with suppress(OSError):
        socket.socket.shutdown(connection, how)
