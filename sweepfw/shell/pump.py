"""A running command's bytes, carried between its ends and ours by threads: nothing waits in a ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import IO, Any, Protocol

from sweepfw.errors import SweepError
from sweepfw.shell.shell import Sink

PIECE = 1 << 16
KEPT = 64_000_000  # bytes of output that `run` keeps
TAIL = 64_000  # bytes of standard error that `stream` keeps


class Ends(Protocol):
    """A running command, as this module needs it. Reads give b"" at the end; a write may find it gone."""

    def read_out(self) -> bytes: ...
    def read_err(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    def close_input(self) -> None: ...
    def kill(self) -> None:
        """End it with its children; reads come to their end then. Again does nothing."""
        ...


def pump(
    ends: Ends,
    stdin: IO[bytes] | None,
    out: Callable[[bytes], object],
    err: Callable[[bytes], object],
) -> None:
    """Carry everything until the command has closed its outputs. What goes wrong on our side kills it, and is
    raised here."""
    faults: list[BaseException] = []
    done = Event()
    feeder = _start(_feed, ends, stdin, faults, done)
    listener = _start(_listen, ends, err, faults)
    try:
        while data := ends.read_out():
            out(data)
        listener.join()
    except BaseException:
        ends.kill()
        raise
    finally:
        done.set()  # who feeds may sit in a read that never ends: it is left there, and stops at its return
    if feeder.is_alive():
        feeder.join(0.1)
    if faults:
        raise faults[0]


def _start(target: Callable[..., None], *arguments: Any) -> Thread:
    thread = Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _feed(ends: Ends, stdin: IO[bytes] | None, faults: list[BaseException], done: Event) -> None:
    try:
        # read1 gives what is there, where a plain read would wait for a whole piece
        read: Callable[[int], bytes] | None = getattr(stdin, "read1", None) or getattr(stdin, "read", None)
        while read is not None and (data := read(PIECE)) and not done.is_set():
            try:
                ends.write(data)
            except OSError:
                return  # it ended without reading all of it, which is its own affair
        with suppress(OSError):
            ends.close_input()
    except BaseException as error:  # whatever a caller's file raises
        if not done.is_set():
            faults.append(error)
            ends.kill()


def _listen(ends: Ends, err: Callable[[bytes], object], faults: list[BaseException]) -> None:
    try:
        while data := ends.read_err():
            err(data)
    except BaseException as error:  # whatever a caller's `on_line` raises
        faults.append(error)
        ends.kill()


class Collected:
    """Keeps what it is given, up to the limit. SweepError beyond."""

    def __init__(self, name: str, limit: int = KEPT) -> None:
        self._name, self._limit, self._size = name, limit, 0
        self._pieces: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise SweepError(
                f"{self._name}: printed more than {self._limit // 1_000_000} MB, and was killed for that"
            )
        self._pieces.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)


class Lines:
    """Gives each line on, as text, and keeps the last bytes of it all."""

    def __init__(self, on_line: Callable[[str], object] | None) -> None:
        self._on_line, self._rest = on_line, b""
        self._tail: deque[bytes] = deque()
        self._size = 0

    def __call__(self, data: bytes) -> None:
        self._tail.append(data)
        self._size += len(data)
        while self._size - len(self._tail[0]) >= TAIL:
            self._size -= len(self._tail.popleft())
        if self._on_line is not None:
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > TAIL:  # no line at all
                lines, self._rest = [*lines, self._rest], b""
            for line in lines:
                self._on_line(line.rstrip(b"\r").decode(errors="replace"))

    def end(self) -> bytes:
        """The last line where no line feed ended it; returns the tail."""
        if self._on_line is not None and self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        return b"".join(self._tail)[-TAIL:]


def sink(stdout: Sink | None) -> Callable[[bytes], object]:
    """What takes a piece of output."""
    if stdout is None:
        return len
    if callable(stdout):
        return stdout
    return _whole(stdout)


def _whole(file: IO[bytes]) -> Callable[[bytes], object]:
    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # an unbuffered file may take less than it is given
            rest = rest[file.write(rest) or 0 :]

    return write
