"""A worker's signs of life: one that hangs, or fails as nobody foresaw, is not the others' trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from types import SimpleNamespace

import pytest
from worker_lab import until

from sweepfw.engine.worker import Service


def service(renew: Callable[[str], object], tokens: Collection[str]) -> Service:
    """As much of one as renewals need."""
    running = [SimpleNamespace(grant=SimpleNamespace(token=each, sweep="s", trial=each)) for each in tokens]
    station = SimpleNamespace(leased=lambda: list(running), renew=renew)
    made = object.__new__(Service)
    made.station, made.closing = station, threading.Event()  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("hangs", ["0", "2", "5"])
def test_one_that_hangs_holds_up_no_other(hangs: str) -> None:
    told, go = set[str](), threading.Event()

    def renew(token: str) -> None:
        if token == hangs:
            assert go.wait(150)
        told.add(token)

    tokens = {str(number) for number in range(6)}
    thread = threading.Thread(target=service(renew, sorted(tokens))._renew)
    thread.start()
    try:
        until(lambda: told == tokens - {hangs}, what="all the others")
    finally:
        go.set()
        thread.join(60)
    assert told == tokens


def test_what_nobody_foresaw_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def renew(token: str) -> None:
        raise ValueError(f"no answer of ours: {token}")

    service(renew, "12")._renew()
    said = capsys.readouterr().out
    assert "s/1: ValueError: no answer of ours: 1" in said and "s/2" in said
