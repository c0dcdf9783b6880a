"""Holding a sweep on this machine: from its lock to the moment when nothing of it runs any more."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Spec, Sweep, Worker
from sweepfw.core.schedule import SlotPlan, slots_for
from sweepfw.engine.jobs import Jobs
from sweepfw.engine.local import POLL, LocalRun, Seat
from sweepfw.engine.lock import SweepLock
from sweepfw.engine.record import record
from sweepfw.engine.turn import Turn
from sweepfw.errors import SweepError
from sweepfw.ledger.interface import Ledger
from sweepfw.shell.local import LocalShell, find_command
from sweepfw.trial.attempt import Job, Listener, Slot, recover
from sweepfw.trial.guard.client import Guardian
from sweepfw.trial.slots import GpuLock, busy, room

if TYPE_CHECKING:
    from sweepfw.core.secrets import Secrets

PARTING = 2.0  # seconds that a run which was told to end has for its own affairs


def settle(place: Workspace, ledger: Ledger, sweep: Sweep) -> None:
    """Give the sweep the state that it has when no run holds it, after one that was killed.

    For the holder of its lock: nothing of it runs any more.
    """
    recover(place, ledger, sweep)
    ledger.leave(sweep.uid)
    ledger.close(sweep.uid)


class Session:
    """One holder of one sweep. The caller took the lock and started the guardian.

    `interrupts` may be set from a signal handler: 1 ends the run in order, 2 at once. Before `working` is
    set no trial runs, and the handler may raise KeyboardInterrupt instead.
    """

    def __init__(
        self,
        place: Workspace,
        ledger: Ledger,
        sweep: Sweep,
        lock: SweepLock,
        guardian: Guardian,
        listener: Listener,
        *,
        jobs: int | None = None,
        only: Collection[int] | None = None,
        fail_fast: bool = False,
        secrets: Secrets | None = None,
    ) -> None:
        self._place, self._ledger, self._sweep, self._lock = place, ledger, sweep, lock
        self._guardian, self._listener = guardian, listener
        self._wanted, self._only, self._fail_fast = jobs, only, fail_fast
        self._secrets = secrets
        self._run: LocalRun | None = None
        self._heard = 0
        self._seen = -1
        self.interrupts = 0
        self.working = False

    def run(self, begin: Callable[[Sweep, int], None], tick: Callable[[], None]) -> None:
        """Work until nothing is left, or until told to end. `begin` gets the sweep and the number of slots.

        Raises SweepError for what ended it against everybody's will; the ledger is in order all the same.
        """
        if self._only:
            self._lock.stop_heeding()  # we leave alone what others queue
        try:
            crash.point("run.held")
            recover(self._place, self._ledger, self._sweep)
            sweep = self._ledger.open(self._sweep.uid)
            crash.point("run.opened")
            plans = place_slots(sweep.spec, self._wanted, self._listener.note)
            begin(sweep, len(plans))
            self._jobs = Jobs(self._place, sweep, self._listener.note, lambda: self.interrupts > 0)
            if self._secrets:
                self._jobs.give(self._secrets)
            recording = self._describe(sweep, self._prepare(sweep).described)

            def work() -> None:
                if not recording.ident:
                    recording.start()
                self._tick(tick)

            self._run = LocalRun(
                self._ledger,
                sweep,
                Worker(host_name(), os.urandom(8).hex()),
                self._guardian,
                self._seats(plans),
                self._job,
                self._listener,
                only=self._only,
                fail_fast=self._fail_fast,
                heeding=None if self._only else self._lock,
            )
            self.working = True
            self._run.run(work)
            work()  # also where the last trial ended before the first tick
            self._await(recording)
        finally:
            self.working = True
            self._lock.stop_heeding()
            self._ledger.leave(self._sweep.uid)
            crash.point("session.left")
            self._ledger.close(self._sweep.uid)  # done, if its last trials ended while it was paused
            crash.point("session.closed")
            self._ledger.flush()

    def news(self) -> Sweep | None:
        """The sweep, if another process changed the ledger since the last call."""
        if (now := self._ledger.changed()) == self._seen:
            return None
        first, self._seen = self._seen < 0, now
        return None if first else self._ledger.sweep(self._sweep.uid)

    def _tick(self, tick: Callable[[], None]) -> None:
        if self.interrupts > self._heard and self._run:
            self._heard = self.interrupts
            now = self._heard > 1
            self._listener.note(
                "killing what runs"
                if now
                else "interrupted: nothing new starts; running trials are asked to end, and killed after "
                f"{self._sweep.spec.grace:g} s. Once more kills them now"
            )
            self._run.interrupt(now=now)
        tick()

    def _prepare(self, sweep: Sweep) -> Job:
        """The environment, before any trial is claimed."""
        with self._pausing(sweep.uid):
            job = self._jobs(sweep.snapshot)
            find_program(sweep.spec, job.python, job.setup.env, None)
        return job

    def _job(self, snapshot: str) -> Job:
        """What a trial of this snapshot needs: a newer one may bring another environment."""
        with self._pausing(self._sweep.uid):
            return self._jobs(snapshot)

    @contextmanager
    def _pausing(self, uid: str) -> Iterator[None]:
        """Where the setup fails, the sweep waits for somebody to mend it."""
        try:
            yield
        except SweepError:
            self._lock.stop_heeding()
            if not self.interrupts:
                self._ledger.pause(uid, "setup failed")
            raise

    def _describe(self, sweep: Sweep, environment: str) -> threading.Thread:
        """A thread that writes down where the sweep came from, for when the first trials run: what it imports
        and asks git would hold them up."""

        def describe() -> None:
            try:
                record(self._place, self._ledger, sweep, environment)
            except (OSError, SweepError) as error:
                self._listener.note(f"warning: it is not recorded where {sweep.name} came from: {error}")

        return threading.Thread(target=describe, daemon=True)

    def _await(self, recording: threading.Thread) -> None:
        """Not for long where somebody told the run to end: git and nvidia-smi may take half a minute."""
        if not recording.is_alive():
            return
        told = self.interrupts or self._ledger.sweep(self._sweep.uid).state in ("paused", "stopped")
        deadline = time.monotonic() + (PARTING if told else float("inf"))
        while recording.is_alive() and self.interrupts < 2 and time.monotonic() < deadline:
            recording.join(POLL)

    def _seats(self, plans: Collection[SlotPlan]) -> list[Seat]:
        locks = [[GpuLock(uuid) for uuid in plan.gpus or ()] for plan in plans]
        hold = [self._lock.fd, *(lock.fd for each in locks for lock in each)]
        keepers = self._guardian.keepers(len(plans), hold)
        shell = _shell()
        return [
            Seat(
                Slot(plan.name, host_name(), plan.cpus, _visible(plan)),
                keeper,
                Turn(mine, lambda uuid: busy(uuid, shell)),
            )
            for plan, keeper, mine in zip(plans, keepers, locks, strict=True)
        ]


def _visible(plan: SlotPlan) -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES says: the slot's GPUs, none (`gpus: 0`), or nothing where there are none."""
    if plan.gpus is None:
        return ()
    return plan.gpus or None


def place_slots(
    spec: Spec, jobs: int | None, warn: Callable[[str], None] = lambda _: None
) -> Collection[SlotPlan]:
    """The slots of this machine for the task. SweepError for needs that it can't meet."""
    return slots_for(room(spec.needs, host_name(), _shell(), warn), spec.needs, jobs)


def host_name() -> str:
    return os.uname().nodename


def _shell() -> LocalShell:
    return LocalShell()


def check_command(spec: Spec, root: Path) -> None:
    """SweepError where the command can't run, as far as that is known before anything is built."""
    from sweepfw.trial.environment import check, resolve

    check(spec.environment, root)
    if spec.environment.kind == "requirements":
        return  # it may bring the command
    found = resolve(spec.environment, Workspace(root), root, "")
    find_program(spec, found.python, found.over(os.environ) | dict(spec.variables), root)


def find_program(spec: Spec, python: str, env: Mapping[str, str], root: Path | None) -> None:
    """SweepError where the command's program is not there. `root` None: only PATH is searched."""
    program = spec.command[0]
    if spec.shell or "{" in program or (root is None and "/" in program):
        return
    if find_command(python if program == "python" else program, env, str(root or "/")) is None:
        raise SweepError(f"command: {_no_program(program, root)}")


def _no_program(program: str, root: Path | None) -> str:
    """Why a program can't be started, and what would be right."""
    if root and (root / program).is_file():
        if "/" in program:
            return f"{program!r} can't be executed; make it so with: chmod +x {root / program}"
        return f"there is no program {program!r} on PATH; the file beside project.yml is ./{program}"
    return f"there is no program {program!r} here; install it, or put it on PATH"


def unfrozen(spec: Spec, root: Path) -> list[tuple[str, Path]]:
    """Packages that trials import from outside the project, so that editing them changes what trials run."""
    from sweepfw.trial.editables import editables, outside
    from sweepfw.trial.environment import resolve

    if spec.environment.kind == "requirements":
        return []
    found = resolve(spec.environment, Workspace(root), root, "")
    return outside(editables(found.python, found.over(os.environ)), root)
