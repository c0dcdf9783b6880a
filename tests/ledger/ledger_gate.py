"""A TCP relay that can lose answers, cut connections, and hold its breath."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Gate:
    """Stands before an address. `swallow`: so many answers are thrown away, each with its connection.
    `unheard`: the hushed connections on which somebody spoke."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.target = address
        self.swallow = 0
        self.swallowed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.unheard: set[socket.socket] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._hushed: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def cut(self) -> None:
        """End every connection."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hush(self) -> None:
        """Carry nothing more on these connections, and leave them open: as a link does that went away."""
        self._hushed.update(sock for pair in self._pairs for sock in pair)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self.target, timeout=60)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if source in self._hushed:
                    self.unheard.add(source)
                    continue
                if answers and self.swallow:
                    self.swallow -= 1
                    self.swallowed.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
