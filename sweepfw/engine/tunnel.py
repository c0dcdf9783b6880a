"""The tunnel: one line of ssh to each worker host, through which workers reach broker and service.

A line that ends is made anew, after 1 s and then less and less often, up to 5 s; its neighbours are not
touched. One thread: children that are to die with us must be started by a thread that lives as long.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from sweepfw.core.deployment import TunnelSettings

PAUSES = (1.0, 2.0, 3.0, 5.0)  # seconds before a line is made anew
STEADY = 3.0  # seconds after which a line counts as up: ssh ends sooner where it can't forward
_LOOK = 1.0  # seconds
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Line:
    """ssh to one host. `child` None: it is to be made anew at `next`."""

    host: str
    arguments: tuple[str, ...]
    child: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    next: float = 0.0
    failures: int = 0  # in a row
    up: bool = False
    words: str = ""  # ssh's last


class Tunnel:
    def __init__(
        self,
        lines: Mapping[str, tuple[str, ...]],
        report: Callable[[str], None],
        ssh: tuple[str, ...] = ("ssh",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = [Line(host, arguments) for host, arguments in lines.items()]
        self._report, self._ssh, self._clock = report, ssh, clock
        self._ending = False
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def end(self) -> None:
        """Make `run` return. May be called by a signal's handler."""
        self._ending = True
        with suppress(BlockingIOError):
            os.write(self._waker, b"x")

    def run(self) -> None:
        """Hold the lines until `end`."""
        try:
            while not self._ending:
                for line in self._lines:
                    self._tend(line)
                self._wait()
        finally:
            self._stop()

    def _tend(self, line: Line) -> None:
        now = self._clock()
        if line.child is None:
            if now >= line.next:
                self._start(line)
        elif line.child.poll() is not None:
            self._ended(line)
        elif not line.up and now - line.began > STEADY:
            line.up, line.failures = True, 0
            self._report(f"{line.host}: up")

    def _start(self, line: Line) -> None:
        line.began, line.up, line.words = self._clock(), False, ""
        line.child = subprocess.Popen(
            [*self._ssh, *line.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # with the ssh that it starts in turn, one group to end
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # there is one thread
        )
        assert line.child.stderr is not None
        os.set_blocking(line.child.stderr.fileno(), False)

    def _ended(self, line: Line) -> None:
        assert line.child is not None
        self._hear(line)
        _kill(line.child, signal.SIGKILL)  # what is left of its group
        code, line.child = line.child.returncode, None
        pause = PAUSES[min(line.failures, len(PAUSES) - 1)]
        line.failures += 1
        line.next = self._clock() + pause
        self._report(f"{line.host}: down ({line.words or f'ssh ended, exit {code}'}); again in {pause:g} s")

    def _wait(self) -> None:
        """Until something ended or spoke, a second at most."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        speakers = {
            line.child.stderr.fileno(): line for line in self._lines if line.child and line.child.stderr
        }
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(_LOOK * 1000):
            if descriptor in speakers and not self._hear(speakers[descriptor]):
                time.sleep(0.05)  # its end of the pipe is closed: it ends in a moment

    def _hear(self, line: Line) -> bool:
        """Keep ssh's last line for the report; whether there may come more."""
        assert line.child is not None
        stream: IO[bytes] | None = line.child.stderr
        assert stream is not None
        try:
            data = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return True
        told = [text for text in data.decode(errors="replace").splitlines() if text.strip()]
        if told:
            line.words = told[-1].strip()[:300]
        return bool(data)

    def _stop(self) -> None:
        children = [line.child for line in self._lines if line.child is not None]
        for child in children:
            _kill(child, signal.SIGTERM)
        deadline = self._clock() + 2
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.01, deadline - self._clock()))
            _kill(child, signal.SIGKILL)
            child.wait()


def _kill(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def main(settings: TunnelSettings) -> int:
    """Hold the lines until SIGTERM or SIGINT."""
    tunnel = Tunnel(settings.lines, lambda line: print(line, flush=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: tunnel.end())
    tunnel.run()
    return 0
