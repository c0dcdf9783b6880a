"""A head that dies at any point and starts anew, calls that come late, twice and in any order, a clock that
jumps: the promises hold after every step, and in the end every trial has one."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_doors import SPEC, drafts
from ledger_service import Head as Served

from sweepfw import crash
from sweepfw.core.model import ENDED, Denial, Grant, Outcome, Receipt, Worker
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.ledger.client import HttpLedger
from sweepfw.ledger.interface import Ledger

IN_MEMORY = Path("/dev/shm")
LENGTH = 60.0  # seconds of a lease
STEP = LENGTH / 5  # between two looks of the reaper
POINTS = (
    *("claim.rows", "claim.committed", "finish.rows", "finish.committed"),
    *("head.reaping", "expire.committed", "stop.committed", "reopen.committed", "head.log"),
)
LOG = b"first half, second half"
HOSTS = ("a", "b")


class Died(SystemExit):  # no thread says anything of it
    """The head is gone in the middle of a call."""


class LostError(Exception):
    """Nobody knows whether the call was done."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Head:
    """One life of the head, asked directly or over HTTP."""

    def __init__(self, folder: Path, clock: Clock, *, http: bool) -> None:
        self.dead = threading.Event()  # nobody asks any more
        self.ledger = LeasedLedger(folder / "ledger.db", folder / "runs", Leases(LENGTH, clock))
        self._served = Served(folder, ledger=self.ledger) if http else None
        self._doors: dict[str | None, HttpLedger] = {}

    def door(self, host: str | None = None) -> Ledger:
        """For people, or for a host's worker."""
        if self._served is None:
            return self.ledger
        if host not in self._doors:
            client = self._served.client(host, connect=self._connect, closing=self.dead)
            self._doors[host] = HttpLedger(client)
        return self._doors[host]

    def _connect(self) -> socket.socket:
        assert self._served is not None
        if self.dead.is_set():
            raise ConnectionRefusedError
        return self._served.connect()

    def end(self) -> None:
        for door in self._doors.values():
            door.disconnect()
        if self._served:
            self._served.stop()
        else:
            self.ledger.disconnect()


class Crashes(RuleBasedStateMachine):
    http = False

    @initialize(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.clock = Clock()
        self.armed = ""
        self.point, crash.point = crash.point, self.come_by
        self.head = Head(Path(self.folder.name), self.clock, http=self.http)
        self.since = self.clock.now  # when leases began anew: a head's start, a gap
        self.looked = self.clock.now
        self.uid = self.head.ledger.submit(SPEC, "s0", drafts(count)).uid
        self.workers = {host: Worker(host, "0") for host in HOSTS}
        self.boots = 0
        self.trials = range(1, count + 1)
        self.flight: list[Callable[[], None]] = []  # calls on their way
        self.grants: dict[str, Grant] = {}  # by token, of those that were heard
        self.hosts: dict[str, str] = {}
        self.claimed = 0
        self.claims: dict[str, str] = {}  # claim id -> token
        self.heard: dict[str, float] = {}  # token -> when it last gave a sign of life
        self.receipts: dict[str, Receipt] = {}
        self.accepted: dict[int, str] = {}  # as the ledger said when it was first seen

    def teardown(self) -> None:
        if hasattr(self, "head"):
            try:
                self.settle()
            finally:
                crash.point = self.point
                self.head.end()
                self.folder.cleanup()

    # -- the head's deaths -----------------------------------------------------------------------------

    def come_by(self, name: str) -> None:
        if name == self.armed:
            self.armed = ""
            self.head.dead.set()
            raise Died

    def ask(self, call: Callable[[], Any]) -> Any:
        """Its answer. A head that dies is followed by another, and the call is lost."""
        try:
            return call()
        except (Died, UnreachableError):
            assert self.head.dead.is_set()
            self.start_anew()
            raise LostError from None

    def start_anew(self) -> None:
        before, self.since, self.looked = self.head, self.clock.now, self.clock.now
        self.head = Head(Path(self.folder.name), self.clock, http=self.http)  # beside what a kill leaves open
        before.end()

    @rule(point=st.sampled_from(POINTS))
    def die_soon(self, point: str) -> None:
        self.armed = point

    @rule()
    def die_now(self) -> None:
        self.start_anew()

    # -- what workers ask ------------------------------------------------------------------------------

    @rule(host=st.sampled_from(HOSTS), data=st.data(), late=st.booleans())
    def claim(self, host: str, data: st.DataObject, late: bool) -> None:
        self.begin(host, data.draw(st.sampled_from(self.trials)), late=late)

    def begin(self, host: str, trial: int, *, late: bool = False) -> None:
        self.claimed += 1
        self.send(partial(self._claim, self.workers[host], trial, f"{self.claimed}"), late=late)

    def send(self, call: Callable[[], None], *, late: bool) -> None:
        """It comes at once, or when its time has come."""
        self.flight.append(call)
        if not late:
            self._arrive(len(self.flight) - 1, again=False)

    def _claim(self, worker: Worker, trial: int, claim_id: str) -> None:
        ended = self.ended(trial)
        answer = self.ask(lambda: self.head.door(worker.host).claim(self.uid, trial, worker, "0", claim_id))
        if not isinstance(answer, Grant):
            return
        assert not ended, "granted after its end"
        assert self.claims.setdefault(claim_id, answer.token) == answer.token, "two grants for one claim"
        self.grants[answer.token], self.hosts[answer.token] = answer, worker.host
        self.heard[answer.token] = self.clock.now

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.check_renewal(data.draw(st.sampled_from(list(self.grants))))

    def check_renewal(self, token: str) -> None:
        newest = self.newest(token)
        answer = self.ask_quietly(lambda: self.head.door(self.hosts[token]).renew(token))
        if answer == "go on":
            assert newest, "goes on beside its successor"
            self.heard[token] = self.clock.now

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), state=st.sampled_from(["succeeded", "failed", "interrupted"]), late=st.booleans())
    def finish(self, data: st.DataObject, state: str, late: bool) -> None:
        token = data.draw(st.sampled_from(list(self.grants)))
        outcome = Outcome(state, "r", again=state == "interrupted")
        self.send(partial(self._finish, token, outcome), late=late)

    def _finish(self, token: str, outcome: Outcome) -> None:
        newest, before = self.newest(token), self.receipts.get(token)
        told = self.ask(lambda: self.head.door(self.hosts[token]).finish(token, outcome))
        assert before is None or told == before, "two answers to one end"
        assert newest or before or not told.recorded, "a stale end was recorded"
        self.receipts[token] = told

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), part=st.sampled_from([(0, 11), (11, len(LOG)), (0, len(LOG))]))
    def print_some(self, data: st.DataObject, part: tuple[int, int]) -> None:
        token = data.draw(st.sampled_from(list(self.grants)))
        self.flight.append(partial(self._append, token, *part))

    def _append(self, token: str, start: int, end: int) -> None:
        door = self.head.door(self.hosts[token])
        try:
            self.ask(lambda: door.append_log(token, start, LOG[start:end]))
        except SweepError:
            assert start > 0  # what goes before it has not come yet

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), again=st.booleans())
    def arrive(self, data: st.DataObject, again: bool) -> None:
        """Any call that is on its way, which may come once more."""
        self._arrive(data.draw(st.integers(0, len(self.flight) - 1)), again=again)

    def _arrive(self, number: int, *, again: bool) -> None:
        call = self.flight.pop(number)
        try:
            call()
        except LostError:
            again = True
        if again:
            self.flight.append(call)

    @rule(host=st.sampled_from(HOSTS))
    def start_a_worker_anew(self, host: str) -> None:
        self.boots += 1
        self.workers[host] = Worker(host, f"{self.boots}")
        self.ask_quietly(lambda: self.head.door(host).register(self.workers[host]))

    # -- what people ask -------------------------------------------------------------------------------

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        trial = data.draw(st.sampled_from(self.trials))
        self.ask_quietly(lambda: self.head.door().stop(self.uid, [trial]))

    @rule()
    def reopen(self) -> None:
        self.ask_quietly(lambda: self.head.door().reopen(self.uid, ["failed", "cancelled"]))

    def ask_quietly(self, call: Callable[[], Any]) -> Any:
        try:
            return self.ask(call)
        except LostError:
            return None

    # -- time ------------------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 8))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.now += STEP
            self.reap()

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def renew_and_wait(self, data: st.DataObject) -> None:
        """Longer than a lease, and never silent for as long."""
        token = data.draw(st.sampled_from(list(self.grants)))
        for _ in range(7):
            self.check_renewal(token)
            self.time_passes(1)

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        """For longer than a lease; another claims its trial, and then its end comes."""
        token = data.draw(st.sampled_from(list(self.grants)))
        self.time_passes(7)
        self.begin(HOSTS[self.hosts[token] == HOSTS[0]], self.grants[token].trial)
        self.send(partial(self._finish, token, Outcome("succeeded")), late=data.draw(st.booleans()))

    @rule()
    def sleep(self) -> None:
        """The head's machine stood still: nobody could have been heard."""
        self.clock.now += 10 * LENGTH
        self.since = self.clock.now
        self.reap()

    def reap(self) -> None:
        """Nobody's lease runs out who was heard within its length, as far as the head could hear."""
        reaped = self.ask_quietly(self.head.ledger.reap) or []
        for grant in reaped:
            silent = self.clock.now - max(self.heard.get(grant.token, 0), self.since)
            assert silent >= LENGTH, f"expired after {silent} s"

    # -- the promises ----------------------------------------------------------------------------------

    def ended(self, trial: int) -> bool:
        [found] = self.head.ledger.trials(self.uid, numbers=[trial])
        return found.state in ENDED

    def newest(self, token: str) -> bool:
        grant = self.grants[token]
        attempts = self.head.ledger.attempts(self.uid, grant.trial)
        return max(each.number for each in attempts) == grant.attempt

    @invariant()
    def no_trial_is_doubled(self) -> None:
        attempts = list(self.head.ledger.attempts(self.uid))
        for trial in self.head.ledger.trials(self.uid):
            mine = [each for each in attempts if each.trial == trial.number]
            assert [each.number for each in mine] == list(range(1, len(mine) + 1))
            accepted = [each for each in mine if each.accepted]
            assert len(accepted) == (trial.state == "succeeded")
            if before := self.accepted.get(trial.number):
                assert [each.token for each in accepted] == [before], "a success was undone"
            for each in accepted:
                self.accepted[trial.number] = each.token
                assert each.number == len(mine), "run again after its success"
            running = [each for each in mine if each.state == "running"]
            assert all(each.number == len(mine) for each in running)
            assert running or trial.state != "running"

    @invariant()
    def what_is_said_is_stored_once(self) -> None:
        for token, grant in self.grants.items():
            log = self.head.ledger.folder_of(token) / "output.log"
            assert LOG.startswith(log.read_bytes() if log.exists() else b""), grant

    def settle(self) -> None:
        """No more faults: what is on its way comes, what is silent is given up, what waits is run."""
        self.armed = ""
        for call in self.flight:
            call()
        self.time_passes(8)
        ledger = self.head.ledger
        assert ledger.running(self.uid) == [], "stuck: its lease never runs out"
        for number in ledger.runnable(self.uid):
            grant = ledger.claim(self.uid, number, self.workers["a"], "0", f"last {number}")
            assert isinstance(grant, Grant)
            assert ledger.finish(grant.token, Outcome("succeeded")).accepted
        self.no_trial_is_doubled()
        assert all(trial.state in ENDED for trial in ledger.trials(self.uid)), "a trial has no end"


def test_what_has_its_success_is_granted_to_nobody(ledger, uid, take, worker) -> None:
    assert ledger.finish(take().token, Outcome("succeeded")).accepted
    assert ledger.claim(uid, 1, worker, "0", "another") == Denial("no", "it succeeded")
    assert ledger.runnable(uid) == [2, 3]
    with pytest.raises(SweepError, match="can't be queued again"):
        ledger.reopen(uid, ["succeeded"])
    assert [each.number for each in ledger.attempts(uid, 1)] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("http", [False, True])
def test_the_promises_hold_whatever_dies_comes_late_or_twice(http: bool) -> None:
    machine = type("Machine", (Crashes,), {"http": http})
    machine.TestCase.settings = settings(
        max_examples=30 if http else 60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()
