"""The client's side: start the guardian, get keepers, give them trials, hear how they ended.

This process becomes a child subreaper: if guardian and keeper both die, what they left becomes ours.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from sweepfw import modes
from sweepfw.trial.guard.reap import KEEPER, become_subreaper, children, close_up, kill_children, reap_ended
from sweepfw.trial.guard.wire import Wire, pair

if TYPE_CHECKING:
    from sweepfw.trial.guard.secret import Hidden

_CONTROL = 3  # where the guardian finds its wire
_BATCH = 100  # descriptors in one message
_PACKAGE_PARENT = os.path.abspath(__file__ + "/../../../..")
_BOOT = (
    f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); "
    "from sweepfw.trial.guard.guardian import main; main({umask})"
)


class KeeperDied(Exception):  # noqa: N818  # it says what happened
    """The keeper is gone, and so is every process of its trial. Other keepers are unharmed."""


class Snapshot(NamedTuple):
    """Where a frozen project lies: its manifest, and the folder of its objects."""

    manifest: str
    objects: str


class Setup(NamedTuple):
    """What all trials of a sweep with one snapshot share. Durations in seconds, sizes in bytes.

    `shared` is a folder that all trials work in, read-only, instead of copies of their own.
    """

    env: Mapping[str, str]
    snapshot: Snapshot | None = None
    shared: str | None = None
    timeout: float | None = None
    grace: float = 10
    log_limit: int = 100_000_000
    outputs: tuple[str, ...] = ()
    output_limit: int | None = None
    secrets: Hidden | None = None

    def message(self) -> dict[str, Any]:
        return {
            "env": dict(self.env),
            "manifest": self.snapshot.manifest if self.snapshot else None,
            "objects": self.snapshot.objects if self.snapshot else None,
            "shared": self.shared,
            "timeout": self.timeout,
            "grace": self.grace,
            "log_limit": self.log_limit,
            "outputs": list(self.outputs),
            "output_limit": self.output_limit,
            "secrets": self.secrets.message() if self.secrets else None,
        }


class Start(NamedTuple):
    """One attempt. Paths are absolute; `env` goes over the setup's; `params` is the text of params.json."""

    setup: int
    folder: str
    checkpoint: str
    argv: Sequence[str]
    env: Mapping[str, str] = {}  # nobody changes a Mapping
    params: str = "{}"
    label: str = ""
    token: str = ""

    def message(self) -> dict[str, Any]:
        return {
            "setup": self.setup,
            "folder": self.folder,
            "checkpoint": self.checkpoint,
            "argv": list(self.argv),
            "env": dict(self.env),
            "params": self.params,
            "label": self.label,
            "token": self.token,
        }


class LogGrew(NamedTuple):
    """The trial has printed so many bytes by now."""

    total: int


class Ended(NamedTuple):
    """The attempt is over, nothing of it is left, and this lies in its outcome.json."""

    outcome: Mapping[str, Any]


class Keeper:
    """Runs the trials of one slot, one at a time. One thread starts and receives; any thread may stop."""

    def __init__(self, slot: int, wire: Wire) -> None:
        self.slot = slot
        self._wire = wire
        self._sending = Lock()
        self._poll = select.poll()
        self._poll.register(wire.fileno(), select.POLLIN)
        self._setups: dict[int, Setup] = {}
        self._events: list[Any] = []
        self._seq = 0

    def prepare(self, number: int, setup: Setup) -> None:
        """Tell the keeper of a setup, once: the same again costs nothing."""
        if self._setups.get(number) is not setup:
            self._setups[number] = setup
            with self._sending:
                self._send_now(("setup", number, setup.message()))

    def start(self, order: Start) -> None:
        """Run a trial. The one before must have ended. A keeper that died is told by `receive`."""
        message = order.message()
        with self._sending:  # a stop that comes now is for this trial, and must not be sent before it
            self._seq += 1
            self._send_now(("start", self._seq, message))

    def stop(self, why: str, grace: float) -> None:
        """End the trial that runs: SIGTERM, and SIGKILL to all of it after `grace` seconds. From any thread.

        A second stop with less grace shortens the first. Without a running trial nothing happens.
        """
        with self._sending:
            self._send_now(("stop", self._seq, why, grace))

    def receive(self, timeout: float | None = None) -> LogGrew | Ended | None:
        """The next news of the trial that was started; None after `timeout` seconds. Raises KeeperDied."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            wait = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000 + 0.999))
            if not self._poll.poll(wait):
                return None
            try:
                self._events += self._wire.receive()
            except EOFError:
                raise KeeperDied(f"the keeper of slot {self.slot} died") from None
        kind, _, content = self._events.pop(0)
        if kind == "crashed":
            raise KeeperDied(f"the keeper of slot {self.slot} failed: {content}")
        return LogGrew(content) if kind == "grew" else Ended(content)

    def gone(self) -> bool:
        """Whether the keeper died by now. Costs a microsecond."""
        poll = select.poll()
        poll.register(self._wire.fileno(), 0)  # hang-ups only
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the keeper, and the trial that it runs. Who waits in `receive` gets KeeperDied."""
        self._wire.shutdown()

    def _send_now(self, message: Any) -> None:
        try:
            self._wire.send(message)
        except EOFError:
            pass  # its death is told by `receive`, where its caller can do something about it


class Guardian:
    """The client's handle on its guardian. At the latest when this process ends, guardian and keepers do."""

    def __init__(self, pid: int, control: Wire) -> None:
        self.pid = pid
        self._control = control
        self._keepers: dict[int, Keeper] = {}
        self._closing = False

    @classmethod
    def start(cls) -> Guardian:
        """Start a guardian, the first act of a run. Returns at once; it gets ready beside our own start."""
        become_subreaper()
        close_up()
        ours, theirs = pair()
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        fd = os.dup(theirs.fileno()) if theirs.fileno() == _CONTROL else theirs.fileno()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _BOOT.replace("{umask}", str(modes.users()))],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, _CONTROL), null, *silent],
            setsid=True,
        )
        if fd != theirs.fileno():
            os.close(fd)
        theirs.close()
        return cls(pid, ours)

    def keepers(self, count: int, hold: Sequence[int] = ()) -> list[Keeper]:
        """New keepers, for slots 0 and up. The `hold` descriptors (locks) stay open in guardian and keepers
        until these end, however this process ends. Trials never get them."""
        for at in range(0, len(hold), _BATCH):
            batch = hold[at : at + _BATCH]
            self._send(("hold", len(batch)), batch)
        first = max(self._keepers, default=-1) + 1
        return [self.revive(slot) for slot in range(first, first + count)]

    def revive(self, slot: int) -> Keeper:
        """A new keeper for a slot, in the place of one that died. It knows no setup yet."""
        ours, theirs = pair()
        self._send(("fork", 0), [theirs.fileno()])
        theirs.close()
        self._keepers[slot] = keeper = Keeper(slot, ours)
        return keeper

    def _send(self, message: Any, fds: Sequence[int]) -> None:
        try:
            self._control.send(message, fds)
        except EOFError:
            pass  # a dead guardian is told by `watch`, and by every keeper

    def fileno(self) -> int:
        """Readable once the guardian is dead: it never sends anything."""
        return self._control.fileno()

    def watch(self, on_death: Callable[[], None]) -> None:
        """Call this, from a thread of its own, if the guardian dies before `close`.

        Then the keepers are ending too, and this process must `abandon()` and end.
        """
        Thread(target=self._wait_for_death, args=(on_death,), daemon=True).start()

    def _wait_for_death(self, on_death: Callable[[], None]) -> None:
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.poll()
        if not self._closing:
            on_death()

    def close(self, timeout: float = 5) -> None:
        """End guardian and keepers, killing what runs, and wait: after `timeout` seconds by force."""
        self._closing = True
        for keeper in self._keepers.values():
            keeper.close()
        self._control.shutdown()
        deadline = time.monotonic() + timeout
        while not self._ended():
            if time.monotonic() > deadline:
                abandon()
                break
            time.sleep(0.001)
        self._control.close()

    def _ended(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True


def abandon(seconds: float = 5) -> list[int]:
    """Kill every child of this process until none is left, as the last act of a client whose guardian died.

    Keepers, our children by now, are left to kill their own trials for half of the time: if we killed them
    and were killed ourselves in the next moment, their trials would live. Returns what would not die.
    """
    deadline = time.monotonic() + seconds / 2
    while (keepers := _keepers_left()) and time.monotonic() < deadline:
        kill_children(keepers, seconds=0)
        time.sleep(0.001)
    left = kill_children(seconds=seconds / 2)
    from sweepfw.trial.guard.secret import sweep

    sweep()
    return left


def _keepers_left() -> list[int]:
    reap_ended(lambda *_: None)
    return [pid for pid in children() if _is_keeper(pid)]


def _is_keeper(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip() == KEEPER.encode()
    except OSError:
        return False
