"""A worker far away, or with a head that can't take what it tells: its trials keep their leases."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from broker_lab import Broker
from link import Link
from worker_fixtures import announced
from worker_lab import HeadLab, WorkerLab, until

from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger
from sweepfw.errors import DiskFullError

SLOTS = 12
DELAY = 0.8  # seconds, each way
ONE_BY_ONE = (SLOTS - 2) * 2 * DELAY  # less than all renewals take, one after another


def test_renewals_of_many_trials_go_side_by_side(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another they would take longer than a lease, and healthy trials would be lost."""
    head = HeadLab(tmp_path, broker, renew=1)
    heard: list[tuple[float, str]] = []
    renew = LeasedLedger.renew

    def renewed(self: LeasedLedger, token: str) -> object:
        heard.append((time.monotonic(), token))
        return renew(self, token)

    def soon() -> bool:
        """Whether all were heard of within a time in which one after another can't have come."""
        return any(
            len({token for at, token in heard if begun <= at < begun + ONE_BY_ONE}) == SLOTS
            for begun, _ in list(heard)
        )

    monkeypatch.setattr(LeasedLedger, "renew", renewed)
    link = Link("127.0.0.1", head.service.address)
    head.line.port, port = link.port, head.line.port
    worker = WorkerLab(head, "a", slots=SLOTS)
    try:
        announced(head, worker)
        go = tmp_path / "go"
        sweep = head.submit(f"until [ -e {go} ]; do sleep 0.1; done", SLOTS)
        until(lambda: len(head.ledger.running(sweep.uid)) == SLOTS, what="trials that run")
        link.slow(delay=DELAY)
        time.sleep(2 * DELAY)
        heard.clear()  # what was on its way
        until(soon, 120, lambda: heard)
        link.heal()
        go.touch()
        until(lambda: head.ledger.sweep(sweep.uid).state == "done", what="the sweep's end")
        assert [each.state for each in head.attempts(sweep)] == ["succeeded"] * SLOTS
    finally:
        head.line.port = port
        worker.stop()
        link.close()
        head.stop()


def test_an_end_that_the_head_cannot_take_keeps_its_lease(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full. The trial has ended: it must not run again, so that it is still told of."""
    head = HeadLab(tmp_path, broker, renew=0.5)
    whole = threading.Event()
    told: Counter[str] = Counter()  # tokens: how often they were renewed since their end was refused
    conclude, renew = HeadDesk.conclude, LeasedLedger.renew

    def full(self: HeadDesk, token: str, *rest: Any, **named: Any) -> object:
        if not whole.is_set():
            told[token] += 0
            raise DiskFullError("the disk is full")
        return conclude(self, token, *rest, **named)

    def renewed(self: LeasedLedger, token: str) -> object:
        if token in told:
            told[token] += 1
        return renew(self, token)

    monkeypatch.setattr(HeadDesk, "conclude", full)
    monkeypatch.setattr(LeasedLedger, "renew", renewed)
    worker = WorkerLab(head, "a", slots=2)
    try:
        announced(head, worker)
        sweep = head.submit("true", 2)
        until(lambda: len(told) == 2 and min(told.values()) > 3, what=lambda: told)
        assert head.states(sweep) == ["running", "running"]
        whole.set()
        until(lambda: head.ledger.sweep(sweep.uid).state == "done", what="the sweep's end")
        assert [(each.number, each.state) for each in head.attempts(sweep)] == [(1, "succeeded")] * 2
    finally:
        worker.stop()
        head.stop()
