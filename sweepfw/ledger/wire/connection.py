"""One connection to a service: TLS with a pinned certificate, a request, its answer."""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from hmac import compare_digest
from typing import IO, NamedTuple

from sweepfw.errors import SweepError
from sweepfw.ledger.wire import packs
from sweepfw.ledger.wire.framing import BrokenError, Channel

_HEAD = 15.0  # seconds for the head of an answer, once it has begun
_ANSWER_LIMIT = 1_000_000_000  # bytes of JSON; anything near is a fault


class WrongCertificateError(Exception):
    """Somebody else answers. Nothing was sent."""


class Reply(NamedTuple):
    status: int
    service: str  # which one answered
    data: bytes
    stream: IO[bytes] | None = None


class Request:
    """What is sent, as often as it takes. `more`: seconds beyond the usual for its answer. `once`: it gets
    an id, by which the service knows it again."""

    __slots__ = ("arguments", "body", "id", "more", "path", "start", "stream", "verb")

    def __init__(
        self,
        verb: str,
        path: str,
        body: bytes | IO[bytes] = b"",
        *,
        arguments: str = "",
        more: float = 0,
        once: bool = False,
        stream: bool = False,
    ) -> None:
        self.verb, self.path, self.body, self.more = verb, path, body, more
        self.arguments, self.stream = arguments, stream
        self.id = os.urandom(16).hex() if once else ""
        self.start = 0 if isinstance(body, bytes) else body.tell()


class Connection:
    """Not for several threads at once. OSError and MalformedError where it fails; it is no good then."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, pinned: bytes, seconds: float) -> None:
        try:
            sock.settimeout(seconds)
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._tls = context.wrap_socket(sock)
        except BaseException:
            sock.close()
            raise
        shown = self._tls.getpeercert(binary_form=True)
        if shown is None or not compare_digest(shown, pinned):
            self._tls.close()
            raise WrongCertificateError
        self._channel = Channel(self._tls)
        self.service = ""  # once it has said something
        self.usable = True

    def stale(self) -> bool:
        """Whether something came that nobody asked for: the service closed it, or answered early."""
        poll = select.poll()
        poll.register(self._tls, select.POLLIN)
        return bool(poll.poll(0))

    def exchange(self, request: Request, fields: str, seconds: float) -> Reply:
        """Send and receive. Not `usable` afterwards where the service is going to close it."""
        self.usable = False
        self._channel.patience(seconds)
        whole = self._send(request, fields)
        head = self._channel.head(seconds, _HEAD)
        if head is None:
            raise BrokenError("it closed the connection")
        status = int(head.words[1]) if head.words[1].isdecimal() else 0
        body = self._channel.body(head.fields, seconds)
        self.service = head.fields.get("sweepfw-service", "")
        if request.stream and status == 200:
            reply = Reply(status, self.service, b"", packs.spooled(body.pieces()))
        else:
            reply = Reply(status, self.service, body.all(_ANSWER_LIMIT))
        self.usable = whole and head.fields.get("connection", "").lower() != "close"
        return reply

    def shut(self) -> None:
        """End it under the thread that uses it."""
        with suppress(OSError):  # SSLSocket's own lets go of TLS first: that thread would go on in plain text
            socket.socket.shutdown(self._tls, socket.SHUT_RDWR)

    def close(self) -> None:
        self._tls.close()

    def _send(self, request: Request, fields: str) -> bool:
        """Whether all was sent. The service may answer before: then it wants no more, and says why."""
        lines = f"{request.verb} {request.path} HTTP/1.1\r\n{fields}"
        if request.arguments:
            lines += f"Sweepfw-Arguments: {request.arguments}\r\n"
        if isinstance(request.body, bytes):
            head = f"{lines}Content-Length: {len(request.body)}\r\n\r\n"
            self._channel.send(head.encode() + request.body)
            return True
        self._channel.send(f"{lines}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            self._channel.send_chunks(_unless(self.stale, packs.given(request.body, request.start)))
        except _AnsweredError:
            return False
        return True


class _AnsweredError(Exception):
    """Before all was sent."""


def _unless(answered: Callable[[], bool], pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if answered():
            raise _AnsweredError
        yield piece


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The certificate is compared byte for byte instead: neither names, dates nor clocks matter then, and the
    # handshake has shown that the other side has its key.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def der(certificate: str) -> bytes:
    """The certificate in a PEM text."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    at, stop = certificate.find(begin), certificate.find(end)
    if at < 0 or stop < at:
        raise SweepError("the deployment's certificate is no PEM text; run: sweepfw infra up")
    try:
        found = ssl.PEM_cert_to_DER_cert(certificate[at : stop + len(end)])
        tls_context().load_verify_locations(cadata=found)  # whether it is one
    except (ValueError, OSError) as error:
        raise SweepError(f"the deployment's certificate is torn ({error}); run: sweepfw infra up") from error
    return found
