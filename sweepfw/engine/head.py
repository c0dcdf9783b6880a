"""The head: the Celery master. Holds the ledger, serves it, sends trials to workers, reaps the silent."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import SERVICE_PORT, STATE, HeadSettings
from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler
from sweepfw.errors import BusyError, LedgerError, SweepError
from sweepfw.ledger.local import network_file_system
from sweepfw.ledger.service import Service
from sweepfw.trial.guard.files import spread

LEAST_PATIENCE = 30.0  # seconds of silence that no worker is given up for


def say(line: str) -> None:
    """One line for one event, where `docker logs` finds it."""
    print(datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)


class Head:
    """All of the head in one process. Only one can hold a ledger: BusyError for a second."""

    def __init__(
        self,
        settings: HeadSettings,
        root: Path = Path(STATE),
        address: tuple[str, int] = ("0.0.0.0", SERVICE_PORT),  # noqa: S104  # of a container's own network
        report: Callable[[str], None] = say,
    ) -> None:
        place = Workspace(root)
        if kind := network_file_system(root):
            raise SweepError(f"{root}: lies on a network file system ({kind}), where the ledger would tear")
        place.prepare()
        spread(str(place.runs))
        self._report = report
        self._lock = _hold(place.state / "head.lock")
        self.ledger = LeasedLedger(place.ledger, place.runs, Leases(settings.lease))
        patience = max(3 * settings.renew, LEAST_PATIENCE)
        roster = Roster(place.state / "workers.json", settings.workers.keys(), patience)
        self.scheduler = Scheduler(self.ledger, roster, Publisher(settings.broker, report), report)
        self.desk = HeadDesk(
            place, self.ledger, roster, self.scheduler, deployment=settings.deployment, uid=settings.uid
        )
        self.service = Service(
            self.ledger,
            self.desk,
            address=address,
            certificate=Path(settings.certificate),
            key=Path(settings.key),
            people=settings.people,
            workers=settings.workers,
            report=report,
        )
        self._pulse = min(settings.lease / 12, 5.0)
        self._ending = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)

    def start(self) -> None:
        self.service.start()
        self.scheduler.start()
        self._reaper.start()
        self._report(f"head: serves at {self.service.address[0]} port {self.service.address[1]}")

    def stop(self) -> None:
        """End in order: nothing new is sent, what is asked just now is answered, the ledger is on disk."""
        self._ending.set()
        self.scheduler.stop()
        self.desk.end()
        self.service.stop()
        self._reaper.join(2)
        self.ledger.disconnect()
        os.close(self._lock)
        self._report("head: ended")

    def _reap(self) -> None:
        while not self._ending.wait(self._pulse):
            self._check_disk()
            try:
                for grant in self.ledger.reap():
                    self._report(f"lease ran out: {grant.sweep}/{grant.trial}, attempt {grant.attempt}")
            except SweepError as error:
                self._report(f"reaper: {error}")

    def _check_disk(self) -> None:
        """End this process where a sync failed: nobody knows what is on the disk then, and nothing is written
        any more. Docker starts us anew, and what is there is read."""
        try:
            self.ledger.flush()
        except LedgerError as error:
            self._report(f"head: {error}; it ends, to be started anew")
            os._exit(1)


def main(settings: HeadSettings, root: Path = Path(STATE), port: int = SERVICE_PORT) -> int:
    """Work until SIGTERM or SIGINT."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # connections must leave some for the ledger
    head = Head(settings, root, ("0.0.0.0", port))  # noqa: S104  # as above
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    head.start()
    while not asked.wait(3600):  # a wait without end would not hear the signal
        pass
    guard = threading.Timer(5, os._exit, (1,))  # whatever hangs: all that matters is in the ledger
    guard.daemon = True
    guard.start()
    head.stop()
    return 0


def _hold(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BusyError(f"{path.parent}: another head holds this ledger; stop it first") from None
    return lock
