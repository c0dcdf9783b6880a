"""What only SQLite's door has, for the head: what waits, and hearing of changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_doors import HOST, SPEC, drafts

from sweepfw.core.model import Grant, Needs, Outcome, Waiting, Worker
from sweepfw.ledger.store import SqliteLedger


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "ledger.db", tmp_path / "runs", clock=lambda: 7.0) as ledger:
        yield ledger


def grant(ledger: SqliteLedger, uid: str, trial: int) -> Grant:
    answer = ledger.claim(uid, trial, HOST, "0", f"c{time.monotonic_ns()}")
    assert isinstance(answer, Grant), answer
    return answer


# -- what waits ----------------------------------------------------------------------------------------


def test_what_waits_is_told_oldest_first(store: SqliteLedger) -> None:
    wide = replace(SPEC, needs=Needs(gpus=2))
    first = store.submit(SPEC, "s", drafts(4))
    second = store.submit(wide, "s", drafts(2))
    store.submit(SPEC, "s", [])
    token = grant(store, first.uid, 2).token
    store.expire(token)
    grant(store, first.uid, 1)
    assert store.waiting(2) == [
        Waiting(first.uid, first.name, 7.0, Needs(), 1, ((2, 1), (3, 0))),
        Waiting(second.uid, second.name, 7.0, Needs(gpus=2), 0, ((1, 0), (2, 0))),
    ]


@pytest.mark.parametrize("order", ["pause", "stop", "remove"])
def test_what_may_not_be_granted_does_not_wait(store: SqliteLedger, order: str) -> None:
    uid = store.submit(SPEC, "s", drafts(2)).uid
    getattr(store, order)(uid)
    assert store.waiting(5) == []


def test_needs_are_those_of_the_newest_spec(store: SqliteLedger) -> None:
    uid = store.submit(SPEC, "s", drafts(1)).uid
    assert store.waiting(1)[0].needs == Needs()
    store.extend(uid, replace(SPEC, needs=Needs(cpus=2)), drafts(2))
    assert store.waiting(1)[0].needs == Needs(cpus=2)


# -- orders --------------------------------------------------------------------------------------------


def test_orders_are_passed_on_without_a_sign_of_life(store: SqliteLedger) -> None:
    uid = store.submit(SPEC, "s", drafts(4)).uid
    grants = [grant(store, uid, number) for number in (1, 2, 3)]
    store.expire(grants[2].token)
    store.stop(uid, [1])
    store.stop(uid, [2], now=True)
    assert store.asked_to_stop(HOST) == {grants[0].token: "stop", grants[1].token: "stop now"}
    assert store.asked_to_stop(Worker(HOST.host, "another")) == {}
    assert store.sweep(uid).counts == {"queued": 2, "running": 2}  # nothing was revived


# -- hearing of changes --------------------------------------------------------------------------------


def test_every_change_has_a_version_of_its_own(store: SqliteLedger) -> None:
    seen = [store.version]
    uid = store.submit(SPEC, "s", drafts(2)).uid
    seen.append(store.version)
    token = grant(store, uid, 1).token
    seen.append(store.version)
    store.finish(token, Outcome("succeeded"))
    seen.append(store.version)
    assert seen == sorted(set(seen))


def test_what_changes_nothing_is_no_version(store: SqliteLedger) -> None:
    uid = store.submit(SPEC, "s", drafts(1)).uid
    token = grant(store, uid, 1).token
    store.register(HOST)
    before = store.version
    store.register(HOST)
    assert store.renew(token) == "go on"
    assert not isinstance(store.claim(uid, 1, HOST, "0", "other"), Grant)
    assert store.close(uid) is False
    store.sweeps()
    assert store.version == before


def test_who_waits_hears_of_a_change_at_once(store: SqliteLedger) -> None:
    uid = store.submit(SPEC, "s", drafts(1)).uid
    seen, heard = store.version, []
    waiter = threading.Thread(target=lambda: heard.append(store.wait_changed(seen, 250)))
    waiter.daemon = True
    waiter.start()
    store.pause(uid)
    waiter.join(60)
    assert heard == [store.version] and heard != [seen]
    assert store.wait_changed(seen, 60) == store.version  # it was there already


def test_no_change_is_missed(store: SqliteLedger) -> None:
    """As many waiters as there may be, while changes come as fast as they can."""
    uid = store.submit(SPEC, "s", drafts(1)).uid
    last = store.version + 600
    late: list[int] = []

    def follow() -> None:
        seen = 0
        while seen < last:
            before, seen = seen, store.wait_changed(seen, 60)
            if seen == before:
                late.append(seen)
                return

    waiters = [threading.Thread(target=follow) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    for _ in range(300):
        store.pause(uid)
        store.open(uid)
    for waiter in waiters:
        waiter.join()
    assert (store.version, late) == (last, [])


def test_waiting_ends_after_its_time_and_with_the_ledger(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db", tmp_path / "runs")
    assert ledger.wait_changed(ledger.version, 0.01) == ledger.version
    waiter = threading.Thread(target=ledger.wait_changed, args=(ledger.version, 250), daemon=True)
    waiter.start()
    ledger.disconnect()
    waiter.join(60)
    assert not waiter.is_alive()
