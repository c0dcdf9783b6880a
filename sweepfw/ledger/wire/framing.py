"""HTTP/1.1 messages on a socket, for both sides: heads and bodies, each within limits of size and time.

As much of HTTP as our service and its clients speak, and strictly: every library that was measured was too
slow for a call on a kept connection, or let one silent client keep all others out
(docs/decisions/0010-own-http-framing.md).
"""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

HEAD_LIMIT = 65_536  # bytes
PIECE = 262_144  # bytes that are moved at once
_END = b"\r\n\r\n"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;.*)?")


class BrokenError(OSError):
    """The other side went away in the middle of something."""


class MalformedError(ValueError):
    """What came is no message of ours. `status` is HTTP's word for it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Head(NamedTuple):
    """The first lines of a message: the three words of its first line, and its fields in lower case."""

    words: tuple[str, str, str]
    fields: Mapping[str, str]


class Channel:
    """One side of a connection. Not for several threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = bytearray()
        self._timeout: float | None = -1

    def patience(self, seconds: float | None) -> None:
        """How long the socket may keep silent from now on, or refuse to take what is sent."""
        if seconds != self._timeout:
            self._timeout = seconds
            self.socket.settimeout(seconds)

    def head(self, idle: float | None, whole: float) -> Head | None:
        """The next message's head, or None where the other side has closed. Its first byte may take `idle`
        seconds, all of it `whole` more; TimeoutError then."""
        buffer = self._buffer
        self.patience(idle)
        if not buffer and not self._receive():
            return None
        deadline, seen = 0.0, 0
        while (at := buffer.find(_END, max(0, seen - 3))) < 0:
            if len(buffer) > HEAD_LIMIT:
                raise MalformedError(431, f"the message's head is longer than {HEAD_LIMIT} bytes")
            seen, now = len(buffer), time.monotonic()
            deadline = deadline or now + whole
            if now >= deadline:
                raise TimeoutError
            self.patience(deadline - now)
            if not self._receive():
                raise BrokenError("closed in the middle of a message's head")
        head = bytes(buffer[:at])
        del buffer[: at + len(_END)]
        return read_head(head)

    def body(self, fields: Mapping[str, str], patience: float) -> Body:
        """The body that follows the head. Its bytes may be `patience` seconds apart."""
        self.patience(patience)
        return Body(self, fields)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_chunks(self, pieces: Iterable[bytes]) -> None:
        """A body of a length that isn't known before. Where `pieces` raises, the body has no end: the other
        side knows that it is not whole."""
        for piece in pieces:
            if piece:
                self.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.socket.sendall(b"0\r\n\r\n")

    def line(self) -> bytes:
        """One short line of a chunked body."""
        while (at := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > 1000:
                raise MalformedError(400, "a chunk's first line is too long")
            if not self._receive():
                raise BrokenError("closed in the middle of a body")
        found = bytes(self._buffer[:at])
        del self._buffer[: at + 2]
        return found

    def into(self, room: memoryview) -> int:
        """Some bytes of a body, as many as there are and fit."""
        if self._buffer:
            size = min(len(room), len(self._buffer))
            room[:size] = self._buffer[:size]
            del self._buffer[:size]
            return size
        try:
            size = self.socket.recv_into(room)
        except OSError as error:  # a time-out too: what stores a body must see that the body was at fault
            raise BrokenError(f"a body stopped coming ({error})") from error
        if size == 0:
            raise BrokenError("closed in the middle of a body")
        return size

    def _receive(self) -> bool:
        data = self.socket.recv(65_536)
        self._buffer += data
        return bool(data)


class Body(io.RawIOBase):
    """A message's body as a file. BrokenError where the other side goes away before its end: never a short
    read that looks like the end."""

    def __init__(self, channel: Channel, fields: Mapping[str, str]) -> None:
        self._channel = channel
        self._chunked, self.length = _extent(fields)
        self._left = self.length or 0
        self._ended = not self._chunked and self._left == 0

    def readable(self) -> bool:
        return True

    @property
    def ended(self) -> bool:
        """Whether all of it was read, so that the next message can follow."""
        return self._ended

    def readinto(self, room: memoryview) -> int:  # type: ignore[override]  # the stub's Buffer is 3.12's
        if self._ended or (self._chunked and not self._left and not self._next_chunk()):
            return 0
        size = self._channel.into(memoryview(room)[: self._left])
        self._left -= size
        if not self._left and self._chunked:
            if self._channel.line():
                raise MalformedError(400, "a chunk is longer than it says")
        elif not self._left:
            self._ended = True
        return size

    def all(self, limit: int) -> bytes:
        """The whole body; MalformedError (413) beyond the limit."""
        if self.length is not None and self.length > limit:
            raise MalformedError(413, f"the body is larger than {limit} bytes")
        if self.length is not None:
            return self._exactly(self.length)
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise MalformedError(413, f"the body is larger than {limit} bytes")
        return bytes(found)

    def pieces(self) -> Iterator[bytes]:
        while piece := self.read(PIECE):
            yield piece

    def _exactly(self, size: int) -> bytes:
        if size > PIECE:  # no room is made for what may never come
            return b"".join(self.pieces())
        room = bytearray(size)
        view, at = memoryview(room), 0
        while at < size:
            at += self.readinto(view[at:])
        return bytes(room)

    def _next_chunk(self) -> bool:
        match = _CHUNK.fullmatch(self._channel.line())
        if match is None:
            raise MalformedError(400, "a chunk's length is no number")
        self._left = int(match[1], 16)
        if self._left == 0:
            for _ in range(20):
                if not self._channel.line():
                    self._ended = True
                    return False
            raise MalformedError(400, "too many lines after the last chunk")
        return True


def read_head(head: bytes) -> Head:
    """What the bytes before the empty line say; MalformedError where they are no head."""
    try:
        first, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise MalformedError(400, "the message's head is no ASCII") from None
    words = first.split(" ", 2)
    if len(words) != 3 or not first.isprintable():
        raise MalformedError(400, "the message's first line is not HTTP's")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not _NAME.fullmatch(name) or not value.replace("\t", " ").isprintable():
            raise MalformedError(400, "a line of the message's head is not HTTP's")
        if name in fields:
            raise MalformedError(400, f"the message's head says {name} twice")
        fields[name] = value.strip(" \t")
    return Head((words[0], words[1], words[2]), fields)


def _extent(fields: Mapping[str, str]) -> tuple[bool, int | None]:
    """Whether the body is chunked, else its length. Both, or another encoding, could be read in two ways."""
    encoding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if encoding is None:
        if length is not None and not _LENGTH.fullmatch(length):
            raise MalformedError(400, "content-length is no number")
        return False, int(length or 0)
    if encoding.lower() != "chunked" or length is not None:
        raise MalformedError(400, "a body has a length or is chunked, nothing else")
    return True, None
