"""Fixtures for tests of workers, on the broker of all tests: a head and workers for each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_lab import Broker
from worker_lab import HeadLab, WorkerLab, all_ended, processes, until

MARK = f"600.{os.getpid()}{time.time_ns() % 10**6:06}"  # they do not end before a test gives up
SLEEP = f"sleep {MARK}"

Work = Callable[..., WorkerLab]


@pytest.fixture
def head(broker: Broker, tmp_path: Path) -> Iterator[HeadLab]:
    head = HeadLab(tmp_path, broker)
    yield head
    head.stop()


@pytest.fixture
def work(head: HeadLab) -> Iterator[Work]:
    """work("a", slots=2): a worker on a host of its own, which has announced itself."""
    started: list[WorkerLab] = []

    def start(host: str, **settings: Any) -> WorkerLab:
        worker = WorkerLab(head, host, **settings)
        started.append(worker)
        announced(head, worker)
        return worker

    yield start
    for worker in started:
        worker.stop()
    assert processes(MARK) == []


def announced(head: HeadLab, worker: WorkerLab) -> None:
    def known() -> bool:
        return any(each.worker.host == worker.host and each.alive for each in head.desk.status().workers)

    until(known, what=lambda: f"{worker.host} announced: {worker.log.read_text()}")


def ended(head: HeadLab, *sweeps: Any, seconds: float = 60) -> None:
    until(lambda: all_ended(head, sweeps), seconds, "all trials ended")
