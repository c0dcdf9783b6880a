"""The head's desk (see ledger.desk.Desk): workers and their orders, snapshots, what attempts leave."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import sweepfw
from sweepfw import crash
from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.broker import queue
from sweepfw.core.deployment import Advert, HeadStatus, Orders, WorkerStatus
from sweepfw.core.model import Grant, Outcome, Receipt, Worker
from sweepfw.core.secrets import Secrets
from sweepfw.engine.kept import Kept
from sweepfw.engine.leases import LeasedLedger
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler
from sweepfw.engine.secrets import SecretStore
from sweepfw.engine.standing import StandingOrders, Stops
from sweepfw.errors import SweepError
from sweepfw.snapshot import transfer
from sweepfw.trial.aside import put_aside, put_aside_before

_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
_BOOT = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
_GPUS = 1000  # of one host, and more than any has
UNCONNECTED = 1.0  # seconds that one waits who has lost the broker: we want to hear that it is back
_LOCK_LIMIT = 10_000_000  # characters of a list of versions


class HeadDesk(Kept):
    """The desk on a workspace. Watches the ledger (see leases.Watch)."""

    def __init__(
        self,
        place: Workspace,
        ledger: LeasedLedger,
        roster: Roster,
        scheduler: Scheduler,
        *,
        deployment: str,
        uid: str,
    ) -> None:
        super().__init__(place, ledger)
        self._roster, self._scheduler = roster, scheduler
        self._deployment, self._uid, self._started = deployment, uid, time.time()
        self._orders = StandingOrders(place.state / "forgotten.json", self._stops)
        self._secrets = SecretStore(place.state / "secrets")
        self._tidy_secrets()
        self._finish_forgetting()
        ledger.watches.append(self)

    def end(self) -> None:
        """Let nobody wait any longer."""
        self._orders.end()
        self._ledger.output.end()

    # -- workers ---------------------------------------------------------------------------------------

    def announce(self, worker: Worker, advert: Advert) -> None:
        """See Desk.announce. Its queue has the name that it must have: the head may write to every queue."""
        if not _BOOT.fullmatch(worker.boot) or len(advert.gpus) > _GPUS:
            raise SweepError(
                f"worker on {worker.host}: a boot is up to 32 hex digits, and no host has over {_GPUS} GPUs"
            )
        advert = advert._replace(queue=queue(self._uid, worker.host, worker.boot))
        self._ledger.register(worker)
        crash.point("head.registered")
        self._roster.announce(worker, advert)
        self._scheduler.wake()

    def orders(self, worker: Worker, seen: int, wait: float, *, connected: bool = True) -> Orders:
        """See Desk.orders. A worker that a newer boot replaced is told to end."""
        wait = max(0.0, min(wait, self._roster.patience / 2))  # to wait is no sign of life
        if not connected:
            wait = min(wait, UNCONNECTED)
        member, ready = self._roster.heard(worker, connected=connected)
        if member is None:
            if self._roster.known(worker.host):
                return self._orders.replaced(seen, wait)
            raise SweepError(f"worker on {worker.host}: not known here; announce it first")
        if ready:
            self._scheduler.wake()
        return self._orders.wait(worker, seen, wait)

    def environment_lock(self, uid: str, snapshot: str, text: str | None) -> str | None:
        """See Desk.environment_lock."""
        if snapshot not in self._ledger.snapshots(uid):
            raise SweepError(f"{snapshot[:80]!r}: is no snapshot of this sweep")
        path = self._place.run(self._ledger.sweep(uid).name) / "environment" / f"{snapshot}.txt"
        if text is not None and not path.exists():
            if len(text) > _LOCK_LIMIT:
                raise SweepError(f"{path}: a list of versions has at most {_LOCK_LIMIT} characters")
            _write_first(path, text, self._drafts)
        return path.read_text() if path.exists() else None

    # -- snapshots -------------------------------------------------------------------------------------

    def lacks(self, digests: Collection[str]) -> set[str]:
        """See Desk.lacks."""
        return transfer.lacking(self._place.snapshots, digests)

    def put_contents(self, pack: IO[bytes]) -> None:
        """See Desk.put_contents."""
        transfer.unpack(self._place.snapshots, pack)

    def put_manifest(self, id: str, text: bytes) -> None:
        """See Desk.put_manifest."""
        transfer.accept(self._place.snapshots, id, text)

    def manifest(self, id: str) -> bytes:
        """See Desk.manifest."""
        path = snapshots.manifest(self._place.snapshots, id)
        if not _ID.fullmatch(id) or not path.is_file():
            raise SweepError(f"{id[:80]!r}: the head has no such snapshot; submit the sweep again")
        return path.read_bytes()

    def contents(self, digests: Collection[str]) -> Iterator[bytes]:
        """See Desk.contents."""
        if missing := transfer.lacking(self._place.snapshots, digests):  # before the first piece is sent
            raise SweepError(f"{min(missing)}: the head has no such content; submit the sweep again")
        return transfer.pack(self._place.snapshots, digests)

    # -- secrets ---------------------------------------------------------------------------------------

    def put_secrets(self, uid: str, values: Mapping[str, bytes]) -> None:
        """See Desk.put_secrets."""
        self._secrets.put(uid, values)
        self._tidy_secrets()

    def _tidy_secrets(self) -> None:
        if self._secrets.old():
            self._secrets.tidy({sweep.uid for sweep in self._ledger.sweeps()})

    def secrets(self, token: str) -> Secrets:
        """See Desk.secrets."""
        grant = self._ledger.look(token)
        if grant is None:
            raise SweepError("secrets are for attempts that run; this token's does not")
        values = self._secrets.get(grant.uid)
        if values is None:
            raise SweepError(
                f"secrets of {grant.sweep} are not at the head; send them with: sweepfw retry {grant.sweep}"
            )
        return values

    # -- people ----------------------------------------------------------------------------------------

    def forget(self, uid: str) -> None:
        """See Desk.forget."""
        sweep = self._ledger.sweep(uid)
        running = {
            member.worker: [a.token for found, a in self._ledger.running_on(member.worker) if found == uid]
            for member, *_ in self._roster.all()
        }
        # Renamed first: killed at any moment, this leaves a sweep that can be forgotten again, or rubbish
        # whose name tells the next head what workers still have to delete.
        rubbish = put_aside(self._place.run(sweep.name))
        crash.point("remove.aside")
        self._secrets.forget(uid)
        self._ledger.remove(uid)
        self._ledger.flush()
        self._orders.forget(sweep.name, {worker: tokens for worker, tokens in running.items() if tokens})
        shutil.rmtree(rubbish, ignore_errors=True)

    def _finish_forgetting(self) -> None:
        """What a head began that was killed."""
        left = put_aside_before(self._place.runs)
        known = {sweep.name for sweep in self._ledger.sweeps()} if left else set()
        for name, _ in left:
            if name not in known:
                self._orders.forget(name, {})
        # A sweep's folder may hold millions of files, and nobody is to wait for us until they are gone.
        threading.Thread(target=_remove, args=([rubbish for _, rubbish in left],), daemon=True).start()

    def drain(self, host: str, *, off: bool = False) -> None:
        """See Desk.drain."""
        if not self._roster.drain(host, off=off):
            known = ", ".join(sorted(member.worker.host for member, *_ in self._roster.all()))
            raise SweepError(f"{host}: no worker of this deployment; there are: {known or 'none yet'}")
        self._scheduler.wake()

    def status(self) -> HeadStatus:
        """See Desk.status."""
        sweeps = {sweep.uid: sweep for sweep in self._ledger.sweeps()}
        names = {uid: sweep.name for uid, sweep in sweeps.items()}
        return HeadStatus(
            deployment=self._deployment,
            uid=self._uid,
            version=sweepfw.__version__,
            started=self._started,
            broker=self._scheduler.connected,
            queued=sum(sweep.counts.get("queued", 0) for sweep in sweeps.values()),
            running=sum(sweep.counts.get("running", 0) for sweep in sweeps.values()),
            disk_free=shutil.disk_usage(self._place.root).free,
            workers=tuple(self._workers(names)),
            extra={"unmet": self._scheduler.unmet(), "cautious": self._scheduler.board.cautious()},
        )

    def _workers(self, names: dict[str, str]) -> Iterator[WorkerStatus]:
        for member, alive, silent, drained in self._roster.all():
            running = tuple(
                (names.get(uid, uid), each.trial, each.number, each.slot)
                for uid, each in self._ledger.running_on(member.worker)
            )
            seen = min(silent, time.time() - self._started)  # infinite: not heard of since the head started
            yield WorkerStatus(member.worker, member.advert, alive, seen, drained, running)

    # -- what happens at the ledger --------------------------------------------------------------------

    def granted(self, grant: Grant, worker: Worker) -> None: ...
    def denied(self, uid: str, trial: int) -> None: ...
    def ended(self, token: str, outcome: Outcome, receipt: Receipt) -> None: ...
    def changed(self, uid: str | None) -> None: ...

    def ordered(self) -> None:
        """Whoever runs what was stopped hears of it now."""
        self._orders.changed()

    def _stops(self, worker: Worker) -> Stops:
        answers = {a.token: self._ledger.renew(a.token) for _, a in self._ledger.running_on(worker)}
        return {token: answer for token, answer in answers.items() if answer != "go on"}


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _write_first(path: Path, text: str, drafts: Path) -> None:
    """Write the file unless it is there: of two who come at once, one is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = drafts / os.urandom(6).hex()
    draft.write_text(text)
    crash.point("head.lock")
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
