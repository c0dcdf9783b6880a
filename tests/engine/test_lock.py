"""Who holds a sweep, and who only still has trials to end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sweepfw.config.workspace import Workspace
from sweepfw.engine.lock import SweepLock
from sweepfw.errors import BusyError


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path)
    place.prepare()
    return place


def test_one_holder_at_a_time(place: Workspace) -> None:
    assert not SweepLock.held(place, "u")
    first = SweepLock.acquire(place, "u")
    assert SweepLock.held(place, "u")
    assert SweepLock.heeded(place, "u")
    with pytest.raises(BusyError):
        SweepLock.acquire(place, "u", wait=0)
    first.release()
    assert not SweepLock.held(place, "u")
    SweepLock.acquire(place, "u", wait=0).release()


def test_another_process_keeps_it_but_hears_no_orders(place: Workspace) -> None:
    """As guardian and keepers do, that got the descriptor and outlive their command line."""
    lock = SweepLock.acquire(place, "u")
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    lock.stop_heeding()
    os.close(lock.fd)
    try:
        assert SweepLock.held(place, "u")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert not SweepLock.held(place, "u")
    assert not SweepLock.heeded(place, "u")


def test_waits_for_a_dying_holder(place: Workspace) -> None:
    lock = SweepLock.acquire(place, "u")
    child = os.fork()
    if not child:
        time.sleep(0.5)
        os._exit(0)
    lock.release()
    SweepLock.acquire(place, "u", wait=120).release()
    os.waitpid(child, 0)
