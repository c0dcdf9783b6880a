"""A head's desk and ledger without broker, service and workers, on a folder that outlives it."""

from __future__ import annotations

import os
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import Advert
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Draft, Grant, Spec, Sweep, Worker
from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler

A, A2, B = Worker("a", "a1"), Worker("a", "a2"), Worker("b", "b1")
ADVERT = Advert(
    2, 2, gpus=(Gpu(0, "GPU-0", "A100", 80, 1, (7,)),), labels=("x",), mounts=("/data",), queue="q"
)


class Place:
    """A desk without a broker, on a folder that outlives it."""

    def __init__(self, root: Path) -> None:
        self.place = Workspace(root)
        root.mkdir(exist_ok=True)
        self.place.prepare()
        self.ledger = LeasedLedger(self.place.ledger, self.place.runs, Leases(300))
        self.roster = Roster(self.place.state / "workers.json", ("a", "b"), 300)
        self.scheduler = Scheduler(self.ledger, self.roster, Publisher("amqp://127.0.0.1:1/x"))
        self.desk = HeadDesk(self.place, self.ledger, self.roster, self.scheduler, deployment="d", uid="u")

    def submit(self, trials: int = 3) -> Sweep:
        return self.ledger.submit(
            Spec("p", "t", ("true",)), "5" * 24, [Draft({}, n) for n in range(1, trials + 1)]
        )

    def claim(self, sweep: Sweep, trial: int = 1, worker: Worker = A) -> Grant:
        grant = self.ledger.claim(sweep.uid, trial, worker, "0", os.urandom(4).hex())
        assert isinstance(grant, Grant)
        return grant

    def close(self) -> None:
        self.desk.end()
        self.ledger.disconnect()
