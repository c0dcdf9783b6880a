"""The scheduler with a real ledger and a real broker; workers are threads that read their queues."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import kombu
import pytest
from broker_lab import UID, Broker
from kombu import Exchange, Queue

from sweepfw.core import broker as names
from sweepfw.core.deployment import Advert
from sweepfw.core.model import Draft, Grant, Needs, Outcome, Spec, Sweep, Worker
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.core.values import Number
from sweepfw.engine import board
from sweepfw.engine.board import FIRST_PAUSE
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import LOST, Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler

WaitUntil = Callable[..., None]


class Hand:
    """A worker of the simplest kind: it reads its queue and claims; `act` decides what becomes of a trial."""

    def __init__(self, lab: HeadLab, host: str, slots: int = 2, **advert: Any) -> None:
        self.lab, self.worker = lab, Worker(host, os.urandom(4).hex())
        self.queue = names.queue(UID, host, self.worker.boot)
        self.advert = Advert(slots, slots, queue=self.queue, **advert)
        self.received: list[tuple[str, int]] = []
        self.times: list[tuple[int, float]] = []
        self.headers: list[dict[str, Any]] = []
        self.deaf = False  # takes messages and does nothing
        self.act: Callable[[Grant], Outcome | None] = lambda grant: Outcome("succeeded")
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._read, daemon=True)]
        self._threads += [threading.Thread(target=self._beat, daemon=True)]

    def start(self, *, announce: bool = True) -> Hand:
        if announce:
            self.announce()
        for thread in self._threads:
            thread.start()
        return self

    def announce(self) -> None:
        self.lab.ledger.register(self.worker)
        self.lab.roster.announce(self.worker, self.advert)
        self.lab.scheduler.wake()

    def end(self) -> None:
        self._ending.set()

    def _beat(self) -> None:
        while not self._ending.wait(0.2):
            self.lab.roster.heard(self.worker, connected=True)

    def _read(self) -> None:
        address = self.lab.broker.address(names.worker_user(self.worker.host))
        queue = Queue(
            self.queue,
            Exchange(""),
            routing_key=self.queue,
            durable=True,
            queue_arguments={"x-expires": 120_000},
        )
        while not self._ending.is_set():
            with suppress(*LOST):
                with kombu.Connection(address, connect_timeout=2) as connection:
                    with connection.Consumer(queue, callbacks=[self._take], accept=["json"]):
                        while not self._ending.is_set():
                            with suppress(TimeoutError):
                                connection.drain_events(timeout=0.2)
            self._ending.wait(0.2)

    def _take(self, body: Any, message: Any) -> None:
        message.ack()
        (uid, trial), *_ = body
        self.received.append((uid, trial))
        self.times.append((trial, time.monotonic()))
        self.headers.append(message.headers)
        if not self.deaf:
            threading.Thread(target=self._run, args=(uid, trial), daemon=True).start()

    def _run(self, uid: str, trial: int) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            grant = self.lab.ledger.claim(uid, trial, self.worker, "0", os.urandom(8).hex())
            if isinstance(grant, Grant):
                self.lab.runs[uid, trial] += 1
                outcome = self.act(grant)
        finally:
            with self._lock:
                self.running -= 1
        if isinstance(grant, Grant) and outcome is not None:
            self.lab.ledger.finish(grant.token, outcome)


class HeadLab:
    def __init__(self, folder: Path, broker: Broker) -> None:
        self.broker = broker
        self.lines: list[str] = []
        self.runs: Counter[tuple[str, int]] = Counter()
        self.ledger = LeasedLedger(folder / "ledger.db", folder / "runs", Leases(300))
        self.roster = Roster(folder / "workers.json", ("a", "b"), 30)
        publisher = Publisher(broker.address(names.HEAD), self.lines.append)
        self.scheduler = Scheduler(self.ledger, self.roster, publisher, self.lines.append)
        self.hands: list[Hand] = []

    def hand(self, host: str = "a", slots: int = 2, **advert: Any) -> Hand:
        self.hands.append(Hand(self, host, slots, **advert))
        return self.hands[-1]

    def submit(self, trials: int, name: str | None = None, **spec: Any) -> Sweep:
        drafts = [Draft({"lr": Number(f"0.{n}"), "opt": "sgd"}) for n in range(1, trials + 1)]
        return self.ledger.submit(Spec("p", "t", ("true",), **spec), "5" * 24, drafts, name=name)

    def state(self, sweep: Sweep) -> str:
        return self.ledger.sweep(sweep.uid).state

    def counts(self, sweep: Sweep) -> dict[str, int]:
        return dict(self.ledger.sweep(sweep.uid).counts)


@pytest.fixture
def lab(tmp_path: Path, broker: Broker) -> Iterator[HeadLab]:
    found = HeadLab(tmp_path, broker)
    found.scheduler.start()
    yield found
    for hand in found.hands:
        hand.end()
    found.scheduler.stop()
    found.ledger.disconnect()


def test_all_trials_run_once_and_never_more_than_there_are_slots(lab: HeadLab, wait_until: WaitUntil) -> None:
    a, b = lab.hand("a", 2).start(), lab.hand("b", 3).start()
    sweep = lab.submit(100)
    wait_until(lambda: lab.state(sweep) == "done")
    assert lab.counts(sweep) == {"succeeded": 100}
    assert set(lab.runs.values()) == {1}
    assert a.most <= 2 and b.most <= 3
    sent = sorted(a.times + b.times)
    for (trial, first), (other, again) in pairwise(sent):  # each was sent once, or again after a pause
        assert trial != other or again - first > FIRST_PAUSE * 0.9


def test_flower_gets_the_sweeps_name_and_the_trials_parameters(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand().start()
    sweep = lab.submit(1, name="digits-1")
    wait_until(lambda: lab.state(sweep) == "done")
    headers = hand.headers[0]
    told = {key: headers[key] for key in ("task", "shadow", "argsrepr", "kwargsrepr", "ignore_result")}
    assert told == {
        "task": "sweepfw.trial",
        "shadow": "digits-1",
        "argsrepr": "digits-1/1",
        "kwargsrepr": "lr=0.1, opt=sgd",
        "ignore_result": True,
    }


def test_what_nobody_claimed_is_sent_again_under_the_same_id(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 1)
    hand.deaf = True
    hand.start()
    sweep = lab.submit(1)
    wait_until(lambda: len(hand.received) == 1)
    hand.deaf = False
    wait_until(lambda: lab.state(sweep) == "done", 60)
    assert len(hand.received) == 2
    assert len({headers["id"] for headers in hand.headers}) == 1


def test_what_one_worker_does_not_claim_another_gets(lab: HeadLab, wait_until: WaitUntil) -> None:
    deaf = lab.hand("a", 2)
    deaf.deaf = True
    deaf.start()
    sweep = lab.submit(2)
    wait_until(lambda: len(deaf.received) >= 2)
    lab.roster.patience = 3  # seconds until its silence is its death
    deaf.end()
    lab.hand("b", 1).start()
    wait_until(lambda: lab.state(sweep) == "done", 60)


def test_a_queue_that_is_not_there_breaks_nothing(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)  # what did not arrive needs no pause
    late = lab.hand("a", 2)
    late.announce()
    sweep = lab.submit(4)
    late.announce()
    time.sleep(1)
    assert lab.scheduler.connected
    late.start()
    wait_until(lambda: lab.state(sweep) == "done", 60)


def test_nothing_is_sent_to_who_is_silent_drained_or_without_the_broker(lab: HeadLab) -> None:
    hand = lab.hand("a", 2)
    hand.announce()
    lab.roster.drain("a", off=False)
    hand.start(announce=False)
    lab.submit(2)
    lab.scheduler.wake()
    time.sleep(0.5)
    assert hand.received == []
    lab.roster.drain("a", off=True)
    lab.roster.heard(hand.worker, connected=False)
    hand.end()


def test_a_sweep_whose_first_trials_all_fail_is_paused(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 1)
    hand.act = lambda grant: Outcome("failed", "exit 1")
    hand.start()
    sweep = lab.submit(20, max_failures=4)
    wait_until(lambda: lab.state(sweep) == "paused")
    assert lab.ledger.sweep(sweep.uid).reason == "the first 4 trials failed"
    time.sleep(0.3)
    assert lab.counts(sweep)["failed"] <= 5
    hand.act = lambda grant: Outcome("succeeded")
    lab.ledger.open(sweep.uid)
    wait_until(lambda: lab.state(sweep) == "done")


def test_a_stopped_sweep_ends_and_the_next_goes_on_at_once(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)
    deaf = lab.hand("a", 1)
    deaf.deaf = True
    deaf.start()
    first, second = lab.submit(9), lab.submit(1)
    wait_until(lambda: len(deaf.received) == 1)
    deaf.deaf = False
    lab.ledger.stop(first.uid)
    wait_until(lambda: lab.ledger.sweep(first.uid).ended is not None)
    wait_until(lambda: lab.state(second) == "done")  # no wait for the place that the first one had


def test_who_gets_a_trial_that_must_not_run_is_free_again_at_once(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that somebody has twice, as after a cut: the second claim is refused."""
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)
    deaf = lab.hand("a", 1)
    deaf.deaf = True
    deaf.start()
    first, second = lab.submit(1), lab.submit(1)
    wait_until(lambda: deaf.received == [(first.uid, 1)])
    elsewhere = Worker("b", "00")
    assert isinstance(lab.ledger.claim(first.uid, 1, elsewhere, "0", "x"), Grant)
    wait_until(lambda: deaf.received[-1] == (second.uid, 1))
    deaf.deaf = False
    lab.ledger.pause(second.uid)
    third = lab.submit(1)
    wait_until(lambda: lab.state(third) == "done")
    assert any("worker on a: here, 1 slots" in line for line in lab.lines)


def test_a_trial_that_waits_is_not_sent_where_it_may_still_run(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 2)
    hand.act = lambda grant: None
    hand.start()
    sweep = lab.submit(1)
    wait_until(lambda: lab.runs[sweep.uid, 1] == 1)
    [(_, attempt)] = lab.ledger.running_on(hand.worker)
    assert lab.ledger.expire(attempt.token) == "queued"
    time.sleep(1.5)
    assert len(hand.received) == 1
    assert lab.ledger.renew(attempt.token) == "go on"
    assert lab.ledger.finish(attempt.token, Outcome("succeeded")).accepted
    wait_until(lambda: lab.state(sweep) == "done", 60)


def test_a_trial_that_is_lost_again_and_again_gets_a_host_for_itself(
    lab: HeadLab, wait_until: WaitUntil
) -> None:
    hand = lab.hand("a", 2)
    hand.act = lambda grant: None
    hand.start()
    sweep = lab.submit(1)
    for attempt in range(TRIES_WHEN_LOST):
        wait_until(lambda count=attempt + 1: lab.runs[sweep.uid, 1] == count)
        assert len(lab.ledger.running_on(hand.worker)) == 1
        hand.worker = Worker("a", os.urandom(4).hex())  # started anew
        hand.announce()
    other = lab.submit(4)
    wait_until(lambda: lab.runs[sweep.uid, 1] == TRIES_WHEN_LOST + 1)
    time.sleep(0.5)
    assert lab.runs[other.uid, 1] == 0
    [(_, alone)] = lab.ledger.running_on(hand.worker)
    hand.act = lambda grant: Outcome("succeeded")
    lab.ledger.finish(alone.token, Outcome("succeeded"))
    wait_until(lambda: lab.state(other) == "done")


def test_a_sweep_ends_with_a_trial_that_another_host_took_over(lab: HeadLab, wait_until: WaitUntil) -> None:
    """The host that had it stays silent for ever."""
    silent = lab.hand("a", 1)
    silent.act = lambda grant: None
    silent.start()
    sweep = lab.submit(1)
    wait_until(lambda: lab.runs[sweep.uid, 1] == 1)
    [(_, attempt)] = lab.ledger.running_on(silent.worker)
    lab.ledger.expire(attempt.token)
    lab.hand("b", 1).start()
    wait_until(lambda: lab.counts(sweep) == {"succeeded": 1})
    wait_until(lambda: lab.state(sweep) == "done", 5)


def test_a_sweep_ends_with_a_trial_that_is_lost_for_good(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 1)
    hand.act = lambda grant: None
    hand.start()
    sweep = lab.submit(1)
    for attempt in range(TRIES_WHEN_LOST + 1):
        wait_until(lambda count=attempt + 1: lab.runs[sweep.uid, 1] == count)
        hand.worker = Worker("a", os.urandom(4).hex())  # started anew
        hand.announce()
    assert lab.counts(sweep) == {"failed": 1}
    wait_until(lambda: lab.state(sweep) == "done", 5)


def test_a_host_where_trials_fail_at_once_gets_one_at_a_time(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 4)
    hand.act = lambda grant: Outcome("failed", "exit 1")
    hand.start()
    sweep = lab.submit(12, max_failures=None)
    wait_until(lambda: lab.state(sweep) == "done")
    hand.most, hand.act = 0, lambda grant: (time.sleep(0.1), Outcome("failed", "exit 1"))[1]
    sweep = lab.submit(4, max_failures=None)
    wait_until(lambda: lab.state(sweep) == "done")
    assert hand.most == 1
    hand.act = lambda grant: (time.sleep(0.2), Outcome("succeeded"))[1]
    sweep = lab.submit(9)
    wait_until(lambda: lab.state(sweep) == "done")
    assert hand.most == 4


def test_needs_that_nobody_meets_are_named(lab: HeadLab, wait_until: WaitUntil) -> None:
    sweep = lab.submit(1, name="big-1", needs=Needs(cpus=64))
    assert lab.scheduler.unmet() == {"big-1": "no worker is there"}
    hand = lab.hand().start()
    assert lab.scheduler.unmet() == {"big-1": "needs.cpus: a has 2, trials need 64"}
    fine = lab.submit(1)
    wait_until(lambda: lab.state(fine) == "done")
    assert hand.received == [(fine.uid, 1)]
    lab.ledger.stop(sweep.uid)


def test_a_free_slot_is_filled_at_once(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 1)
    begun: list[float] = []
    ended: list[float] = []

    def act(grant: Grant) -> Outcome:
        begun.append(time.monotonic())
        time.sleep(0.01)
        ended.append(time.monotonic())
        return Outcome("succeeded")

    hand.act = act
    hand.start()
    sweep = lab.submit(50)
    wait_until(lambda: lab.state(sweep) == "done")
    gaps = sorted(start - end for start, end in zip(begun[1:], ended, strict=False))
    print(f"refill: p50 {gaps[len(gaps) // 2] * 1000:.1f} ms, worst {gaps[-1] * 1000:.1f} ms")
    assert gaps[len(gaps) // 2] < 0.5  # a tick would be a second


# -- a broker that fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("wiped", [False, True])
def test_a_broker_that_was_restarted_costs_no_trial(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, wiped: bool
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)  # so that nothing but the broker's return sends it again
    hand = lab.hand("a", 2)
    hand.act = lambda grant: (time.sleep(0.05), Outcome("succeeded"))[1]
    hand.start()
    sweep = lab.submit(60)
    wait_until(lambda: lab.counts(sweep).get("succeeded", 0) > 5)
    hand.deaf = True
    wait_until(lambda: not lab.counts(sweep).get("running") and lab.scheduler.board.under_way() == 2)
    lab.broker.restart(wiped=wiped)
    hand.deaf = False
    wait_until(lambda: lab.state(sweep) == "done", 60)
    assert set(lab.runs.values()) == {1}
    assert any("lost" in line for line in lab.lines)


def test_connections_that_are_closed_by_force_come_back(lab: HeadLab, wait_until: WaitUntil) -> None:
    lab.hand("a", 2).start()
    for _ in range(2):
        sweep = lab.submit(40)
        wait_until(lambda sweep=sweep: lab.counts(sweep).get("succeeded", 0) > 2)
        lab.broker.close_connections()
        wait_until(lambda sweep=sweep: lab.state(sweep) == "done", 60)
    assert set(lab.runs.values()) == {1}


@pytest.mark.slow
def test_a_link_that_is_half_open_is_given_up(lab: HeadLab, wait_until: WaitUntil) -> None:
    lab.hand("a", 2).start()
    first = lab.submit(5)
    wait_until(lambda: lab.state(first) == "done")
    with lab.broker.line.frozen():
        sweep = lab.submit(20)
        wait_until(lambda: not lab.scheduler.connected, 30)
    wait_until(lambda: lab.state(sweep) == "done", 60)
    assert set(lab.runs.values()) == {1}
