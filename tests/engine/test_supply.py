"""What a free slot tries next, on a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweepfw.core.model import Draft, Grant, Outcome, Spec, Worker
from sweepfw.core.values import Number
from sweepfw.engine import supply as supplies
from sweepfw.engine.supply import Supply
from sweepfw.ledger.store import SqliteLedger

ME = Worker("here", "boot")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "ledger.db", tmp_path / "runs") as ledger:
        yield ledger


def submit(ledger: SqliteLedger, trials: int) -> str:
    drafts = (Draft({"i": Number(str(i))}) for i in range(trials))
    sweep = ledger.submit(Spec("p", "main", ("true",)), "snapshot", drafts)
    return ledger.open(sweep.uid).uid


def claim(ledger: SqliteLedger, uid: str, trial: int) -> Grant:
    grant = ledger.claim(uid, trial, ME, "0", f"claim-{trial}")
    assert isinstance(grant, Grant)
    return grant


def drain(ledger: SqliteLedger, supply: Supply, uid: str) -> list[int]:
    """Take and succeed until it is over; the trials in the order in which they were given out."""
    taken = []
    while (trial := supply.take()) is not None:
        taken.append(trial)
        ledger.finish(claim(ledger, uid, trial).token, Outcome("succeeded"))
        supply.done()
    return taken


def test_gives_all_out_in_order_and_closes_the_sweep(ledger: SqliteLedger) -> None:
    uid = submit(ledger, 2 * supplies.BATCH + 3)
    assert drain(ledger, Supply(ledger, uid), uid) == list(range(1, 2 * supplies.BATCH + 4))
    assert ledger.sweep(uid).state == "done"


@pytest.mark.parametrize("only", [[1], [700], [3, 699]])
def test_only_some_leave_the_others_queued(ledger: SqliteLedger, only: list[int]) -> None:
    uid = submit(ledger, 700)
    assert drain(ledger, Supply(ledger, uid, only), uid) == only
    assert ledger.sweep(uid).counts == {"succeeded": len(only), "queued": 700 - len(only)}


def test_waits_for_what_may_be_queued_again(ledger: SqliteLedger) -> None:
    uid = submit(ledger, 1)
    supply = Supply(ledger, uid)
    assert supply.take() == 1
    grant = claim(ledger, uid, 1)
    with ThreadPoolExecutor() as others:
        second = others.submit(supply.take)
        ledger.finish(grant.token, Outcome("lost", "its keeper was killed", again=True))
        supply.done()
        assert second.result(timeout=60) == 1


def test_a_pause_ends_it_once_nothing_runs(ledger: SqliteLedger) -> None:
    uid = submit(ledger, 3)
    supply = Supply(ledger, uid)
    assert supply.take() == 1
    ledger.pause(uid)
    supply.look_again(paused=True)
    with ThreadPoolExecutor() as others:
        second = others.submit(supply.take)
        supply.done()
        assert second.result(timeout=60) is None
    assert ledger.sweep(uid).counts == {"queued": 3}


def test_trials_added_at_the_last_moment_are_given_out(ledger: SqliteLedger) -> None:
    uid = submit(ledger, 1)
    supply = Supply(ledger, uid)
    assert supply.take() == 1
    ledger.finish(claim(ledger, uid, 1).token, Outcome("succeeded"))
    ledger.extend(uid, Spec("p", "main", ("true",)), [Draft({"i": Number("7")})])
    supply.done()
    assert drain(ledger, supply, uid) == [2]
