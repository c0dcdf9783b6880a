"""What the scheduler sends to whom, and what a broker that fails costs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_lab import Broker
from scheduler_lab import HeadLab

from sweepfw.core.model import Grant, Needs, Outcome, Sweep, Worker
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.engine import board, scheduler
from sweepfw.ledger.store import SqliteLedger

WaitUntil = Callable[..., None]


@pytest.fixture
def lab(tmp_path: Path, broker: Broker) -> Iterator[HeadLab]:
    found = HeadLab(tmp_path, broker)
    found.scheduler.start()
    yield found
    for hand in found.hands:
        hand.end()
    found.scheduler.stop()
    found.ledger.disconnect()


def test_all_trials_run_once_and_never_more_than_there_are_slots(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)  # whatever is slow here is not sent again for it
    a, b = lab.hand("a", 2).start(), lab.hand("b", 3).start()
    sweep = lab.submit(100)
    wait_until(lambda: lab.state(sweep) == "done")
    assert lab.counts(sweep) == {"succeeded": 100}
    assert set(lab.runs.values()) == {1}
    assert a.most <= 2 and b.most <= 3
    if not any("lost" in line for line in lab.lines):  # a broker that gave up a slow head is sent all again
        assert sorted(a.received + b.received) == [(sweep.uid, trial) for trial in range(1, 101)]


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
    wait_until(lambda: hand.received)
    hand.deaf = False
    wait_until(lambda: lab.state(sweep) == "done")
    assert len(hand.received) > 1
    assert len({headers["id"] for headers in hand.headers}) == 1


def test_what_is_sent_while_its_sweep_is_still_submitted_is_sent_once(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Flower shows it twice."""
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)
    submit = SqliteLedger.submit
    hand = lab.hand("a", 2)
    hand.deaf = True
    hand.start()

    def slowly(*given: Any, **named: Any) -> Sweep:
        sweep = submit(*given, **named)
        lab.scheduler.wake()
        wait_until(lambda: (sweep.uid, 1) in hand.received)
        return sweep

    monkeypatch.setattr(SqliteLedger, "submit", slowly)
    sweeps = [lab.submit(1).uid for _ in range(2)]
    tasks = {(message.uid, message.task) for message in lab.publisher.sent}
    assert sorted(uid for uid, _ in tasks) == sorted(sweeps)


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
    wait_until(lambda: lab.publisher.returned)
    assert lab.scheduler.connected
    late.start()
    wait_until(lambda: lab.state(sweep) == "done")


@pytest.mark.parametrize("why", ["silent", "drained", "without the broker"])
def test_nothing_is_sent_to_who_is_silent_drained_or_without_the_broker(
    lab: HeadLab, wait_until: WaitUntil, why: str
) -> None:
    hand = lab.hand("a", 2)
    hand.announce()
    if why == "silent":
        lab.roster.patience = 3
        wait_until(lambda: not lab.roster.ready())
    elif why == "drained":
        lab.roster.drain("a", off=False)
    else:
        lab.roster.heard(hand.worker, connected=False)
    other = lab.hand("b", 1).start()
    sweep = lab.submit(9)
    wait_until(lambda: lab.state(sweep) == "done")
    assert {message.queue for message in lab.publisher.sent} == {other.queue}


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
    wait_until(lambda: deaf.received)
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
    wait_until(lambda: any("worker on a: here, 1 slots" in line for line in lab.lines))


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
    wait_until(lambda: lab.state(sweep) == "done")


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
    wait_until(lambda: lab.state(sweep) == "done")


def test_a_host_where_trials_fail_at_once_gets_one_at_a_time(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)  # nobody is taken for slow
    monkeypatch.setattr(board, "QUICK", 3600)
    hand = lab.hand("a", 4)
    hand.act = lambda grant: Outcome("failed", "exit 1")
    hand.start()
    sweep = lab.submit(12, max_failures=None)
    wait_until(lambda: lab.state(sweep) == "done")
    hand.most, hand.act = 0, lambda grant: (time.sleep(0.1), Outcome("failed", "exit 1"))[1]
    sweep = lab.submit(4, max_failures=None)
    wait_until(lambda: lab.state(sweep) == "done")
    assert hand.most == 1
    together = threading.Barrier(4, timeout=60)

    def act(grant: Grant) -> Outcome:
        if grant.trial > 1:  # one success, and it gets as many as it has slots
            together.wait()
        return Outcome("succeeded")

    hand.act = act
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
    assert set(hand.received) == {(fine.uid, 1)}
    lab.ledger.stop(sweep.uid)


def test_a_free_slot_is_filled_at_once(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.hand("a", 1).start()
    first = lab.submit(1)
    wait_until(lambda: lab.state(first) == "done")
    monkeypatch.setattr(scheduler, "TICK", 10)  # with the ticks it would take minutes
    sweep = lab.submit(50)
    wait_until(lambda: lab.state(sweep) == "done")


# -- a broker that fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("wiped", [False, True])
def test_a_broker_that_was_restarted_costs_no_trial(
    lab: HeadLab, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, wiped: bool
) -> None:
    monkeypatch.setattr(board, "FIRST_PAUSE", 3600)  # so that nothing but the broker's return sends it again
    hand = lab.hand("a", 2)

    def act(grant: Grant) -> Outcome:
        hand.deaf |= len(hand.received) > 5
        return Outcome("succeeded")

    hand.act = act
    hand.start()
    sweep = lab.submit(60)
    wait_until(lambda: hand.deaf)
    wait_until(lambda: not lab.counts(sweep).get("running") and lab.scheduler.board.under_way() == 2)
    lab.broker.restart(wiped=wiped)
    hand.act = lambda grant: Outcome("succeeded")
    hand.deaf = False
    wait_until(lambda: lab.state(sweep) == "done")
    assert set(lab.runs.values()) == {1}
    assert any("lost" in line for line in lab.lines)


def test_connections_that_are_closed_by_force_come_back(lab: HeadLab, wait_until: WaitUntil) -> None:
    hand = lab.hand("a", 2).start()
    for _ in range(2):
        closed = threading.Event()
        hand.act = lambda grant, closed=closed: (  # type: ignore[misc]  # the loop's own
            Outcome("succeeded") if grant.trial < 4 or closed.wait(60) else None
        )
        sweep = lab.submit(40)
        wait_until(lambda sweep=sweep: lab.counts(sweep).get("succeeded", 0) > 2)
        lab.broker.close_connections()
        closed.set()
        wait_until(lambda sweep=sweep: lab.state(sweep) == "done")
    assert set(lab.runs.values()) == {1}


@pytest.mark.slow
def test_a_link_that_is_half_open_is_given_up(lab: HeadLab, wait_until: WaitUntil) -> None:
    lab.hand("a", 2).start()
    first = lab.submit(5)
    wait_until(lambda: lab.state(first) == "done")
    with lab.broker.line.frozen():
        sweep = lab.submit(20)
        wait_until(lambda: not lab.scheduler.connected)
    wait_until(lambda: lab.state(sweep) == "done")
    assert set(lab.runs.values()) == {1}
