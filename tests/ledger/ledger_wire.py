"""Messages to the service as a plain socket sends them, and its answers to them."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple

from ledger_service import PEOPLE


class Reply(NamedTuple):
    status: int
    body: bytes = b""
    lasting: bool = False  # whether the connection goes on

    @property
    def told(self) -> Any:
        return json.loads(self.body) if self.body else None


def tls(stream: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(stream)


def opening(path: str, *more: str, shown: str = PEOPLE, host: str = "head") -> bytes:
    """A call's first lines, without the empty one."""
    lines = (f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {shown}", *more)
    return ("\r\n".join(lines) + "\r\n").encode()


def framed(body: bytes) -> bytes:
    return f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def exchange(stream: ssl.SSLSocket, message: bytes) -> list[Reply]:
    """All answers until the service closes the connection."""
    with suppress(ConnectionError, ssl.SSLError):
        stream.sendall(message)
    return replies(stream)


def replies(stream: ssl.SSLSocket) -> list[Reply]:
    found = []
    with stream.makefile("rb") as file, suppress(ConnectionError, ssl.SSLError):
        while reply := one_reply(file):
            found.append(reply)
    return found


def one_reply(file: IO[bytes]) -> Reply | None:
    """None at the connection's end; one that is cut off fails."""
    first = file.readline()
    if not first:
        return None
    fields: dict[bytes, bytes] = {}
    while (line := file.readline()) != b"\r\n":
        name, colon, value = line.lower().partition(b": ")
        assert colon, (first, line)
        fields[name] = value.strip()
    size = int(fields.get(b"content-length", 0))
    body = b"".join(_chunks(file)) if b"transfer-encoding" in fields else file.read(size)
    assert len(body) >= size, (first, size, len(body))
    return Reply(int(first.split(b" ")[1]), body, fields.get(b"connection") != b"close")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        piece = file.read(size + 2)
        assert piece.endswith(b"\r\n"), (size, len(piece))
        yield piece[:-2]
    file.readline()


def ended(stream: socket.socket) -> bool:
    """Whether the service closed it. TimeoutError where it does not."""
    stream.settimeout(60)
    try:
        return stream.recv(1) == b""
    except ConnectionError:
        return True
