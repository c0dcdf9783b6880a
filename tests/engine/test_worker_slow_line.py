"""A worker far away: every question and answer takes its time, and its trials keep their leases."""

from __future__ import annotations

import time
from pathlib import Path

from broker_lab import Broker
from link import Link
from worker_fixtures import announced
from worker_lab import HeadLab, WorkerLab, until

SLOTS = 6


def test_renewals_of_many_trials_go_side_by_side(broker: Broker, tmp_path: Path) -> None:
    """One after another they would take longer than the lease, and healthy trials would be lost."""
    head = HeadLab(tmp_path, broker, lease=6, renew=1)
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
        deadline = time.monotonic() + 15
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
