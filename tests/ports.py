"""Ports for services that are stopped and started again."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives to outgoing connections: one of those could have it while the service is down.
_untried = random.SystemRandom().sample(range(20_000, 30_000), 10_000)


def free_port() -> int:
    """A port of loopback on which nobody listens; another with each call."""
    while True:
        port = _untried.pop()
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
