"""A port of this machine's loopback that leads elsewhere, for as long as somebody wants it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Any

from sweepfw.errors import SweepError


@contextmanager
def listening(port: int, dial: Callable[[], Any]) -> Iterator[int]:
    """Every connection to the port (0: a free one) is carried over one of `dial`'s, which gives sockets or
    what is as good as one. Yields the port. SweepError where the port is taken."""
    listener = socket.socket()
    try:
        # Not taken from another who listens; only from connections of before that linger.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise SweepError(f"port {port}: can't be used here ({error.strerror}); name another") from None
    carried = _Carried(dial)
    thread = Thread(target=_accept, args=(listener, carried), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for the next one
        listener.close()
        thread.join(5)
        carried.end()


class _Carried:
    """The connections under way."""

    def __init__(self, dial: Callable[[], Any]) -> None:
        self._dial, self._lock, self._open = dial, Lock(), set[Any]()

    def carry(self, here: socket.socket) -> None:
        """Until one of the two ends it."""
        try:
            there = self._dial()
        except (OSError, SweepError):  # the next one may find it there again
            here.close()
            return
        with self._lock:
            self._open |= {here, there}
        back = Thread(target=_copy, args=(there, here), daemon=True)
        back.start()
        _copy(here, there)
        back.join()
        with self._lock:
            self._open -= {here, there}
        here.close()
        there.close()

    def end(self) -> None:
        with self._lock:
            for each in self._open:
                with suppress(OSError, EOFError):
                    each.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, carried: _Carried) -> None:
    with suppress(OSError):
        while True:
            here, _ = listener.accept()
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Thread(target=carried.carry, args=(here,), daemon=True).start()


def _copy(source: Any, target: Any) -> None:
    """All that comes, then its end."""
    with suppress(OSError, EOFError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError, EOFError):
        target.shutdown(socket.SHUT_WR)
