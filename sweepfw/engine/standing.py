"""Standing orders: what each worker is to do, told at once to whoever waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from sweepfw import crash
from sweepfw.core.deployment import Orders
from sweepfw.core.model import Worker
from sweepfw.engine.bell import Bell

Stops: TypeAlias = Mapping[str, Literal["stop", "stop now"]]

KEPT = 1000  # names of forgotten sweeps that workers are told at their start


@dataclass(slots=True)
class _Told:
    """What a worker was told last. `as_of`: how many changes it knows."""

    as_of: int
    orders: Orders
    gone: dict[str, Literal["stop", "stop now"]] = field(default_factory=dict)  # of removed sweeps


class StandingOrders:
    """`stops` asks the ledger which attempts of a worker have to stop. Safe from several threads."""

    def __init__(self, file: Path, stops: Callable[[Worker], Stops]) -> None:
        self._file, self._stops = file, stops
        self._news = Bell()
        self._pause = threading.Event()  # set at our end
        self._lock = threading.Lock()  # guards all below
        # Counted from the time of our start: what a worker has seen of an earlier head is never the newest.
        self._number = time.time_ns() // 1_000_000
        self._told: dict[Worker, _Told] = {}
        self._forgotten = _read(file)

    def changed(self) -> None:
        """Some worker's orders may be others."""
        self._news.ring()

    def forget(self, sweep: str, running: Mapping[Worker, list[str]]) -> None:
        """The sweep's files can go. `running`: its attempts; the ledger does not know them any more."""
        with self._lock:
            self._forgotten = [*self._forgotten, sweep][-KEPT:]
            draft = self._file.with_suffix(".tmp")
            draft.write_text(json.dumps(self._forgotten))
            crash.point("head.forgotten")
            draft.replace(self._file)
            for worker, tokens in running.items():
                self._look(worker, self._news.rings).gone |= dict.fromkeys(tokens, "stop now")
        self.changed()

    def wait(self, worker: Worker, seen: int, seconds: float) -> Orders:
        """The worker's orders, as soon as they are other than those that it has seen."""
        deadline = time.monotonic() + seconds
        while True:
            rings = self._news.rings
            with self._lock:
                orders = self._look(worker, rings).orders
            if orders.seen != seen or not self._news.wait(rings, deadline - time.monotonic()):
                return orders

    def replaced(self, seen: int, seconds: float) -> Orders:
        """For a worker that was replaced: it has to end."""
        orders = Orders(1, drain=True)
        if seen == orders.seen:
            self._pause.wait(seconds)
        return orders

    def end(self) -> None:
        """Let nobody wait any longer."""
        self._news.end()
        self._pause.set()

    def _look(self, worker: Worker, rings: int) -> _Told:
        told = self._told.get(worker)
        if told is None:
            for other in [other for other in self._told if other.host == worker.host]:
                del self._told[other]
            told = self._told[worker] = _Told(-1, Orders(0))
        if told.as_of < rings:
            told.as_of = rings
            orders = Orders(0, {**self._stops(worker), **told.gone}, forget=tuple(self._forgotten))
            if told.orders.seen == 0 or orders != told.orders._replace(seen=0):
                self._number += 1
                told.orders = orders._replace(seen=self._number)
        return told


def _read(file: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(file.read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        return []
