"""The head's scheduler with a real ledger and a real broker; workers are threads that read their queues."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import kombu
from broker_lab import UID, Broker
from kombu import Exchange, Queue

from sweepfw.core import broker as names
from sweepfw.core.deployment import Advert
from sweepfw.core.model import Draft, Grant, Outcome, Spec, Sweep, Worker
from sweepfw.core.values import Number
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import LOST, Message, Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler


class Hand:
    """A worker of the simplest kind: it reads its queue and claims; `act` decides what becomes of a trial."""

    def __init__(self, lab: HeadLab, host: str, slots: int = 2, **advert: Any) -> None:
        self.lab, self.worker = lab, Worker(host, os.urandom(4).hex())
        self.queue = names.queue(UID, host, self.worker.boot)
        self.advert = Advert(slots, slots, queue=self.queue, **advert)
        self.received: list[tuple[str, int]] = []
        self.headers: list[dict[str, Any]] = []
        self.deaf = False  # takes messages and does nothing
        self.act: Callable[[Grant], Outcome | None] = lambda grant: Outcome("succeeded")
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._read, daemon=True)]
        self._threads += [threading.Thread(target=self._beat, daemon=True)]

    def start(self, *, announce: bool = True) -> Hand:
        if announce:
            self.announce()
        for thread in self._threads:
            thread.start()
        return self

    def announce(self) -> None:
        self.lab.ledger.register(self.worker)
        self.lab.roster.announce(self.worker, self.advert)
        self.lab.scheduler.wake()

    def end(self) -> None:
        self._ending.set()

    def _beat(self) -> None:
        while not self._ending.wait(0.2):
            self.lab.roster.heard(self.worker, connected=True)

    def _read(self) -> None:
        address = self.lab.broker.address(names.worker_user(self.worker.host))
        queue = Queue(
            self.queue,
            Exchange(""),
            routing_key=self.queue,
            durable=True,
            queue_arguments={"x-expires": 120_000},
        )
        while not self._ending.is_set():
            with suppress(*LOST):
                with kombu.Connection(address, connect_timeout=20) as connection:
                    with connection.Consumer(queue, callbacks=[self._take], accept=["json"]):
                        while not self._ending.is_set():
                            with suppress(TimeoutError):
                                connection.drain_events(timeout=0.2)
            self._ending.wait(0.2)

    def _take(self, body: Any, message: Any) -> None:
        message.ack()
        (uid, trial), *_ = body
        self.received.append((uid, trial))
        self.headers.append(message.headers)
        if not self.deaf:
            threading.Thread(target=self._run, args=(uid, trial), daemon=True).start()

    def _run(self, uid: str, trial: int) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            grant = self.lab.ledger.claim(uid, trial, self.worker, "0", os.urandom(8).hex())
            if isinstance(grant, Grant):
                self.lab.runs[uid, trial] += 1
                outcome = self.act(grant)
        finally:
            with self._lock:
                self.running -= 1
        if isinstance(grant, Grant) and outcome is not None:
            self.lab.ledger.finish(grant.token, outcome)


class Recording(Publisher):
    """Keeps what it sent, and the ids of what did not arrive."""

    def __init__(self, address: str, report: Callable[[str], None]) -> None:
        super().__init__(address, report)
        self.sent: list[Message] = []
        self.returned: set[str] = set()

    def publish(self, messages: Iterable[Message]) -> set[str]:
        messages = list(messages)
        self.sent += messages
        returned = super().publish(messages)
        self.returned |= returned
        return returned


class HeadLab:
    def __init__(self, folder: Path, broker: Broker) -> None:
        self.broker = broker
        self.lines: list[str] = []
        self.runs: Counter[tuple[str, int]] = Counter()
        self.ledger = LeasedLedger(folder / "ledger.db", folder / "runs", Leases(300))
        self.roster = Roster(folder / "workers.json", ("a", "b"), 30)
        self.publisher = Recording(broker.address(names.HEAD), self.lines.append)
        self.scheduler = Scheduler(self.ledger, self.roster, self.publisher, self.lines.append)
        self.hands: list[Hand] = []

    def hand(self, host: str = "a", slots: int = 2, **advert: Any) -> Hand:
        self.hands.append(Hand(self, host, slots, **advert))
        return self.hands[-1]

    def submit(self, trials: int, name: str | None = None, **spec: Any) -> Sweep:
        drafts = [Draft({"lr": Number(f"0.{n}"), "opt": "sgd"}) for n in range(1, trials + 1)]
        return self.ledger.submit(Spec("p", "t", ("true",), **spec), "5" * 24, drafts, name=name)

    def state(self, sweep: Sweep) -> str:
        return self.ledger.sweep(sweep.uid).state

    def counts(self, sweep: Sweep) -> dict[str, int]:
        return dict(self.ledger.sweep(sweep.uid).counts)
