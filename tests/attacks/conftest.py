"""A head and workers for tests that ask for them (see tests/engine/worker_fixtures), and patience."""

from __future__ import annotations

import pytest
from worker_fixtures import head, work

from sweepfw.ledger import service

__all__ = ["head", "work"]


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test stands still, the service does not end its connections for that. Who waits for
    another's connection to time out waits longer than a test may take."""
    for name in ("_HEAD", "_BODY", "_LINGER"):
        monkeypatch.setattr(service, name, 400.0)
