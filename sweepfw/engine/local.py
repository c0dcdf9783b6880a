"""Run a sweep on this machine: one thread a slot, each claiming the next queued trial until none is left."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sweepfw.core import states
from sweepfw.core.model import Denial, Grant, Outcome, Sweep, Worker
from sweepfw.engine.gate import Gate
from sweepfw.engine.jobs import cover_lost
from sweepfw.engine.supply import Heeding, Supply
from sweepfw.engine.turn import Turn
from sweepfw.errors import StoppedError, SweepError
from sweepfw.ledger.interface import Ledger
from sweepfw.trial.attempt import Job, Listener, Slot, record_loss, run_attempt
from sweepfw.trial.guard.client import Guardian, Keeper, KeeperDied, abandon

POLL = 0.15  # seconds until an order from another terminal is seen


@dataclass(slots=True)
class Seat:
    """A slot with who runs its trials and whose turn it is on its GPUs."""

    slot: Slot
    keeper: Keeper
    turn: Turn


class LocalRun:
    """One holder's work on one sweep, from the first claim until nothing is left or it was told to end.

    `jobs` gives the Job for a snapshot's id (it may build an environment; after a SweepError of it nothing
    new starts). The caller holds the sweep's lock; `heeding` is the part of it that tells others that we take
    what they queue.
    """

    def __init__(
        self,
        ledger: Ledger,
        sweep: Sweep,
        worker: Worker,
        guardian: Guardian,
        seats: Sequence[Seat],
        jobs: Callable[[str], Job],
        listener: Listener,
        *,
        only: Collection[int] | None = None,
        fail_fast: bool = False,
        heeding: Heeding | None = None,
    ) -> None:
        self.ledger, self.sweep, self.worker = ledger, sweep, worker
        self.guardian, self.seats, self.jobs, self.listener = guardian, seats, jobs, listener
        self.fail_fast = fail_fast
        self.failure: Exception | None = None  # what ended the run against everybody's will
        self._supply = Supply(ledger, sweep.uid, only, heeding)
        self._gate = Gate()
        self._lock = threading.Condition()  # guards all below; notified when a slot ends
        self._alive = len(seats)
        self._waiting = 0  # slots that wait for their GPUs: the run's end does not wait for them
        self._seen = -1  # the ledger's state of changes when we looked for orders
        self._looks = 0
        self._running: dict[str, Keeper] = {}  # token -> who runs it
        self._stops: dict[str, tuple[str, float]] = {}  # token -> why it has to stop, and its grace
        self._interrupted: float | None = None  # the grace given to all
        self._succeeded = 0
        self._failed_in_a_row = 0

    # -- in the main thread ----------------------------------------------------------------------------

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Return when nothing runs any more. `tick` is called every POLL seconds: progress, signals.

        Raises what ended it too early: StoppedError if the guardian died, and what went wrong in a slot, in
        the ledger or in `tick`; also then nothing runs any more.
        """
        for seat in self.seats:
            threading.Thread(
                target=self._work, args=(seat,), name=f"slot-{seat.slot.name}", daemon=True
            ).start()
        while not self._ended():
            try:
                self._look()
                tick()
            except Exception as error:
                self._fail(error)
        if self.failure:
            raise self.failure

    def _look(self) -> None:
        if (now := self.ledger.changed()) != self._seen:
            self._seen = now
            self._heed()
        if not self.failure and not self._guarded():
            raise self._unguarded()

    def _unguarded(self) -> StoppedError:
        return StoppedError(f"the guardian was killed; go on with: sweepfw resume {self.sweep.name}")

    def _guarded(self) -> bool:
        """Whether the guardian lives: it never says anything, so its end can be read once it is dead."""
        poll = select.poll()
        poll.register(self.guardian, select.POLLIN)
        return not poll.poll(0)

    def _ended(self) -> bool:
        """Whether nothing runs any more; waits up to POLL seconds for it."""

        def ended() -> bool:
            return self._alive == (self._waiting if self._supply.over else 0)

        with self._lock:
            return self._lock.wait_for(ended, POLL)

    def interrupt(self, *, now: bool = False) -> None:
        """Start nothing new and stop what runs, to be queued again. `now`: without grace."""
        self._supply.end()
        with self._lock:
            self._interrupted = 0 if now else self.sweep.spec.grace
            for token in self._running:
                self._stop(token, states.STOPPED_TO_GO_ON, self._interrupted)

    def _heed(self) -> None:
        """Another process changed the ledger: perhaps it wants something of this sweep."""
        state = self.ledger.sweep(self.sweep.uid).state
        self._supply.look_again(paused=state == "paused")
        if state == "stopped":
            self._supply.end()
        with self._lock:
            self._looks += 1
            for token in list(self._running):
                self._renew(token)

    def _renew(self, token: str) -> None:
        answer = self.ledger.renew(token)
        if answer != "go on":
            self._stop(token, "cancelled", 0 if answer == "stop now" else self.sweep.spec.grace)

    def _stop(self, token: str, why: str, grace: float) -> None:
        """With the lock held: so the keeper can't have gone on to another trial meanwhile."""
        if self._stops.get(token, ("", float("inf")))[1] > grace:
            self._stops[token] = (why, grace)
            self._running[token].stop(why, grace)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self.interrupt(now=True)
        if not self._guarded():
            abandon()

    # -- in the slots' threads -------------------------------------------------------------------------

    def _work(self, seat: Seat) -> None:
        try:
            while (trial := self._supply.take()) is not None:
                mine = False
                try:
                    mine = self._take_turn(seat)
                    if mine:
                        self._try(trial, seat)
                finally:
                    seat.turn.give()
                    self._supply.done(rest=0 if mine else seat.turn.rest)
        except Exception as error:
            with self._lock:
                self._fail(error)
        finally:
            with self._lock:
                self._alive -= 1
                self._lock.notify_all()

    def _take_turn(self, seat: Seat) -> bool:
        """Whether the slot has its GPUs. To ask may take long, or for ever where a driver hangs."""
        if not seat.turn.asks:
            return not self._supply.over
        with self._lock:
            self._waiting += 1
            self._lock.notify_all()
        mine = False
        try:
            mine = seat.turn.take(self.listener.note)
        finally:
            with self._lock:
                self._waiting -= 1
                mine = mine and not self._supply.over  # else the run may have ended without us
        return mine

    def _try(self, trial: int, seat: Seat) -> None:
        if seat.keeper.gone():  # killed while nothing ran: no trial's fault
            self._revive(seat)
        self._gate.enter()
        try:
            looks = self._looks
            grant = self.ledger.claim(self.sweep.uid, trial, self.worker, seat.slot.name, os.urandom(8).hex())
            if isinstance(grant, Denial):
                return
            alone = grant.losses >= states.TRIES_WHEN_LOST
            if alone:
                self._gate.leave()
                self._gate.enter_alone()
            self._attempt(grant, seat, alone, looks)
        finally:
            self._gate.leave()

    def _attempt(self, grant: Grant, seat: Seat, alone: bool, looks: int) -> None:
        with self._lock:
            self._running[grant.token] = seat.keeper
            if self._looks != looks:  # an order that came since the claim was not seen to be for it
                self._renew(grant.token)
        try:
            job = self._job(grant)
            if job is not None:
                self._run(grant, seat, job, alone)
        finally:
            with self._lock:
                del self._running[grant.token]
                self._stops.pop(grant.token, None)

    def _job(self, grant: Grant) -> Job | None:
        """What the grant needs to run. None: it must not, and the ledger knows."""
        try:
            job = self.jobs(grant.snapshot)
        except SweepError as error:  # no environment for this snapshot: what runs may go on to its end
            self._supply.end()
            self.ledger.finish(grant.token, Outcome("interrupted", str(error), again=True))
            self.failure = self.failure or error
            return None
        if self._interrupted is None and grant.token not in self._stops:
            return job
        self.ledger.finish(grant.token, Outcome("interrupted", again=True))  # or cancelled, if that was asked
        return None

    def _run(self, grant: Grant, seat: Seat, job: Job, alone: bool) -> None:
        try:
            outcome = run_attempt(
                grant, self.ledger, seat.keeper, job, seat.slot, self.listener, ready=self._ready(grant)
            )
        except KeeperDied:
            guarded = self._guarded()
            cover_lost(job, grant)
            outcome = record_loss(grant, self.ledger, seat.slot, self.listener, alone=alone, counts=guarded)
            self._revive(seat)
        except BaseException:
            seat.keeper.stop(states.STOPPED_TO_GO_ON, 0)  # nobody hears of its end; the next run does
            raise
        self._count(outcome)

    def _revive(self, seat: Seat) -> None:
        if not self._guarded():
            raise self._unguarded()
        seat.keeper = self.guardian.revive(seat.keeper.slot)

    def _ready(self, grant: Grant) -> Callable[[], None]:
        def ready() -> None:
            """The keeper has its order now; a stop that came before was not for it to hear."""
            with self._lock:
                if stop := self._stops.get(grant.token):
                    self._running[grant.token].stop(*stop)
                elif self._interrupted is not None:
                    self._stop(grant.token, states.STOPPED_TO_GO_ON, self._interrupted)

        return ready

    def _count(self, outcome: Outcome) -> None:
        """Keep `--fail-fast` and `max_failures`."""
        limit = self.sweep.spec.max_failures
        with self._lock:
            self._succeeded += outcome.state == "succeeded"
            if outcome.state != "failed" or outcome.again:
                self._failed_in_a_row *= outcome.state != "succeeded"
                return
            self._failed_in_a_row += 1
            hopeless = limit and not self._succeeded and self._failed_in_a_row >= limit
            if not (self.fail_fast or hopeless) or self._supply.over:
                return
            self._supply.end()
        if self.fail_fast:
            self.ledger.pause(self.sweep.uid, "a trial failed, and --fail-fast was given")
            self.interrupt()
        else:
            self.ledger.pause(self.sweep.uid, f"the first {limit} trials failed")
