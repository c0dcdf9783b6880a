"""A link that can be bad: a TCP proxy in this process, between the head and a host's sshd.

    link = Link("10.213.7.1", ("10.213.7.12", 22))   # link.port leads there
    link.silence()              # nothing passes, and nobody hears that it doesn't
    link.silence("back")        # one way: what the host says is not heard
    link.slow(delay=2)          # every byte comes two seconds later; rate=1000: so many bytes a second
    link.reset()                # all connections end, as when a router forgets them
    link.heal()

What was held back is delivered when the link is whole again, as TCP would by sending again.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

_MOST = 1 << 18  # bytes under way in one direction; more stays with the sender
_TICK = 0.02


@dataclass(eq=False)
class _Way:
    """One direction of one connection: what came, and when it is due."""

    source: socket.socket
    target: socket.socket
    back: bool
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    allowance: float = 0.0  # bytes that the rate grants by now
    looked: float = 0.0
    ended: bool = False  # the source has no more


class Link:
    """Listens at `address` (a free port) and leads to `target`. Its methods may be called by any thread, and
    return when what they say is so."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self.target = target
        self._listener = socket.create_server((address, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()  # guards all below
        self._turns = 0  # that have begun, each with what was said before it
        self._silent: set[bool] = set()
        self._delay, self._rate = 0.0, 0.0
        self._resets = 0
        self._ending = False
        self._ways: list[_Way] = []
        self._thread = threading.Thread(target=self._work, name=f"link to {target[0]}", daemon=True)
        self._thread.start()

    def silence(self, which: Literal["both", "there", "back"] = "both") -> None:
        with self._changed:
            self._silent = {"both": {False, True}, "there": {False}, "back": {True}}[which]
            self._wait_for_a_turn()

    def slow(self, *, delay: float = 0.0, rate: float = 0.0) -> None:
        with self._changed:
            self._delay, self._rate = delay, rate
            self._wait_for_a_turn()

    def reset(self) -> None:
        with self._changed:
            self._resets += 1
            self._wait_for_a_turn()

    def heal(self) -> None:
        with self._changed:
            self._silent, self._delay, self._rate = set(), 0.0, 0.0
            self._wait_for_a_turn()

    def _wait_for_a_turn(self) -> None:
        """A turn that begins from now on knows all that was said, and the one before it is over."""
        turn = self._turns + 1
        if not self._changed.wait_for(lambda: self._turns >= turn, 60):
            raise TimeoutError(f"{self._thread.name}: nobody works there any more")

    def flap(self, times: int, pause: float) -> None:
        """Silent and well in turn; ends well."""
        for _ in range(times):
            self.silence()
            time.sleep(pause)
            self.heal()
            time.sleep(pause)

    def close(self) -> None:
        with self._changed:
            self._ending = True
        self._thread.join(5)

    # -- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        resets = 0
        while True:
            with self._changed:
                silent, delay, rate = set(self._silent), self._delay, self._rate
                asked, ending = self._resets, self._ending
                if asked != resets or ending:
                    resets = asked
                    self._end_all()
                self._turns += 1
                self._changed.notify_all()
            if ending:
                self._listener.close()
                return
            if silent != {False, True}:
                self._accept()
            self._turn(silent, delay, rate)

    def _accept(self) -> None:
        """A silent link answers nobody; who knocked meanwhile is let in when it is whole."""
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                called = socket.create_connection(self.target, timeout=2)
            except OSError:
                caller.close()
                continue
            for one in (caller, called):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways += [_Way(caller, called, False), _Way(called, caller, True)]

    def _turn(self, silent: set[bool], delay: float, rate: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for way in self._ways:
                if way.back not in silent and not way.ended and way.held < _MOST:
                    selector.register(way.source, selectors.EVENT_READ, way)
            ready = selector.select(_TICK)
        if silent == {False, True}:
            time.sleep(_TICK)  # the listener stays ready: nobody is let in
            return
        for key, _ in ready:
            if isinstance(key.data, _Way):
                self._read(key.data, time.monotonic() + delay)
        now = time.monotonic()
        for way in list(self._ways):
            if way.back not in silent:
                self._write(way, now, rate)

    def _read(self, way: _Way, due: float) -> None:
        try:
            data = way.source.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            way.held += len(data)
        else:
            way.ended = True
        way.queue.append((due, data))

    def _write(self, way: _Way, now: float, rate: float) -> None:
        if rate:
            way.allowance = min(rate / 4 + 1, way.allowance + rate * (now - (way.looked or now)))
        way.looked = now
        while way.queue and way.queue[0][0] <= now:
            due, data = way.queue[0]
            if not data:
                way.queue.popleft()
                self._finish(way)
                return
            part = data[: int(way.allowance)] if rate else data
            if not part:
                return
            try:
                sent = way.target.send(part)
            except BlockingIOError:
                return
            except OSError:
                self._drop(way)
                return
            way.held -= sent
            way.allowance -= sent if rate else 0
            way.queue.popleft()
            if sent < len(data):
                way.queue.appendleft((due, data[sent:]))

    def _finish(self, way: _Way) -> None:
        with suppress(OSError):
            way.target.shutdown(socket.SHUT_WR)
        other = next((one for one in self._ways if one.source is way.target), None)
        if other is None or (other.ended and not other.queue):
            self._drop(way)

    def _drop(self, way: _Way) -> None:
        pair = {way.source, way.target}
        self._ways = [one for one in self._ways if one.source not in pair]
        for one in pair:
            one.close()

    def _end_all(self) -> None:
        for way in list(self._ways):
            for one in (way.source, way.target):
                one.close()
        self._ways = []
