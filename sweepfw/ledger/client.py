"""The ledger's second door, from outside: HTTP over TLS, to a service whose certificate is pinned."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class Client:
    """Calls to one service, from any number of threads; each keeps a connection of its own.

    `connect` gives a connected stream socket: TCP, or one end of a socketpair whose other is ssh's. The
    service must show exactly `certificate` (PEM) before anything is sent. People's calls raise
    UnreachableError, which names `place`, after `patience` seconds without an answer; with patience None
    (workers) they are made again until there is one, or `closing` is set (then UnreachableError too).
    `notice` is told one line when the service is lost, and one when it is back.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        certificate: str,
        token: str,
        *,
        place: str = "the head",
        patience: float | None = 15,
        closing: threading.Event | None = None,
        notice: Callable[[str], None] = lambda line: None,
    ) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections; again does nothing."""


class HttpLedger:
    """`interface.Ledger` over the client; all methods of it."""

    def __init__(self, client: Client) -> None:
        raise NotImplementedError


class HttpDesk:
    """`desk.Desk` over the client; all methods of it."""

    def __init__(self, client: Client) -> None:
        raise NotImplementedError
