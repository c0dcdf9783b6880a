"""A worker's work: for every message one call of `run`, which claims a trial, runs it and tells its end."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core import states
from sweepfw.core.model import Denial, Grant, Outcome, Receipt, Sweep, Worker
from sweepfw.engine.attempts import Hearing, Running, setup_failure
from sweepfw.engine.berths import Berth, Berths
from sweepfw.engine.checkpoints import Checkpoint
from sweepfw.engine.jobs import cover_lost
from sweepfw.engine.shipping import Head, Reporting
from sweepfw.engine.stores import Stores
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.trial.attempt import Job, Slot, record_loss, run_attempt
from sweepfw.trial.guard.client import Guardian, Keeper

Stop = Literal["stop", "stop now"]


class Station:
    """Runs what the head sends, on the slots of this host. Safe from several threads.

    `busy` tells why nothing may start on a GPU now; `foreign` is called when that has changed for one.
    """

    def __init__(
        self,
        place: Workspace,
        worker: Worker,
        head: Head,
        guardian: Guardian,
        keepers: Sequence[Keeper],
        berths: Berths,
        stores: Stores,
        *,
        busy: Callable[[str], str | None] = lambda _: None,
        foreign: Callable[[], None] = lambda: None,
    ) -> None:
        self._place, self._worker, self._head = place, worker, head
        self._guardian, self._keepers = guardian, list(keepers)
        self._berths, self._stores, self._busy, self._foreign = berths, stores, busy, foreign
        self._lock = threading.Condition()  # guards all below; notified when a call of `run` ends
        self._running: dict[str, Running] = {}
        self._telling: dict[str, Running] = {}  # they ended, and the head does not know yet
        self._inside = 0  # calls of `run`
        self._orders = 0  # how many times there were orders
        self._doomed: set[str] = set()  # names of sweeps whose files go when nothing of them runs
        self._gone: set[str] = set()  # names of those whose files went
        self.closed = False  # nothing new starts any more
        self._leaving: float | None = None  # the grace given to all

    # -- in the threads of Celery's pool ---------------------------------------------------------------

    def run(self, uid: str, number: int) -> str:
        """Run the trial if it is to be run, and there is room; else return, and the head sends it again.
        What became of it, for Flower: nothing where all is well."""
        with self._lock:
            self._inside += 1
        try:
            return self._run(uid, number)
        except SweepError as error:  # the sweep was removed, or this worker ends
            self._head.say(f"{uid[:6]}/{number}: {error}")
            return str(error)
        finally:
            with self._lock:
                self._inside -= 1
                self._lock.notify_all()
            self._forget_doomed()

    def _run(self, uid: str, number: int) -> str:
        if self.closed:
            return ""
        sweep = self._stores.sweep(uid)
        berth = self._berths.take(sweep.spec.needs)
        if berth is None:
            return ""
        try:
            return self._claim(sweep, number, berth) if self._gpus_free(berth.slot) else ""
        finally:
            berth.give()

    def _claim(self, sweep: Sweep, number: int, berth: Berth) -> str:
        orders, claim = self._orders, os.urandom(8).hex()
        grant = self._head.ledger.claim(sweep.uid, number, self._worker, berth.slot.name, claim)
        if isinstance(grant, Denial):
            return ""
        crash.point("worker.claimed")
        told = self._attempt(grant, sweep, berth, orders)
        if told is None or told.state == "succeeded":
            return ""
        return f"{told.state}: {told.reason}" if told.reason else told.state

    def _gpus_free(self, slot: Slot) -> bool:
        """Whether the slot's GPUs answer and nobody else computes there. Else the head hears of it."""
        for uuid in slot.gpus or ():
            if why := self._busy(uuid):
                self._head.say(f"{why}; no trial gets it until it is free")
                if self._berths.mark([uuid], foreign=True):
                    self._foreign()
                return False
        return True

    def _attempt(self, grant: Grant, sweep: Sweep, berth: Berth, orders: int) -> Outcome | None:
        trial = f"{self._stores.run(sweep)}/trials/{grant.trial}"
        checkpoint = Checkpoint(self._head, grant, trial, sweep.spec.checkpoint_every)
        reporting = Reporting(
            self._head,
            grant,
            sweep.spec,
            f"{trial}/{grant.attempt}",
            self._worker.host,
            before=checkpoint.end,
            release=lambda: self._leave(running, berth),
        )
        running = Running(grant, sweep, self._keeper(berth.slot), checkpoint, reporting)
        self._enter(running, orders)
        try:
            if job := self._prepare(running):
                checkpoint.drop(self._conduct(running, job, berth.slot))
        finally:
            self._leave(running, berth)
            with self._lock:
                del self._telling[grant.token]
        return reporting.told

    def _enter(self, running: Running, orders: int) -> None:
        grant = running.grant
        with self._lock:
            self._running[grant.token] = running
            missed = self._orders != orders
            if self._leaving is not None:
                self._stop(running, states.STOPPED_TO_GO_ON, self._leaving)
        if missed:  # an order that came since the claim was not seen to be for it
            self.renew(grant.token)

    def _leave(self, running: Running, berth: Berth) -> None:
        """Its slot is free. It keeps its lease until its end is told: where the head's disk is full, or the
        line slow, that takes long."""
        token = running.grant.token
        with self._lock:
            self._running.pop(token, None)
            self._telling[token] = running
        berth.give()

    def _prepare(self, running: Running) -> Job | None:
        """What the attempt needs to run. None: it must not, and the head knows."""
        grant = running.grant
        try:
            running.checkpoint.fetch()
            secrets = self._stores.secrets(running.sweep, grant.token)
            job = self._stores.job(running.sweep, grant.snapshot, lambda: running.stop is not None, secrets)
        except UnreachableError:
            raise  # this worker ends
        except (SweepError, OSError) as error:
            if running.stop is None:
                folder = self._place.attempt(grant.sweep, grant.trial, grant.attempt)
                outcome = setup_failure(grant, running.sweep.spec, folder, error)
                self.ended(grant, outcome, running.reporting.finish(grant.token, outcome))
                return None
        crash.point("worker.prepared")
        if running.stop is None:
            return job
        running.reporting.finish(grant.token, Outcome("interrupted", again=True))  # or cancelled, if asked
        return None

    def _conduct(self, running: Running, job: Job, slot: Slot) -> Receipt:
        grant = running.grant
        reporting, hearing = running.reporting, Hearing(self.ended)
        ready = partial(self._ready, running)
        try:
            run_attempt(grant, reporting, running.keeper, job, slot, hearing, ready=ready)
        except SweepError:
            raise  # the head takes no end of it; it lies on the disk
        except Exception as error:  # its keeper died, or we can't follow it any more
            if not self.guarded():
                raise SweepError("the guardian was killed, and all trials with it") from None
            self._head.say(f"{grant.sweep}/{grant.trial}: {error}")
            running.keeper.close()
            self._keepers[int(slot.name)] = self._guardian.revive(int(slot.name))
            cover_lost(job, grant)
            alone = grant.losses >= states.TRIES_WHEN_LOST
            record_loss(grant, reporting, slot, hearing, alone=alone, counts=True)
        return hearing.receipt

    def _ready(self, running: Running) -> None:
        """The keeper has its order now; a stop that came before was not for it to hear."""
        with self._lock:
            if running.stop:
                running.keeper.stop(*running.stop)

    def _keeper(self, slot: Slot) -> Keeper:
        number = int(slot.name)
        if self._keepers[number].gone():  # killed while nothing ran: no trial's fault
            self._keepers[number] = self._guardian.revive(number)
        return self._keepers[number]

    def guarded(self) -> bool:
        """Whether the guardian lives: it never says anything, so its end can be read once it is dead."""
        poll = select.poll()
        poll.register(self._guardian, select.POLLIN)
        return not poll.poll(0)

    def ended(self, grant: Grant, outcome: Outcome, receipt: Receipt) -> None:
        """A line for the log."""
        why = f": {outcome.reason}" if outcome.reason else ""
        stale = "" if receipt.recorded else "; not recorded: another attempt took its place"
        self._head.say(f"{grant.sweep}/{grant.trial} attempt {grant.attempt} {outcome.state}{why}{stale}")

    # -- from other threads ----------------------------------------------------------------------------

    def attempts(self) -> list[Running]:
        """Those that run here now."""
        with self._lock:
            return list(self._running.values())

    def leased(self) -> list[Running]:
        """Those of which the head is to hear that they live: also where their end is on its way."""
        with self._lock:
            return [*self._running.values(), *self._telling.values()]

    def renew(self, token: str) -> None:
        """Tell the head that the attempt lives; stop it, if the head says so."""
        answer = self._head.ledger.renew(token)
        if answer != "go on":
            self.stop(token, answer)

    def stop(self, token: str, how: Stop) -> None:
        """Stop the attempt if it runs here."""
        with self._lock:
            self._orders += 1
            if running := self._running.get(token):
                self._stop(running, "cancelled", 0 if how == "stop now" else running.sweep.spec.grace)

    def interrupt(self, grace: float) -> None:
        """Start nothing new and stop all that runs, to be queued again."""
        with self._lock:
            self.closed, self._leaving = True, grace
            for running in self._running.values():
                self._stop(running, states.STOPPED_TO_GO_ON, min(grace, running.sweep.spec.grace))

    def _stop(self, running: Running, why: str, grace: float) -> None:
        """With the lock held: so the keeper can't have gone on to another trial meanwhile."""
        if running.stop is None or running.stop[1] > grace:
            running.stop = (why, grace)
            running.keeper.stop(why, grace)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Whether nothing runs any more and all is told; waits for it."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._inside, timeout)

    def forget(self, names: Sequence[str]) -> None:
        """Delete the files of these sweeps; what runs of them is killed first."""
        with self._lock:
            self._doomed.update(name for name in names if name not in self._gone)
            for running in self._running.values():
                if running.sweep.name in self._doomed:
                    self._stop(running, "cancelled", 0)
        self._forget_doomed()

    def _forget_doomed(self) -> None:
        if not self._doomed:
            return
        with self._lock:
            free = self._doomed - {running.sweep.name for running in self._running.values()}
            self._doomed -= free
            self._gone |= free
        for name in free:
            crash.point("worker.forgetting")
            if self._stores.forget(name):
                self._head.say(f"{name}: removed; its files here are deleted")
