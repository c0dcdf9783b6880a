"""Calls to a service, made again until they are answered, and done once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from sweepfw import errors
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.ledger.wire import packs
from sweepfw.ledger.wire.connection import (
    Connection,
    Reply,
    Request,
    WrongCertificateError,
    der,
    tls_context,
)
from sweepfw.ledger.wire.framing import MalformedError
from sweepfw.ledger.wire.methods import METHODS, Method

_PATIENCE = 15.0
_SLOW = 600.0  # more, for answers that take the head a while
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_CLOSED = "the connection to it was closed"
_HELLO = Request("GET", "/")
_CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SweepError)
}


class Client:
    """Calls to one service, from any number of threads; a connection for each call that is under way.

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
        patience: float | None = _PATIENCE,
        closing: threading.Event | None = None,
        notice: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._connect = connect
        self._pinned, self._context = der(certificate), tls_context()
        self._fields = f"Host: head\r\nAuthorization: Bearer {token}\r\n"
        self._place, self._patience, self._notice = place, patience, notice
        self._closing = closing or threading.Event()
        self._closed = self._lost = False
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    def close(self) -> None:
        """Close all connections, also under calls that wait or connect; again does nothing. Calls raise
        UnreachableError from now on."""
        with self._lock:
            self._closed = True
            for connection in self._busy:
                connection.shut()
        self._drop_idle()

    def hello(self) -> str:
        """The id of the service that answers: another one after each start."""
        return self._ask(_HELLO).service

    def call(self, path: str, /, *, body: bytes | IO[bytes] | None = None, **arguments: Any) -> Any:
        """Make the call and return its answer; the service's SweepErrors are raised as if they were ours."""
        method = METHODS[path]
        reply = self._ask(_request(path, method, arguments, body))
        try:
            return method.gives.load(json.loads(reply.data))
        except (ValueError, TypeError, KeyError) as error:
            raise SweepError(
                f"{self._place}: it answered in words of another version ({error}); run: sweepfw infra up"
            ) from error

    def stream(self, path: str, /, **arguments: Any) -> Iterator[bytes] | None:
        """The answer in pieces, once all of it has come. None where there is nothing."""
        reply = self._ask(_request(path, METHODS[path], arguments, None))
        return None if reply.stream is None else packs.read_and_close(reply.stream)

    # -- asking until there is an answer

    def _ask(self, request: Request) -> Reply:
        began, deadline, pause, asked = time.monotonic(), None, _FIRST_PAUSE, ""
        while True:
            try:
                connection = self._take()
                asked = self._first_asked(connection, request) if request.id and not asked else asked
                reply = self._exchange(connection, request, asked)
            except _SilenceError as silence:
                why: Exception = silence
                deadline = deadline or self._deadline(began, request)
            else:
                if reply.status < 400:
                    self._found()
                    return reply
                why = _error(reply)
                if reply.status != 503 or self._patience is not None:
                    raise why
            self._wait(pause, deadline, str(why))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _deadline(self, began: float, request: Request) -> float | None:
        """Until when it is asked again, after it failed for the first time: long enough for another try."""
        if self._patience is None:
            return None
        again = self._patience if request.id else min(2, self._patience)
        return max(began + self._patience, time.monotonic() + again)

    def _wait(self, pause: float, deadline: float | None, why: str) -> None:
        late = deadline is not None and time.monotonic() + pause > deadline
        if late or self._closed or self._closing.is_set():
            raise UnreachableError(f"{self._place}: {why}; look with: sweepfw infra status")
        with self._lock:
            lost, self._lost = self._lost, True
        if not lost:
            self._notice(f"{self._place}: {why}; it is asked again until it answers")
        self._closing.wait(pause)

    def _found(self) -> None:
        if self._lost:
            with self._lock:
                lost, self._lost = self._lost, False
            if lost:
                self._notice(f"{self._place}: it answers again")

    def _first_asked(self, connection: Connection, request: Request) -> str:
        """The service that gets the request first. Only that one knows whether it did it already."""
        if not connection.service:
            reply = self._exchange(connection, _HELLO, "", keep=True)
            if reply.status >= 400:
                raise _error(reply)
        return connection.service

    # -- connections

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise _SilenceError(_CLOSED)
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._busy.add(connection)
            if connection is None:
                return self._made()
            if not connection.stale():
                return connection
            self._drop(connection)

    def _made(self) -> Connection:
        try:
            connection = Connection(self._connect(), self._context, self._pinned, self._patience or _PATIENCE)
        except OSError as error:
            raise _SilenceError(f"can't be reached ({_words(error)})") from error
        except (WrongCertificateError, UnreachableError) as error:
            why = str(error) or "another certificate than the deployment's is shown there; nothing was sent"
            if self._patience is None:
                raise _SilenceError(why) from None
            raise UnreachableError(str(error) or f"{self._place}: {why}") from None
        with self._lock:
            if not self._closed:
                self._busy.add(connection)
                return connection
        connection.close()  # `close` did not know of it
        raise _SilenceError(_CLOSED)

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _exchange(self, connection: Connection, request: Request, asked: str, *, keep: bool = False) -> Reply:
        """The connection goes back to the others afterwards, or is closed where it failed."""
        fields = self._fields
        if request.id:
            fields += f"Sweepfw-Request: {request.id}\r\nSweepfw-Service: {asked}\r\n"
        try:
            return connection.exchange(request, fields, (self._patience or _PATIENCE) + request.more)
        except (OSError, MalformedError) as error:
            self._drop_idle()  # they went the same way: else each would cost another wait
            raise _SilenceError(f"does not answer ({_words(error)})") from error
        finally:
            if not connection.usable or self._closed:
                self._drop(connection)
            elif not keep:
                with self._lock:
                    self._busy.discard(connection)
                    self._idle.append(connection)


class _SilenceError(Exception):
    """Nobody answered. It is asked again."""


def _request(path: str, method: Method, arguments: dict[str, Any], body: bytes | IO[bytes] | None) -> Request:
    more, told = _SLOW if method.slow else arguments.get("wait", 0), ""
    if method.body[0] != "drafts":  # which hold the arguments themselves
        data = {name: form.dump(arguments[name]) for name, form in method.takes.items()}
        told = json.dumps(data, separators=(",", ":"))
    if body is None:
        return Request("POST", "/" + path, told.encode(), more=more, once=method.once, stream=method.stream)
    return Request(
        "POST",
        "/" + path,
        packs.sendable(body),
        arguments=told.replace("\x7f", "\\u007f"),
        more=more,
        once=method.once,
    )


def _error(reply: Reply) -> Exception:
    try:
        told = json.loads(reply.data)
        kind, text = str(told["kind"]), str(told["error"])
    except (ValueError, TypeError, KeyError):
        return UnreachableError(f"the head answered with an error that says nothing ({reply.status})")
    return ValueError(text) if kind == "ValueError" else _CLASSES.get(kind, SweepError)(text)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
