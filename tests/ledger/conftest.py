"""Every test that takes `ledger` runs once for each door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_doors import DOORS, HOST, SPEC, drafts

from sweepfw.core.model import Draft, Grant, Spec, Worker
from sweepfw.ledger import service
from sweepfw.ledger.interface import Ledger
from sweepfw.ledger.wire import caller


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a while is no test's failure, but where patience is what is tested."""
    monkeypatch.setattr(caller, "_PATIENCE", 60.0)
    for name in ("_HEAD", "_BODY"):
        monkeypatch.setattr(service, name, 60.0)


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


@pytest.fixture
def uid(ledger: Ledger, spec: Spec, make_drafts: Callable[[int], list[Draft]]) -> str:
    """A sweep of three trials."""
    return ledger.submit(spec, "snap", make_drafts(3)).uid


@pytest.fixture
def take(ledger: Ledger, uid: str, worker: Worker) -> Callable[..., Grant]:
    """Claims a trial of the sweep; the grant."""
    claims = iter(range(1000))

    def claim(trial: int = 1, sweep: str = uid, by: Worker = worker) -> Grant:
        grant = ledger.claim(sweep, trial, by, "0", f"claim-{next(claims)}")
        assert isinstance(grant, Grant), grant
        return grant

    return claim
