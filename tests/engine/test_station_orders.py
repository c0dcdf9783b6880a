"""Orders that come when an attempt is about to begin: between its claim and our first knowledge of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Grant, Outcome, Receipt, Spec, Sweep, Worker
from sweepfw.engine.berths import Berths
from sweepfw.engine.shipping import Head
from sweepfw.engine.station import Station


class Doors:
    """A head that wants the attempt stopped; `during` happens while the claim's answer is on its way."""

    def __init__(self) -> None:
        self.during = lambda: None
        self.told: list[Outcome] = []

    def claim(self, uid: str, trial: int, worker: Worker, slot: str, claim_id: str) -> Grant:
        self.during()
        return Grant("p-1", uid, trial, 1, "token", {}, 1, "snapshot")

    def renew(self, token: str) -> str:
        return "stop"

    def conclude(
        self, token: str, offset: int, log: bytes, files: Mapping[str, bytes], outcome: Outcome
    ) -> Receipt:
        return self.finish(token, outcome)

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        self.told.append(outcome)
        return Receipt(True, False, "cancelled")


class Stores:
    """Where nothing is ever ready, until it is not wanted any more."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sweep(self, uid: str) -> Sweep:
        return Sweep(uid, "p-1", Spec("p", "t", ("true",)), "snapshot", "running", 0.0)

    def run(self, sweep: Sweep) -> str:
        return str(self._root / "runs" / sweep.name)

    def secrets(self, sweep: Sweep, token: str) -> None: ...

    def job(self, sweep: Sweep, snapshot: str, stopped: Any, secrets: None) -> None:
        while not stopped():
            threading.Event().wait(0.01)


class Keeper:
    def gone(self) -> bool:
        return False

    def stop(self, why: str, grace: float) -> None: ...


def station(tmp_path: Path) -> tuple[Station, Doors]:
    doors = Doors()
    any_doors: Any = doors
    head = Head(any_doors, any_doors, threading.Event(), print, tmp_path)
    stand_in: Any = Stores(tmp_path)
    keepers: Any = [Keeper()]
    guardian: Any = None
    made = Station(
        Workspace(tmp_path), Worker("a", "b"), head, guardian, keepers, Berths("a", 1, 1, []), stand_in
    )
    return made, doors


def test_a_stop_that_comes_with_the_claims_answer_is_heard(tmp_path: Path) -> None:
    made, doors = station(tmp_path)
    doors.during = lambda: made.stop("token", "stop")
    made.run("uid", 1)
    assert [outcome.state for outcome in doors.told] == ["interrupted"]
    assert made.wait_idle(0) and made.attempts() == []


def test_a_worker_that_ends_while_it_claims_gives_the_trial_back(tmp_path: Path) -> None:
    made, doors = station(tmp_path)
    doors.during = lambda: made.interrupt(1)
    made.run("uid", 1)
    assert [(outcome.state, outcome.again) for outcome in doors.told] == [("interrupted", True)]
    made.run("uid", 2)
    assert len(doors.told) == 1
