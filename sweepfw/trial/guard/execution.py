"""One attempt, from its order to the moment when nothing of it is left."""

from __future__ import annotations

import os
import time

from sweepfw.trial.guard.command import find, spawn
from sweepfw.trial.guard.folder import AttemptFolder, Setup
from sweepfw.trial.guard.log import BoundedLog
from sweepfw.trial.guard.orders import Abandoned, Orders
from sweepfw.trial.guard.reap import kill_children, reap_ended
from sweepfw.trial.guard.wire import Wire

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    import resource

_KILL, _TERM = 9, 15
_READ = 1 << 16
_NEWS = 0.05  # seconds between two words on a growing log
_REAP = 5.0  # seconds between two looks for orphans that ended
_SIZE = 10.0  # seconds between two looks at the size of the outputs
_LINGER = 0.02  # seconds between two looks at a process group that was told to end
_DRAIN = 2.0  # seconds for what is left in the pipe, where a stranger holds it open and goes on writing
_KILL_SECONDS = 10.0  # seconds until a process that does not die is reported instead
_NEVER = float("inf")


class Execution:
    """A trial's command while it runs. All times are on the monotonic clock, in seconds."""

    def __init__(self, seq: int, setup: Setup, orders: Orders, wire: Wire, hopeless: set[int]) -> None:
        self._seq, self._setup, self._orders, self._wire = seq, setup, orders, wire
        self._hopeless = hopeless  # what earlier trials left that would not die
        self.pid = 0
        self.status: int | None = None  # wait status of the main process; None: it never ran
        self.ended_by: str | None = None
        self.why: str | None = None
        self.survivors: list[int] = []
        self.max_rss = 0  # kB
        self.cpu = 0.0
        self.seconds = 0.0
        self._told = 0  # bytes of the log that the client knows of
        self._pidfd = self._output = self._input = -1
        self._kill_at = self._timeout_at = self._news_at = self._size_at = _NEVER

    def start(self, folder: AttemptFolder, log: BoundedLog, argv: list[str], env: dict[str, str]) -> None:
        """Start the command in the working copy. Raises NoCommand, OSError, and Abandoned."""
        self._folder, self._log = folder, log
        self._orders.check()
        self._obey()
        if self.ended_by:
            return
        os.chdir(folder.work)
        env["PWD"] = folder.work
        program = find(argv[0], env.get("PATH"))
        self._output, self._input = os.pipe()
        try:
            self.pid = spawn(program, argv, env, self._input)
        except BaseException:
            os.close(self._output)
            os.close(self._input)
            raise
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        os.set_blocking(self._output, False)
        self._orders.watch(self._output)
        try:
            self._pidfd = os.pidfd_open(self.pid)
            self._orders.watch(self._pidfd)
        except (OSError, AttributeError):
            pass  # no descriptor left, or not Linux: the end is then seen by looking
        self._started = now
        self._reap_every = _REAP if self._pidfd >= 0 else _LINGER
        self._reap_at = now + self._reap_every
        self._news_at = now + _NEWS
        if self._setup.timeout is not None:
            self._timeout_at = now + self._setup.timeout
        if self._setup.output_limit is not None:
            self._size_at = now + _SIZE

    def attend(self) -> None:
        """Wait for the command's end, or bring it about; then kill what is left of it.

        Raises Abandoned, and leaves the killing to the caller then.
        """
        if not self.pid:
            return
        self._follow()
        self.seconds = time.monotonic() - self._started
        if self._pidfd >= 0:
            self._orders.forget(self._pidfd)
            os.close(self._pidfd)
        if self.ended_by and self.status is not None:
            self._linger()
        if self.status is None or self._pidfd < 0:
            _signal_group(self.pid, _KILL)
        self.survivors = kill_children(self._hopeless, seconds=_KILL_SECONDS, reaped=self._note)
        if self.status is None and not self.survivors:  # not Linux: there is no list of children
            self._note(*os.wait4(self.pid, 0))
        self._drain_rest()

    def _follow(self) -> None:
        """Until the main process has ended or the time to kill it has come."""
        while self.status is None:
            ready = self._orders.wait(self._patience())
            if self._pidfd in ready:
                reap_ended(self._note)
                continue
            if self._orders.abandoned:
                raise Abandoned
            if self._output in ready:
                self._log.write(os.read(self._output, _READ))
            self._obey()
            if self._keep_time(time.monotonic()):
                return

    def _patience(self) -> float:
        news_at = self._news_at if self._log.total > self._told else _NEVER
        first = min(news_at, self._kill_at, self._timeout_at, self._size_at, self._reap_at)
        return max(0.0, first - time.monotonic())

    def _keep_time(self, now: float) -> bool:
        """Do what is due. True: the time to kill has come."""
        if now >= self._news_at and self._log.total > self._told:
            self._tell_growth(now)
        if now >= self._size_at:
            self._weigh(now)
        if now >= self._timeout_at:
            self._timeout_at = _NEVER
            self._end("timeout", None, self._setup.grace)
        if now >= self._reap_at:
            reap_ended(self._note)
            self._reap_at = now + self._reap_every
        return now >= self._kill_at

    def _tell_growth(self, now: float) -> None:
        self._told = self._log.total
        self._news_at = now + _NEWS
        try:
            self._wire.offer(("grew", self._seq, self._told))
        except EOFError:
            pass  # the next wait says so

    def _weigh(self, now: float) -> None:
        limit = self._setup.output_limit
        try:
            if limit is not None and self._folder.size() > limit:
                self._end("output_limit", None, self._setup.grace)
        except OSError:
            pass  # it changes while we look; the next look or the one at the end counts
        self._size_at = now + max(_SIZE, 50 * (time.monotonic() - now))

    def _obey(self) -> None:
        if wish := self._orders.stop_for(self._seq):
            self._end("stop", *wish)

    def _end(self, by: str, why: str | None, grace: float) -> None:
        """Ask the command to end, once, and set the time when it is not asked any more."""
        first = self.ended_by is None
        if first:
            self.ended_by, self.why = by, why
        if self.pid:
            self._kill_at = min(self._kill_at, time.monotonic() + grace)
            if first and grace > 0:
                _signal_group(self.pid, _TERM)

    def _linger(self) -> None:
        """What was asked to end has its grace, though the shell that started it may be gone already."""
        while _signal_group(self.pid, 0) and time.monotonic() < self._kill_at:
            ready = self._orders.wait(_LINGER)
            if self._orders.abandoned:
                return
            if self._output in ready:
                self._log.write(os.read(self._output, _READ))
            self._obey()
            reap_ended(self._note)

    def _note(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        if pid == self.pid:
            self.status = status
        self.max_rss = max(self.max_rss, usage.ru_maxrss)
        self.cpu += usage.ru_utime + usage.ru_stime

    def _drain_rest(self) -> None:
        """Read what the dead have written, and close the pipe."""
        self._orders.forget(self._output)
        os.close(self._input)
        deadline = time.monotonic() + _DRAIN
        try:
            while (data := os.read(self._output, _READ)) and time.monotonic() < deadline:
                self._log.write(data)
        except BlockingIOError:
            pass
        os.close(self._output)


def _signal_group(pid: int, signal: int) -> bool:
    """Send a signal to the command's process group; whether there was anybody in it."""
    try:
        os.killpg(pid, signal)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # some of it belongs to another user
    return True
