"""The guardian: forks the keepers, and kills what a keeper that died has left.

Its client starts it by exec as the first act of a run, under a process name of its own, in a session of its
own: a terminal's Ctrl-C is the client's to judge. It ends when its client does, and its keepers with it.
"""

from __future__ import annotations

import gc
import os
import select
import time
from signal import SIG_IGN, SIGHUP, SIGINT, SIGQUIT, SIGTERM, signal

from sweepfw.trial.guard import command, oom
from sweepfw.trial.guard.keeper import keep
from sweepfw.trial.guard.reap import KEEPER, become_subreaper, close_up, kill_children, name_process
from sweepfw.trial.guard.secret import sweep
from sweepfw.trial.guard.wire import Wire

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import NoReturn

CONTROL = 3  # the descriptor of the client's wire
_END = 3.5  # seconds for the keepers to end after the client did
_KILL = 1.0


def main(umask: int) -> NoReturn:
    """Serve the client on descriptor 3 until it is gone. `umask`: what trials begin with."""
    command.umask = umask
    os.umask(umask | 0o022)  # what is ours nobody else may write
    for ignored in (SIGINT, SIGHUP, SIGQUIT, SIGTERM):
        signal(ignored, SIG_IGN)  # a shutdown of the host asks the client, who asks the trials
    os.chdir("/")
    _close_others()
    name_process("sweepfw-guard")
    become_subreaper()
    close_up()
    sweep()
    gc.collect()
    gc.freeze()  # what is loaded by now is shared with all keepers, and stays so
    Guardian(Wire.of(CONTROL)).serve()
    os._exit(0)


def _close_others() -> None:
    """Whatever the user's shell had open when it started the client: no trial is to inherit it."""
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd > CONTROL:
                os.closerange(fd, fd + 1)  # no error for the one that listed
    except FileNotFoundError:
        os.closerange(CONTROL + 1, 4096)


class Child:
    """A keeper as the guardian knows it.

    `life` is a pipe that the keeper's end closes. `wire` is the keeper's own end: the client hears of the
    keeper's death only when we close it too, after what it left is dead.
    """

    def __init__(self, pid: int, life: int, wire: int, group: oom.Group) -> None:
        self.pid, self.life, self.wire, self.group = pid, life, wire, group


class Guardian:
    def __init__(self, control: Wire) -> None:
        self._control = control
        self._keepers: dict[int, Child] = {}  # by `life`
        self._held: list[int] = []  # locks of the client: they last as long as we and the keepers do
        self._our_life, self._our_end = os.pipe()  # keepers hold the first: it tells them of our end
        self._group = oom.groups()
        self._forks = 0
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd == self._control.fileno():
                        self._obey()
                    else:
                        self._bury(fd)
        except EOFError:
            self._end()

    def _obey(self) -> None:
        messages, fds = self._control.receive_with_fds()
        for kind, number in messages:
            if kind == "hold":
                self._held += fds[:number]
                del fds[:number]
            else:
                self._fork(fds.pop(0))

    def _fork(self, wire: int) -> None:
        self._forks += 1
        group = self._group(self._forks)
        life, end = os.pipe()
        try:
            pid = os.fork()
        except OSError:  # no room for a process: to the client, that keeper died
            for fd in (life, end, wire):
                os.close(fd)
            return
        if pid == 0:
            os.close(life)
            self._become_keeper(wire, group)
        os.close(end)
        self._keepers[life] = Child(pid, life, wire, group)
        self._poll.register(life, 0)

    def _become_keeper(self, wire: int, group: oom.Group) -> NoReturn:
        """In the child: keep nothing that belongs to the guardian or to other keepers."""
        try:
            os.close(self._our_end)
            self._control.close()
            for other in self._keepers.values():
                os.close(other.life)
                os.close(other.wire)
            name_process(KEEPER)
            become_subreaper()
            group.enter()
            keep(Wire.of(wire), self._our_life, group)
        finally:
            os._exit(1)

    def _bury(self, life: int) -> None:
        """A keeper died: kill what was its, then let the client know."""
        child = self._keepers.pop(life)
        self._poll.unregister(life)
        os.close(life)
        os.waitpid(child.pid, 0)
        kill_children(spare={other.pid for other in self._keepers.values()}, seconds=_KILL)
        child.group.leave()
        sweep()
        os.close(child.wire)

    def _end(self) -> None:
        """The client is gone: the keepers see that themselves; then kill what is left."""
        self._poll.unregister(self._control.fileno())
        deadline = time.monotonic() + _END
        while self._keepers and (wait := deadline - time.monotonic()) > 0:
            for life, _ in self._poll.poll(int(wait * 1000) + 1):
                self._bury(life)
        kill_children(seconds=_KILL)
        for child in self._keepers.values():
            child.group.leave()
        sweep()
