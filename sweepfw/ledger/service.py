"""The ledger's second door, from inside the head: HTTP over TLS, for workers and people with their tokens.

A thread for each connection, TLS handshake included, so that nobody waits for a slow or silent neighbour.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

from sweepfw.errors import SweepError
from sweepfw.ledger.desk import Desk
from sweepfw.ledger.wire.access import Access, Caller, may_call
from sweepfw.ledger.wire.answers import SERVICE, Answer, Answers, Call, Watched, refusal
from sweepfw.ledger.wire.crowd import Crowd, shut
from sweepfw.ledger.wire.framing import PIECE, Body, BrokenError, Channel, Head, MalformedError
from sweepfw.ledger.wire.methods import METHODS

_IDLE = 600.0  # seconds between two calls on a connection
_HEAD = 10.0  # for TLS, until the first call, and for a call's head
_BODY = 30.0  # between two bytes of a body, or of an answer that isn't taken
_LAST = 1.0  # for calls under way, at the end
_LINGER = 2.0  # for the caller to read why it was refused
_LEFT_OVER = 1_000_000  # bytes of a body that nobody wanted, read so that the connection can go on
_NAMES = ("head", "localhost")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::[0-9]{1,5})?")


class Service:
    """Serves a ledger and a desk. `people` is the command line's token, `workers` each host's own.

    A worker may only do what its host's attempts need. `report` is told one line (or a traceback) of what
    went wrong here; no secrets are in it. `address` may name port 0.
    """

    def __init__(
        self,
        ledger: Watched,
        desk: Desk,
        *,
        address: tuple[str, int],
        certificate: Path,
        key: Path,
        people: str,
        workers: Mapping[str, str],
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._answers = Answers(ledger, desk, report)
        self._access = Access(people, workers)
        self._wanted, self._certificate, self._key = address, certificate, key
        self._report = report
        self._closing = threading.Event()
        self._crowd = Crowd()
        self._listener: socket.socket | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it was started."""
        if self._listener is None:
            raise RuntimeError("the service was not started")
        host, port = self._listener.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Serve in threads of its own; SweepError where the address is taken or the certificate no good."""
        self._context = _context(self._certificate, self._key)
        self._listener = _listen(self._wanted)
        threading.Thread(target=self._accept, args=(self._listener,), name="service", daemon=True).start()

    def stop(self) -> None:
        """Answer no new calls and close all connections; what is under way gets a second. Again does
        nothing."""
        self._closing.set()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            self._listener.close()
        deadline = time.monotonic() + _LAST
        while self._crowd.shut(idle_only=time.monotonic() < deadline):
            time.sleep(0.01)

    # -- connections

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._fail(f"no connection can be accepted ({error})")  # too many open files, perhaps
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="call", daemon=True).start()
            except RuntimeError as error:  # too many threads
                connection.close()
                self._fail(f"no connection can be served ({error})")

    def _fail(self, why: str) -> None:
        if not self._closing.is_set():
            self._report(why)
            self._crowd.make_room()
            self._closing.wait(0.5)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, MalformedError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.settimeout(_HEAD)
            with self._crowd.held(connection):
                tls = self._context.wrap_socket(connection, server_side=True)
            with tls, self._crowd.held(tls):
                self._converse(tls)

    def _converse(self, tls: ssl.SSLSocket) -> None:
        channel = Channel(tls)
        while True:
            try:
                head = channel.head(_HEAD if self._crowd.is_new(tls) else _IDLE, _HEAD)
            except MalformedError as error:
                return self._refuse(channel, refusal(error.status, str(error)))
            if head is None:
                return None
            if not self._respond(channel, head):
                return None
            self._crowd.idle(tls)

    # -- calls

    def _respond(self, channel: Channel, head: Head) -> bool:
        """Whether the connection can go on."""
        caller = self._access.caller(head.fields.get("authorization"))
        if answer := _denied(caller, head):
            self._refuse(channel, answer)
            return False
        assert caller is not None
        if not self._crowd.busy(channel.socket, caller):
            self._refuse(channel, refusal(503, "too many calls of this token at once", "BusyError"))
            return False
        try:
            body = channel.body(head.fields, _BODY)
            if head.words[0] == "GET":
                answer = Answer(200, b'{"service":"%b"}' % self._answers.service.encode())
            else:
                answer = self._answers.answer(Call(caller, head.words[1][1:], head.fields, body))
            whole = _drained(body)
        except MalformedError as error:
            self._refuse(channel, refusal(error.status, str(error)))
            return False
        if not whole:
            self._refuse(channel, answer)
            return False
        self._send(channel, answer)
        return head.fields.get("connection", "").lower() != "close"

    def _send(self, channel: Channel, answer: Answer) -> None:
        channel.patience(_BODY)
        if answer.pieces is None:
            channel.send(self._first_lines(answer, f"Content-Length: {len(answer.body)}") + answer.body)
            return
        channel.send(self._first_lines(answer, "Transfer-Encoding: chunked"))
        try:
            channel.send_chunks(answer.pieces)
        except (SweepError, OSError) as error:  # the other side sees that it is not whole
            self._report(f"an answer broke off ({error})")
            raise BrokenError("an answer broke off") from error

    def _refuse(self, channel: Channel, answer: Answer) -> None:
        """Answer before all was read, and close in a way that lets the caller read why."""
        channel.patience(_LINGER)
        channel.send(
            self._first_lines(answer, f"Content-Length: {len(answer.body)}", "Connection: close")
            + answer.body
        )
        shut(channel.socket, socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER
        while time.monotonic() < deadline and socket.socket.recv(channel.socket, PIECE):
            pass

    def _first_lines(self, answer: Answer, *more: str) -> bytes:
        lines = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            f"{SERVICE}: {self._answers.service}",
            "Content-Type: application/json" if answer.pieces is None else "Content-Type: application/x-tar",
            *more,
            "\r\n",
        )
        return "\r\n".join(lines).encode()


def _denied(caller: Caller | None, head: Head) -> Answer | None:
    """Why the call is refused before anything more of it is read."""
    verb, path, version = head.words
    if version != "HTTP/1.1":
        return refusal(505, "HTTP/1.1 is spoken here")
    if "host" not in head.fields:
        return refusal(400, "the message names no host")
    if not _is_ours(head.fields["host"]):
        return refusal(421, "this host is not served here")
    if caller is None:
        return refusal(401, "the head does not know this token; it was made for another deployment")
    if path != "/" and path[1:] not in METHODS:
        return refusal(404, "no such call; the head is of another version: run sweepfw infra up")
    if verb != ("GET" if path == "/" else "POST"):
        return refusal(405, "this is not asked in that way")
    if path != "/" and not may_call(caller, path[1:]):
        return refusal(403, f"this is not for {caller.role}")
    return None


def _is_ours(host: str) -> bool:
    """Names of others, as a web page could have pointed at us, are refused."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    if match[1].lower() in _NAMES:
        return True
    try:
        ip_address(match[1].strip("[]"))
    except ValueError:
        return False
    return True


def _drained(body: Body) -> bool:
    """Whether the body was read to its end, or nearly."""
    size = 0
    while not body.ended and size <= _LEFT_OVER:
        size += len(body.read(PIECE) or b"")
    return body.ended


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # an idle connection on which bytes arrive is then one that was closed
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise SweepError(f"{certificate}, {key}: no certificate with its key ({error})") from error
    return context


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        raise SweepError(f"{address[0]}:{address[1]}: can't listen there ({error.strerror})") from error
