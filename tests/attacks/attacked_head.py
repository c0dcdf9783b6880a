"""A head's service with its real ledger and desk, without a broker, and plain sockets to attack it with."""

from __future__ import annotations

import json
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ledger_doors import SPEC, drafts
from ledger_service import HOSTS, PEOPLE, Head, token
from ledger_wire import Reply, exchange, framed, opening, tls

from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import Advert
from sweepfw.core.model import Grant, Worker
from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import Message, Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler

UID = "0123456789abcdef"
A, B = Worker("a", "a1"), Worker("b", "b1")


class Sent(Publisher):
    """A broker that takes all."""

    def __init__(self) -> None:
        super().__init__("amqp://127.0.0.1:1/x")
        self.queues: set[str] = set()

    @property
    def connected(self) -> bool:
        return True

    def tend(self) -> bool:
        return False

    def publish(self, messages: Iterable[Message]) -> set[str]:
        self.queues |= {message.queue for message in messages}
        return set()


class AttackedHead(Head):
    """As `engine.head.Head` puts it together; `reports` is what its service would have logged."""

    def __init__(self, folder: Path) -> None:
        self.place = Workspace(folder / "head")
        self.place.root.mkdir(parents=True)
        self.place.prepare()
        self.said: list[str] = []  # by the scheduler
        ledger = LeasedLedger(self.place.ledger, self.place.runs, Leases(300))
        roster = Roster(self.place.state / "workers.json", HOSTS, 30)
        self.sent = Sent()
        self.scheduler = Scheduler(ledger, roster, self.sent, self.said.append)
        desk = HeadDesk(self.place, ledger, roster, self.scheduler, deployment="d", uid=UID)
        super().__init__(folder, ledger=ledger, desk=desk)
        self.scheduler.start()

    def stop(self) -> None:
        self.scheduler.stop()
        self.desk.end()
        super().stop()

    def populate(self) -> tuple[Grant, Grant]:
        """A sweep of twelve trials, of which one runs on each of two hosts; their grants."""
        for worker in (A, B):
            self.desk.announce(worker, Advert(2, 2))
        uid = self.ledger.submit(SPEC, "5" * 24, drafts(12)).uid
        mine, other = (self.ledger.claim(uid, n, worker, "0", f"c{n}") for n, worker in ((1, A), (2, B)))
        assert isinstance(mine, Grant) and isinstance(other, Grant)
        return mine, other

    # -- asking ----------------------------------------------------------------------------------------

    def connect(self, seconds: float = 100) -> socket.socket:
        return super().connect(seconds)

    def tls(self) -> ssl.SSLSocket:
        return tls(self.connect())

    def ask(self, path: str, told: Any, shown: str = PEOPLE, body: bytes | None = None) -> Reply:
        """One call on a connection of its own. With a body, `told` stands in the field for arguments."""
        text = told if isinstance(told, str) else json.dumps(told)
        lines = opening(f"/{path}", "Connection: close", shown=shown)
        if body is None:
            return self.send(lines + framed(text.encode()))
        return self.send(lines + f"Sweepfw-Arguments: {text}\r\n".encode() + framed(body))

    def send(self, message: bytes) -> Reply:
        """What the one message gets; status 0 where the connection ended without an answer."""
        with self.tls() as stream:
            answers = exchange(stream, message)
        assert len(answers) <= 1, answers
        return answers[0] if answers else Reply(0)

    # -- what is true afterwards -----------------------------------------------------------------------

    def content(self) -> list[str]:
        """All that the ledger holds."""
        with sqlite3.connect(self.place.ledger) as db:
            return list(db.iterdump())

    def files(self) -> dict[str, bytes]:
        """All that lies on its disk beside the ledger."""
        root = self.place.root
        paths = [path for path in root.rglob("*") if path.is_file() and "ledger.db" not in path.name]
        return {str(path.relative_to(root)): path.read_bytes() for path in paths}

    def check(self) -> None:
        """What must hold of every ledger."""
        with sqlite3.connect(self.place.ledger) as db:
            for name, query in INVARIANTS.items():
                assert db.execute(query).fetchall() == [], name
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert self.reports == []
        assert not [line for line in self.said if "Error" in line or line.startswith("scheduler:")], self.said

    def well(self) -> None:
        """It answers people and workers, as if nothing had been."""
        deadline = time.monotonic() + 100
        while True:
            with suppress(OSError):
                assert self.ask("ledger/sweeps", {}).status == 200
                assert self.ask("ledger/renew", {"token": "0" * 16}, token("other")).status == 200
                return
            assert time.monotonic() < deadline


INVARIANTS = {
    "a success has one accepted attempt": """
        SELECT t.sweep, t.number FROM trial t WHERE (t.state = 'succeeded') <> (1 = (
          SELECT count(*) FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number AND a.accepted))""",
    "one attempt runs at most": """
        SELECT sweep, trial FROM attempt WHERE state = 'running' GROUP BY sweep, trial HAVING count(*) > 1""",
    "what runs has an attempt that runs": """
        SELECT t.sweep, t.number FROM trial t WHERE t.state = 'running' AND NOT EXISTS (
          SELECT 1 FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number AND a.number = t.attempts
          AND a.state = 'running')""",
    "attempts are counted": """
        SELECT t.sweep, t.number FROM trial t WHERE t.attempts <> (
          SELECT count(*) FROM attempt a WHERE a.sweep = t.sweep AND a.trial = t.number)""",
    "what was recorded has an end": """
        SELECT sweep, trial FROM attempt WHERE recorded AND (ended IS NULL OR state = 'running')""",
    "an end is a time": """
        SELECT sweep, trial FROM attempt WHERE ended NOT NULL AND NOT ended BETWEEN 0 AND 253402300799""",
    "states are ours": """
        SELECT number FROM trial WHERE state NOT IN
          ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'held')""",
    "nobody's attempt": """
        SELECT a.token FROM attempt a LEFT JOIN trial t ON t.sweep = a.sweep AND t.number = a.trial
        WHERE t.number IS NULL""",
}
