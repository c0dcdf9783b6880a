"""The link between a head and a host's sshd that chaos makes bad."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from link import Link


@pytest.fixture
def link() -> Iterator[Link]:
    """It leads to somebody who says everything back."""
    server = socket.create_server(("127.0.0.1", 0))

    def echo(line: socket.socket) -> None:
        with suppress(OSError):
            while data := line.recv(65536):
                line.sendall(data)
        line.close()

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    made = Link("127.0.0.1", server.getsockname()[:2])
    yield made
    made.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def call(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), 60)


def heard(line: socket.socket, size: int, seconds: float) -> bytes:
    """What comes within so many seconds, up to that size."""
    found, until = b"", time.monotonic() + seconds
    while len(found) < size and (left := until - time.monotonic()) > 0:
        line.settimeout(left)
        try:
            data = line.recv(size - len(found))
        except TimeoutError:
            break
        if not data:
            break
        found += data
    return found


def test_it_passes_all_bytes_and_both_ends(link: Link) -> None:
    data = bytes(range(256)) * 8000
    with call(link) as line:
        threading.Thread(target=line.sendall, args=(data,), daemon=True).start()
        assert heard(line, len(data), 100) == data
        line.shutdown(socket.SHUT_WR)
        assert heard(line, 1, 60) == b""


@pytest.mark.parametrize("which", ["both", "there", "back"])
def test_a_silent_link_delivers_later(link: Link, which: str) -> None:
    with call(link) as line:
        line.sendall(b"first")
        assert heard(line, 5, 60) == b"first"
        link.silence(which)  # type: ignore[arg-type]  # one of its three words
        line.sendall(b"second")
        assert heard(line, 6, 0.5) == b""
        link.heal()
        assert heard(line, 6, 60) == b"second"


def test_a_silent_link_lets_nobody_in_until_it_is_well(link: Link) -> None:
    link.silence()
    with call(link) as line:  # the kernel answers; nobody reads
        line.sendall(b"hello")
        assert heard(line, 5, 0.5) == b""
        link.heal()
        assert heard(line, 5, 60) == b"hello"


def test_delay_and_rate(link: Link) -> None:
    with call(link) as line:
        link.slow(delay=0.4)
        begun = time.monotonic()
        line.sendall(b"x")
        assert heard(line, 1, 60) == b"x"
        assert time.monotonic() - begun >= 0.8  # there and back
        link.slow(rate=1000)
        begun = time.monotonic()
        line.sendall(b"y" * 2000)
        assert heard(line, 2000, 100) == b"y" * 2000
        assert time.monotonic() - begun >= 1


def test_a_reset_ends_connections_and_new_ones_are_well(link: Link) -> None:
    with call(link) as line:
        line.sendall(b"a")
        assert heard(line, 1, 60) == b"a"
        link.reset()
        line.settimeout(60)
        with suppress(ConnectionResetError):
            assert line.recv(1) == b""
    with call(link) as line:
        line.sendall(b"b")
        assert heard(line, 1, 60) == b"b"
        link.flap(5, 0.02)
        line.sendall(b"c")
        assert heard(line, 1, 60) == b"c"
