"""Whether the head answers: what Docker asks every few seconds, so it imports little."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress


def healthy(certificate: str, port: int, seconds: float = 5) -> bool:
    """Whether a head answers here, with our certificate."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False  # the certificate itself is pinned
    deadline = time.monotonic() + seconds
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=seconds) as plain,
        context.wrap_socket(plain) as line,
    ):
        line.settimeout(max(0.1, deadline - time.monotonic()))
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return line.recv(9).startswith(b"HTTP/1.")  # 401, without a token: it lives
    return False
