"""Any order of calls: the ledger against a model of a few lines, and promise 1 after each step."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_doors import DOORS, SPEC, drafts

from sweepfw.core.model import ENDED, Grant, Outcome, Receipt, Worker
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.errors import SweepError

IN_MEMORY = Path("/dev/shm")  # thousands of syncs, and none of them is what is tested here
WAITING = ("running", "queued", "held")
HOSTS = ("here", "there")
OUTCOMES = st.sampled_from(["succeeded", "failed", "failed", "interrupted", "lost"])
# What is asked less often than claims, renewals and ends.
ORDERS = (
    *("open", "open", "reopen", "reopen", "pause", "stop_all", "stop_one", "close", "extend"),
    *("requeue", "start_a_worker_anew", "register_late", "start_anew"),
)


@dataclass
class ModelAttempt:
    trial: int
    claim_id: str
    token: str
    worker: Worker
    running: bool = True  # it has no end; expired where its trial does not run
    outcome: str | None = None
    receipt: Receipt | None = None


@dataclass
class ModelTrial:
    state: str = "queued"
    stop: bool = False
    losses: int = 0
    attempts: list[ModelAttempt] = field(default_factory=list)


class LedgerStates(RuleBasedStateMachine):
    door = staticmethod(DOORS[0])

    @initialize(count=st.integers(1, 4), on_lost=st.sampled_from(["retry", "retry", "hold"]))
    def submit(self, count: int, on_lost: str) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.ledger = self.door(Path(self.folder.name))
        self.spec = replace(SPEC, on_lost=on_lost)
        self.uid = self.ledger.submit(self.spec, "s0", drafts(count)).uid
        self.boots = {host: Worker(host, f"{host}-0") for host in HOSTS}
        self.replaced: list[Worker] = []
        self.seen = 0  # as a reader that asks again and again
        self.told: list[str] = []
        self.state = "queued"
        self.trials = {n: ModelTrial() for n in range(1, count + 1)}
        self.attempts: list[ModelAttempt] = []
        self.accepted: dict[int, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.disconnect()
            self.folder.cleanup()

    def pick(self, data: st.DataObject) -> tuple[int, ModelTrial]:
        number = data.draw(st.sampled_from(sorted(self.trials)))
        return number, self.trials[number]

    @rule(data=st.data(), host=st.sampled_from(HOSTS))
    def claim(self, data: st.DataObject, host: str) -> None:
        number, _ = self.pick(data)
        self.check_claim(number, f"c{len(self.attempts)}", self.boots[host])

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def claim_again(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.check_claim(attempt.trial, attempt.claim_id, attempt.worker)

    def check_claim(self, number: int, claim_id: str, worker: Worker) -> None:
        trial = self.trials[number]
        answer = self.ledger.claim(self.uid, number, worker, "0", claim_id)
        earlier = [a for a in trial.attempts if a.claim_id == claim_id]
        if earlier:
            assert isinstance(answer, Grant) == earlier[0].running
            assert not isinstance(answer, Grant) or answer.token == earlier[0].token
            if earlier[0].running:
                self.revived(trial)
        elif trial.state == "queued" and self.state not in ("paused", "stopped"):
            assert isinstance(answer, Grant)
            assert answer.attempt == len(trial.attempts) + 1
            assert answer.losses == trial.losses
            for old in trial.attempts:
                old.running = False
            attempt = ModelAttempt(number, claim_id, answer.token, worker)
            trial.attempts.append(attempt)
            self.attempts.append(attempt)
            trial.state, trial.stop = "running", False
            if self.state == "queued":
                self.state = "running"
        else:
            assert not isinstance(answer, Grant)

    @precondition(lambda self: any(attempt.running for attempt in self.attempts))
    @rule(data=st.data(), state=OUTCOMES, again=st.booleans())
    def finish(self, data: st.DataObject, state: str, again: bool) -> None:
        self.check_finish(data.draw(st.sampled_from([a for a in self.attempts if a.running])), state, again)

    @precondition(lambda self: not all(attempt.running for attempt in self.attempts))
    @rule(data=st.data(), state=OUTCOMES)
    def finish_late(self, data: st.DataObject, state: str) -> None:
        self.check_finish(
            data.draw(st.sampled_from([a for a in self.attempts if not a.running])), state, False
        )

    def check_finish(self, attempt: ModelAttempt, state: str, again: bool) -> None:
        trial = self.trials[attempt.trial]
        receipt = self.ledger.finish(
            attempt.token, Outcome(state, "r", again=again or state == "interrupted")
        )
        if attempt.receipt is not None:
            assert receipt == attempt.receipt
            return
        attempt.receipt = receipt
        assert receipt.recorded == attempt.running
        if attempt.running:
            attempt.running, attempt.outcome = False, state
            self.revived(trial)
            trial.losses += state == "lost"
            if state == "succeeded":
                trial.state = "succeeded"
                self.accepted[attempt.trial] = attempt.token
            elif trial.stop:
                trial.state = "cancelled"
            else:
                trial.state = "queued" if again or state == "interrupted" else "failed"
        assert receipt.trial_state == trial.state
        assert receipt.accepted == (self.accepted.get(attempt.trial) == attempt.token)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        trial = self.trials[attempt.trial]
        go_on = attempt.running and not trial.stop
        assert self.ledger.renew(attempt.token) == ("go on" if go_on else "stop")
        if attempt.running:
            self.revived(trial)

    def revived(self, trial: ModelTrial) -> None:
        """Somebody was heard of who holds its newest attempt, which had no end."""
        if trial.state in ("queued", "held"):
            trial.state, trial.losses = "running", max(0, trial.losses - 1)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        self.check_expiry(data.draw(st.sampled_from(self.attempts)))

    @precondition(lambda self: any(trial.state == "running" for trial in self.trials.values()))
    @rule(data=st.data(), times=st.integers(1, TRIES_WHEN_LOST + 1))
    def lose(self, data: st.DataObject, times: int) -> None:
        """Its lease runs out, and again when it was granted to another."""
        running = [n for n, trial in self.trials.items() if trial.state == "running"]
        number = data.draw(st.sampled_from(running))
        self.check_expiry(self.trials[number].attempts[-1])
        for _ in range(times - 1):
            self.check_claim(number, f"c{len(self.attempts)}", self.boots[HOSTS[0]])
            self.check_expiry(self.trials[number].attempts[-1])

    def check_expiry(self, attempt: ModelAttempt) -> None:
        trial = self.trials[attempt.trial]
        if attempt.running and trial.state == "running":
            self.lost(trial)
            attempt.running = trial.state in ("queued", "held")
        assert self.ledger.expire(attempt.token) == trial.state

    def lost(self, trial: ModelTrial) -> None:
        poison = trial.losses >= TRIES_WHEN_LOST
        trial.losses += 1
        if trial.stop:
            trial.state = "cancelled"
        elif self.spec.on_lost == "hold":
            trial.state = "held"
        else:
            trial.state = "failed" if poison else "queued"
        trial.stop = False

    def start_a_worker_anew(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(HOSTS))
        if (before := self.boots[host]) not in self.replaced:
            self.ledger.register(before)
        self.replaced.append(before)
        self.boots[host] = Worker(host, f"{host}-{len(self.replaced)}")
        self.ledger.register(self.boots[host])
        for attempt in self.attempts:
            if attempt.running and attempt.worker.host == host:
                trial = self.trials[attempt.trial]
                attempt.running = False
                if trial.state == "running":
                    self.lost(trial)

    def register_late(self, data: st.DataObject) -> None:
        if not self.replaced:
            return
        with pytest.raises(SweepError):
            self.ledger.register(data.draw(st.sampled_from(self.replaced)))

    def requeue(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from(["interrupted", "lost"]))
        running = [n for n, trial in self.trials.items() if trial.state == "running"]
        assert self.ledger.requeue(self.uid, state=state, why="died") == running
        for attempt in self.attempts:
            attempt.running = False
        for number in running:
            trial = self.trials[number]
            trial.losses += state == "lost"
            trial.state = "cancelled" if trial.stop else "queued"
            trial.stop = False

    def stop_one(self, data: st.DataObject) -> None:
        number, trial = self.pick(data)
        assert self.ledger.stop(self.uid, [number]) == (trial.state in WAITING)
        self.stopped(trial)

    @rule(data=st.data(), order=st.sampled_from(ORDERS))
    def order(self, data: st.DataObject, order: str) -> None:
        """One rule for all, so that most steps are claims and ends."""
        getattr(self, order)(data)

    def stop_all(self, _: st.DataObject) -> None:
        touched = sum(trial.state in WAITING for trial in self.trials.values())
        assert self.ledger.stop(self.uid) == touched
        for trial in self.trials.values():
            self.stopped(trial)
        if self.state != "done":
            self.state = "stopped"

    def stopped(self, trial: ModelTrial) -> None:
        if trial.state in ("queued", "held"):
            trial.state = "cancelled"
            for attempt in trial.attempts:
                attempt.running = False
        trial.stop = trial.stop or trial.state == "running"

    def reopen(self, data: st.DataObject) -> None:
        states = data.draw(st.sets(st.sampled_from(["failed", "cancelled", "held"]), min_size=1))
        found = [n for n, trial in self.trials.items() if trial.state in states]
        assert self.ledger.reopen(self.uid, states) == found
        for number in found:
            trial = self.trials[number]
            trial.state, trial.stop, trial.losses = "queued", False, 0
        if found and self.state == "done":
            self.state = "queued"

    def extend(self, data: st.DataObject) -> None:
        more = data.draw(st.integers(0, 2))
        total = len(self.trials)
        assert self.ledger.extend(self.uid, self.spec, drafts(total + more)) == more
        self.trials |= {n: ModelTrial() for n in range(total + 1, total + more + 1)}
        if more and self.state == "done":
            self.state = "queued"

    def pause(self, _: st.DataObject) -> None:
        self.ledger.pause(self.uid)
        if self.state in ("queued", "running"):
            self.state = "paused"

    def open(self, _: st.DataObject) -> None:
        if self.state != "done":
            self.state = "running"
        assert self.ledger.open(self.uid).state == self.state

    def close(self, _: st.DataObject) -> None:
        states = {trial.state for trial in self.trials.values()}
        nothing_left = not states & {"queued", "running"}
        assert self.ledger.close(self.uid) is nothing_left
        if nothing_left and "held" in states:
            self.state = "queued" if self.state == "running" else self.state
        elif nothing_left and self.state != "stopped":
            self.state = "done"

    def start_anew(self, _: st.DataObject) -> None:
        """The process ends and another goes on."""
        self.ledger.disconnect()
        self.ledger = self.door(Path(self.folder.name))

    @invariant()
    def is_as_the_model(self) -> None:
        sweep = self.ledger.sweep(self.uid)
        trials = list(self.ledger.trials(self.uid))
        assert sweep.state == self.state
        assert [t.number for t in trials] == list(range(1, len(self.trials) + 1))
        assert [t.state for t in trials] == [self.trials[t.number].state for t in trials]
        assert sum(sweep.counts.values()) == len(trials)
        queued = [t.number for t in trials if t.state == "queued"]
        assert self.ledger.runnable(self.uid) == ([] if self.state in ("paused", "stopped") else queued)

    @invariant()
    def no_trial_is_lost_doubled_or_stuck(self) -> None:
        attempts = list(self.ledger.attempts(self.uid))
        assert len(attempts) == len(self.attempts)
        for trial in self.ledger.trials(self.uid):
            mine = [a for a in attempts if a.trial == trial.number]
            accepted = [a.token for a in mine if a.accepted]
            assert accepted == ([self.accepted[trial.number]] if trial.state == "succeeded" else [])
            assert [a.token for a in mine if a.state == "running"] == [
                a.token for a in self.trials[trial.number].attempts if a.running
            ]
            assert all(a.number == len(mine) for a in mine if a.state == "running")  # only the newest
            assert trial.state in ENDED or trial.state in WAITING
            assert [a.number for a in mine] == list(range(1, len(mine) + 1))
        running = {n for n, trial in self.trials.items() if trial.state == "running"}
        assert [a.trial for a in self.ledger.running(self.uid)] == sorted(running)

    @invariant()
    def each_end_is_told_once(self) -> None:
        self.seen, ended = self.ledger.ended_since(self.uid, self.seen)
        self.told += [attempt.token for attempt in ended]
        assert sorted(self.told) == sorted(a.token for a in self.attempts if not a.running)
        _, all_of_them = self.ledger.ended_since(self.uid, 0)
        assert [attempt.token for attempt in all_of_them] == self.told

    @invariant()
    def every_worker_is_told_what_it_ran(self) -> None:
        for worker in self.boots.values():
            found = [attempt.token for _, attempt in self.ledger.running_on(worker)]
            assert sorted(found) == sorted(a.token for a in self.attempts if a.running and a.worker == worker)


@pytest.mark.parametrize("door", DOORS)
def test_any_order_of_calls(door) -> None:
    machine = type("Machine", (LedgerStates,), {"door": staticmethod(door)})
    machine.TestCase.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine.TestCase("runTest").runTest()
