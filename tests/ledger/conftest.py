"""Every test that takes `ledger` runs once for each door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_doors import DOORS, HOST, SPEC, drafts

from sweepfw.core.model import Draft, Spec, Worker
from sweepfw.ledger.interface import Ledger


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    door = request.param(tmp_path)
    yield door
    door.disconnect()


@pytest.fixture
def spec() -> Spec:
    return SPEC


@pytest.fixture
def worker() -> Worker:
    return HOST


@pytest.fixture
def make_drafts() -> Callable[[int], list[Draft]]:
    return drafts
