"""Leases on the head's own clock, and the ledger that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.model import Denial, Draft, Grant, Outcome, Receipt, Spec, Sweep, Worker
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.errors import LedgerError

A, B = Worker("a", "a1"), Worker("b", "b1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """What a watch is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def granted(self, grant: Grant, worker: Worker) -> None:
        self.lines.append(f"granted {grant.trial} to {worker.host}")

    def denied(self, uid: str, trial: int) -> None:
        self.lines.append(f"denied {trial}")

    def ended(self, token: str, outcome: Outcome, receipt: Receipt) -> None:
        self.lines.append(f"ended {outcome.state}")

    def changed(self, uid: str | None) -> None:
        self.lines.append("changed")

    def ordered(self) -> None:
        self.lines.append("ordered")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[LeasedLedger]:
    with LeasedLedger(tmp_path / "ledger.db", tmp_path / "runs", Leases(300, clock)) as found:
        yield found


@pytest.fixture
def sweep(ledger: LeasedLedger) -> Sweep:
    return ledger.submit(Spec("p", "t", ("true",)), "s" * 24, [Draft({}, n) for n in range(1, 4)])


def claim(ledger: LeasedLedger, sweep: Sweep, trial: int = 1, worker: Worker = A) -> Grant:
    grant = ledger.claim(sweep.uid, trial, worker, "0", f"{worker.boot}-{trial}")
    assert isinstance(grant, Grant)
    return grant


def pass_time(ledger: LeasedLedger, clock: Clock, seconds: float) -> list[str]:
    """As the reaper does: it looks every 25 s."""
    reaped = []
    while seconds > 0:
        clock.now += min(25, seconds)
        seconds -= 25
        reaped += [grant.token for grant in ledger.reap()]
    return reaped


def state(ledger: LeasedLedger, sweep: Sweep, trial: int = 1) -> str:
    [found] = ledger.trials(sweep.uid, numbers=[trial])
    return found.state


def test_a_silent_attempt_is_queued_again_after_its_lease(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    grant = claim(ledger, sweep)
    assert pass_time(ledger, clock, 299) == []
    assert pass_time(ledger, clock, 2) == [grant.token]
    assert state(ledger, sweep) == "queued"
    assert pass_time(ledger, clock, 900) == []


def test_who_renews_keeps_it(ledger: LeasedLedger, sweep: Sweep, clock: Clock) -> None:
    grant = claim(ledger, sweep)
    for _ in range(100):
        assert pass_time(ledger, clock, 200) == []
        assert ledger.renew(grant.token) == "go on"
    assert pass_time(ledger, clock, 301) == [grant.token]


def test_who_comes_back_before_another_got_it_goes_on(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    grant = claim(ledger, sweep)
    pass_time(ledger, clock, 1000)
    assert ledger.renew(grant.token) == "go on"
    assert state(ledger, sweep) == "running"
    assert pass_time(ledger, clock, 299) == []
    assert pass_time(ledger, clock, 2) == [grant.token]


def test_who_comes_back_after_another_got_it_has_to_stop(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    first = claim(ledger, sweep)
    pass_time(ledger, clock, 301)
    second = claim(ledger, sweep, worker=B)
    assert ledger.renew(first.token) == "stop"
    assert pass_time(ledger, clock, 250) == []  # the first has no lease that could run out again
    assert ledger.renew(second.token) == "go on"


def test_a_gap_in_the_reapers_own_loop_starts_all_anew(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    grant = claim(ledger, sweep)
    pass_time(ledger, clock, 200)
    clock.now += 40_000  # the laptop slept: nobody could have been heard
    assert ledger.reap() == []
    assert pass_time(ledger, clock, 299) == []
    assert pass_time(ledger, clock, 2) == [grant.token]


def test_a_new_head_starts_all_anew(tmp_path: Path, clock: Clock) -> None:
    with LeasedLedger(tmp_path / "l.db", tmp_path / "runs", Leases(300, clock)) as ledger:
        sweep = ledger.submit(Spec("p", "t", ("true",)), "s" * 24, [Draft({})])
        grant = claim(ledger, sweep)
        pass_time(ledger, clock, 290)
    with LeasedLedger(tmp_path / "l.db", tmp_path / "runs", Leases(300, clock)) as ledger:
        assert pass_time(ledger, clock, 299) == []
        assert pass_time(ledger, clock, 2) == [grant.token]


def test_a_failed_write_starts_all_anew(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant, other = claim(ledger, sweep, 1), claim(ledger, sweep, 2)
    pass_time(ledger, clock, 290)

    def broken(*_: object, **__: object) -> object:
        raise LedgerError("the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr(ledger._db, "write", broken)
        with pytest.raises(LedgerError):
            ledger.finish(grant.token, Outcome("succeeded"))
    assert pass_time(ledger, clock, 299) == []
    assert sorted(pass_time(ledger, clock, 2)) == sorted([grant.token, other.token])


def test_what_ended_has_no_lease(ledger: LeasedLedger, sweep: Sweep, clock: Clock) -> None:
    grant = claim(ledger, sweep)
    ledger.finish(grant.token, Outcome("succeeded"))
    assert pass_time(ledger, clock, 1000) == []
    assert state(ledger, sweep) == "succeeded"
    ledger.renew(grant.token)
    assert pass_time(ledger, clock, 1000) == []


def test_what_ended_with_its_worker_is_not_said_to_run_out(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    claim(ledger, sweep)
    ledger.register(Worker(A.host, "another boot"))
    assert pass_time(ledger, clock, 1000) == []


def test_watches_hear_of_everything_that_concerns_them(
    ledger: LeasedLedger, sweep: Sweep, clock: Clock
) -> None:
    heard = Heard()
    ledger.watches.append(heard)
    grant = claim(ledger, sweep)
    ledger.finish(grant.token, Outcome("failed", "exit 1"))
    ledger.stop(sweep.uid, [2])
    assert isinstance(ledger.claim(sweep.uid, 2, A, "0", "x"), Denial)
    assert heard.lines == ["granted 1 to a", "ended failed", "changed", "ordered", "denied 2"]


@given(st.lists(st.tuples(st.sampled_from(["hold", "drop", "pass", "sleep", "look"]), st.integers(0, 3))))
def test_nobody_expires_who_was_heard_of_within_the_length(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    leases = Leases(10, clock)
    heard: dict[str, float] = {}
    watched = clock.now  # since when we looked often enough
    looked = clock.now
    for step, who in steps:
        token = str(who)
        if step == "hold":
            leases.hold(token)
            heard[token] = clock.now
        elif step == "drop":
            leases.drop(token)
            heard.pop(token, None)
        elif step == "pass":
            clock.now += 2
        elif step == "sleep":
            clock.now += 100
        if step in ("look", "pass"):
            found = leases.ran_out()
            if clock.now - looked > 2.5:
                watched = clock.now
            looked = clock.now
            over = {token for token, at in heard.items() if clock.now - max(at, watched) >= 10}
            assert set(found) == over
