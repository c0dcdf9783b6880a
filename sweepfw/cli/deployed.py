"""A deployment as a site: its head's ledger and desk, through SSH."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sweepfw.errors import BusyError, SweepError

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.secrets import Secrets
    from sweepfw.fleet.reach import Reached
    from sweepfw.ledger.desk import Desk

TELLING = 1_000_000  # bytes; sending fewer takes no time
PATIENCE = 30.0  # seconds that running trials have to end before their sweep is deleted


class There:
    """See Site. One connection, opened by `choose` and kept until the command ends."""

    remote = True

    def __init__(self, name: str, place: Workspace, reached: Reached) -> None:
        self.name, self.place = name, place
        self.ledger, self.desk = reached.ledger, reached.desk

    @classmethod
    def choose(cls, on: str | None, place: Workspace) -> There | None:
        """The deployment that is meant, or None. UnreachableError where it does not answer."""
        from sweepfw.config.deployments import choose

        state = choose(on, False, place)
        if state is None:
            return None
        from sweepfw.fleet.reach import connect

        return cls(state.name, place, connect(state))

    def live(self, sweep: Sweep) -> bool:
        """See Site.live: the head runs whatever is queued, unless somebody paused or stopped it."""
        now = self.ledger.sweep(sweep.uid)
        if now.state in ("queued", "running"):
            return bool(now.counts.get("queued") or now.counts.get("running"))
        return bool(now.counts.get("running"))

    def slots(self) -> int | None:
        """See Site.slots."""
        return sum(worker.advert.slots for worker in self.desk.status().workers if worker.alive)

    def log(self, sweep: Sweep, trial: int, attempt: int) -> RemoteLog:
        """See Site.log."""
        return RemoteLog(self.desk, sweep.uid, trial, attempt)

    def tail(self, sweep: Sweep, trial: int, attempt: int, printed: int) -> bytes:
        """See Site.tail. A log that lost its middle is about as long as its limit."""
        from sweepfw.trial.output import TAIL

        log = RemoteLog(
            self.desk, sweep.uid, trial, attempt, max(0, min(printed, sweep.spec.log_limit) - TAIL)
        )
        pieces: list[bytes] = []
        while log.read(pieces.append, ended=True):
            pass
        return b"".join(pieces)[-TAIL:]

    def lines(self, sweep: Sweep, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        """See Site.lines."""
        if path not in self.desk.files(sweep.uid, trial, attempt):
            return
        rest = b""
        for piece in self.desk.file(sweep.uid, trial, attempt, path):
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in whole)
        if rest:
            yield rest

    def files(self, sweep: Sweep, trial: int, attempt: int) -> dict[str, int]:
        """See Site.files."""
        return self.desk.files(sweep.uid, trial, attempt)

    def fetch(self, snapshot: str) -> None:
        """See Site.fetch."""
        fetch(self.desk, self.place.snapshots, snapshot)

    def receive(self, snapshot: str, say: Callable[[str], object] = lambda text: None) -> None:
        """See Site.receive: what the head lacks of it goes there."""

        def tell(count: int) -> None:
            from sweepfw.cli.words import size

            if count > TELLING:
                say(f"sending {size(count)} of the project to {self.name}")

        send(self.desk, self.place.snapshots, snapshot, tell)

    def give(self, uid: str, secrets: Secrets) -> None:
        """See Site.give: the head keeps them for as long as it has the sweep."""
        if secrets:
            self.desk.put_secrets(uid, secrets)

    def forget(self, sweep: Sweep, *, stop: bool) -> None:
        """See Site.forget. BusyError where it runs and `stop` was not said, or its trials don't end."""
        if stop:
            self.ledger.stop(sweep.uid, now=True)
        deadline = time.monotonic() + (PATIENCE if stop else 0)
        while self.ledger.running(sweep.uid):
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{sweep.name} still runs on {self.name}; try again, or look: sweepfw infra status"
                )
            time.sleep(0.2)
        self.desk.forget(sweep.uid)
        from sweepfw.trial.guard.removal import remove

        remove(str(self.place.run(sweep.name)))  # what came home of it


class RemoteLog:
    """See Printed: an attempt's log, from the head."""

    def __init__(self, desk: Desk, uid: str, trial: int, attempt: int, offset: int = 0) -> None:
        self._desk, self._which, self._shown = desk, (uid, trial, attempt), offset

    def read(self, write: Callable[[bytes], object], *, ended: bool) -> bool:
        """See Printed.read."""
        part = self._desk.read_log(*self._which, self._shown)
        if part.data:
            write(part.data)
        self._shown += len(part.data)
        return bool(part.data)

    def close(self) -> None:
        """See Printed.close: there is nothing to close."""


def send(
    desk: Desk, store: Path, snapshot: str, progress: Callable[[int], object] = lambda size: None
) -> int:
    """Bring a snapshot to the head: only contents that it lacks. Bytes that were sent; `progress` is told
    their number before they are."""
    from sweepfw.snapshot.transfer import listed, pack, reader

    wanted = listed(store, snapshot)  # digest -> size
    lacking = desk.lacks(wanted)
    size = sum(wanted[digest] for digest in lacking)
    if lacking:
        progress(size)
        desk.put_contents(reader(pack(store, sorted(lacking))))
    desk.put_manifest(snapshot, (store / f"{snapshot}.json").read_bytes())
    return size


def fetch(desk: Desk, store: Path, snapshot: str) -> None:
    """Bring a snapshot here: only contents that this store lacks."""
    from sweepfw.snapshot.transfer import accept, contents_of, lacking, reader, unpack

    if (store / f"{snapshot}.json").is_file():
        return
    text = desk.manifest(snapshot)
    if wanted := lacking(store, contents_of(text)):
        unpack(store, reader(desk.contents(sorted(wanted))))
    accept(store, snapshot, text)


def required(on: str | None, place: Workspace) -> There:
    """The deployment that must be there."""
    there = There.choose(on, place)
    if there is None:
        raise SweepError("there is no deployment; bring one up with: sweepfw infra up -a HOST[,HOST]")
    return there
