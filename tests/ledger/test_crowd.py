"""Who may open connections to the service, beside what tests/attacks shows of it under real ones."""

from __future__ import annotations

import socket

import pytest

from sweepfw.ledger.wire.crowd import Crowd
from sweepfw.ledger.wire.framing import BrokenError


def test_nobody_comes_in_once_it_closes() -> None:
    """One that was accepted just before would find a closed ledger."""
    crowd, (inside, outside) = Crowd(), socket.socketpair()
    with inside, outside:
        crowd.shut(idle_only=True)
        with pytest.raises(BrokenError, match="stops"), crowd.held(inside):
            pytest.fail("it came in")
        assert len(crowd) == 0
