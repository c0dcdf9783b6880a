"""A worker far away, or with a head that can't take what it tells: its trials keep their leases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from broker_lab import Broker
from link import Link
from worker_fixtures import announced
from worker_lab import HeadLab, WorkerLab, until

from sweepfw.engine.desk import HeadDesk
from sweepfw.errors import DiskFullError

SLOTS = 12


def test_renewals_of_many_trials_go_side_by_side(broker: Broker, tmp_path: Path) -> None:
    """One after another they would take longer than the lease, and healthy trials would be lost."""
    head = HeadLab(tmp_path, broker, lease=12, renew=1)
    link = Link("127.0.0.1", head.service.address)
    head.line.port, port = link.port, head.line.port
    worker = WorkerLab(head, "a", slots=SLOTS)
    try:
        announced(head, worker)
        go = tmp_path / "go"
        sweep = head.submit(f"until [ -e {go} ]; do sleep 0.1; done", SLOTS)
        until(lambda: len(head.ledger.running(sweep.uid)) == SLOTS, 60, "trials that run")
        link.slow(delay=0.8)
        expired = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            expired += [n for n, state in enumerate(head.states(sweep), 1) if state != "running"]
            time.sleep(0.2)
        assert not expired
        link.heal()
        go.touch()
        until(lambda: head.ledger.sweep(sweep.uid).state == "done", 60, "the sweep's end")
        assert [each.state for each in head.attempts(sweep)] == ["succeeded"] * SLOTS
    finally:
        head.line.port = port
        worker.stop()
        link.close()
        head.stop()


def test_an_end_that_the_head_cannot_take_keeps_its_lease(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full for longer than the lease. The trial has ended: it must not run again."""
    head = HeadLab(tmp_path, broker, lease=3, renew=0.5)
    whole = time.monotonic() + 3600
    conclude = HeadDesk.conclude

    def full(*arguments: Any, **named: Any) -> object:
        if time.monotonic() < whole:
            raise DiskFullError("the disk is full")
        return conclude(*arguments, **named)

    monkeypatch.setattr(HeadDesk, "conclude", full)
    worker = WorkerLab(head, "a", slots=2)
    try:
        announced(head, worker)
        sweep = head.submit(f"echo $i >>{tmp_path}/ran", 2)
        until(lambda: (tmp_path / "ran").exists() and len((tmp_path / "ran").read_text().split()) == 2, 60)
        time.sleep(6)
        assert head.states(sweep) == ["running", "running"]
        whole = 0.0
        until(lambda: head.ledger.sweep(sweep.uid).state == "done", 60, "the sweep's end")
        assert [(each.number, each.state) for each in head.attempts(sweep)] == [(1, "succeeded")] * 2
    finally:
        worker.stop()
        head.stop()
