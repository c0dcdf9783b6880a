"""The worker of a host: a guardian, a station, Celery to hear of trials, and a line to the head."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sweepfw.config.workspace import Workspace
from sweepfw.core.broker import node, queue
from sweepfw.core.deployment import STATE, Orders, WorkerSettings
from sweepfw.core.model import Worker
from sweepfw.engine.attempts import Running
from sweepfw.engine.host import Host, hold, trials_environment
from sweepfw.engine.inheritance import inherit
from sweepfw.engine.shipping import Head
from sweepfw.engine.station import Station
from sweepfw.engine.stores import Stores
from sweepfw.errors import SweepError
from sweepfw.ledger.client import Client, HttpDesk, HttpLedger
from sweepfw.shell.local import LocalShell
from sweepfw.trial.guard.client import Guardian, abandon

POLL = 30.0  # seconds that a question for orders waits
LOGS = 0.5  # seconds between two looks at what trials print
GPUS = 30.0  # seconds between two looks whether others use our GPUs
GRACE = 2.0  # seconds that trials have when this worker is told to stop
PARTING = 4.0  # seconds for that and for telling the head
FAR = 0.25  # seconds for one renewal
SIDE_BY_SIDE = 8
_RETRY = 2.0


def main(settings: WorkerSettings, root: Path = Path(STATE)) -> NoReturn:
    """Run trials until told to end: by SIGTERM at once, by SIGUSR1 when what runs has ended."""
    guardian = Guardian.start()  # before all that is imported and started below
    Service(settings, Workspace(root), guardian).run()


def say(line: str) -> None:
    print(line, flush=True)


class Service:
    """All of one worker process. `connected`: it reads its queue; `closing`: nothing is waited for."""

    def __init__(self, settings: WorkerSettings, place: Workspace, guardian: Guardian) -> None:
        place.prepare()
        environment = trials_environment(os.environ, place)
        lock = hold(place)
        self._settings, self._place, self._guardian = settings, place, guardian
        self.worker = Worker(settings.host, os.urandom(8).hex())
        self.connected, self.closing = threading.Event(), threading.Event()
        self._wish = ""  # "drain" or "stop"
        self._wished, self._read = threading.Event(), threading.Event()
        self._seen = 0
        self._host = Host(settings, place, LocalShell(), say)
        scratch = place.state / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        client = Client(
            lambda: socket.create_connection(settings.service, timeout=10),
            Path(settings.certificate).read_text(),
            settings.token,
            patience=None,
            closing=self.closing,
            notice=say,
        )
        self.head = Head(HttpLedger(client), HttpDesk(client), self.closing, say, scratch)
        self.stores = Stores(place, self.head.ledger, self.head.desk, environment, say)
        self.station = Station(
            place,
            self.worker,
            self.head,
            guardian,
            guardian.keepers(self._host.slots, [lock]),
            self._host.berths,
            self.stores,
            busy=self._host.busy,
            foreign=self._announce,
        )

    def run(self) -> NoReturn:
        """Work until told to end; this ends the process."""
        self._guardian.watch(self._unguarded)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._wish_for("stop"))
        signal.signal(signal.SIGUSR1, lambda *_: self._wish_for("drain"))
        say(f"worker {self.worker.host}, boot {self.worker.boot}: {self._host.slots} slots")
        loops = [self._obey, self._conclude]
        loops += [lambda: self._every(self._settings.renew, self._renew)]
        loops += [lambda: self._every(LOGS, self._ship), lambda: self._every(1, self._save)]
        if self._host.gpus:
            loops += [lambda: self._every(GPUS, self._look)]
        for loop in loops:
            threading.Thread(target=loop, daemon=True).start()
        self._read_queue()
        self._read.set()
        while True:
            signal.pause()  # `_conclude` ends this process

    # -- the broker ------------------------------------------------------------------------------------

    def _read_queue(self) -> None:
        """In the main thread, until the worker ends. What Celery can't recover from costs no trial: it is
        begun anew once those that run have ended."""
        from sweepfw.engine.celery_app import make_app, make_worker

        settings, worker = self._settings, self.worker
        while not self._wish:
            celery = make_worker(
                make_app(settings.broker),
                self.station.run,
                name=node(worker.host, worker.boot),
                queue=queue(settings.uid, worker.host, worker.boot),
                slots=self._host.slots,
                connected=self.connected,
            )
            celery.start()
            self.connected.clear()
            if not self._wish:
                say("the broker's connection can't be used any more; trying again")
                self.closing.wait(_RETRY)

    # -- the head --------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Announce this worker, then ask for orders again and again."""
        try:
            self.stores.tidy()
            self.connected.wait(10)  # so that what is sent to its queue arrives; but not for ever
            inherit(self._place, self.worker.host, self.head, self.stores)
            self._announce()
        except Exception as error:
            say(f"this worker can't begin: {type(error).__name__}: {error}")
            return self._wish_for("stop")
        while not self._wish:
            try:
                self._heed(self._ask(POLL if self.connected.is_set() else _RETRY))
            except Exception as error:  # perhaps the head lost what it knew of us
                if not self.closing.wait(_RETRY):
                    say(f"{type(error).__name__}: {error}")
                    with suppress(SweepError):
                        self._announce()

    def _ask(self, wait: float) -> Orders:
        connected = self.connected.is_set() and not self._wish
        return self.head.desk.orders(self.worker, self._seen, wait, connected=connected)

    def _heed(self, orders: Orders) -> None:
        self._seen = orders.seen
        for token, how in orders.stop.items():
            self.station.stop(token, how)
        if orders.drain:
            self._wish_for("drain")
        if orders.forget:
            self.station.forget(orders.forget)

    def _announce(self) -> None:
        self.head.desk.announce(self.worker, self._host.advert(self.worker))

    def _look(self) -> None:
        if self._host.look_again():
            self._announce()

    # -- for what runs ---------------------------------------------------------------------------------

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        while not self.closing.wait(seconds):
            try:
                act()
            except Exception as error:
                say(f"{type(error).__name__}: {error}")

    def _each(self, act: Callable[[Running], None]) -> None:
        """For every attempt that runs; the trouble of one is not the others'."""
        for running in self.station.attempts():
            self._try(act, running)

    def _try(self, act: Callable[[Running], None], running: Running) -> None:
        try:
            act(running)
        except Exception as error:  # in a thread of its own nobody else would say it
            if not self.closing.is_set():
                kind = "" if isinstance(error, (SweepError, OSError)) else f"{type(error).__name__}: "
                say(f"{running.grant.sweep}/{running.grant.trial}: {kind}{error}")

    def _renew(self) -> None:
        """Tell of every attempt. Where that takes its time the others go side by side: one after another, a
        long line would cost healthy trials their leases."""
        waiting = self.station.leased()
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            near = True
            while waiting and near:
                near = bool(wait([pool.submit(self._try, self._tell, waiting.pop(0))], FAR).done)
            for running in waiting:
                pool.submit(self._try, self._tell, running)

    def _tell(self, running: Running) -> None:
        self.station.renew(running.grant.token)

    def _ship(self) -> None:
        self._each(lambda running: running.reporting.log.send())

    def _save(self) -> None:
        self._each(lambda running: running.checkpoint.send_if_due())

    # -- the end ---------------------------------------------------------------------------------------

    def _wish_for(self, wish: str) -> None:
        """Also from a signal handler: the main thread itself never waits for this event."""
        if self._wish != "stop":
            self._wish = wish
            self._wished.set()

    def _conclude(self) -> None:
        """End in order, when that is wished for."""
        from sweepfw.engine.celery_app import end

        self._wished.wait()
        say("told to stop" if self._wish == "stop" else "told to end when nothing runs any more")
        self.station.closed = True
        goodbye = threading.Thread(target=self._say_goodbye, daemon=True)
        goodbye.start()
        goodbye.join(0.5)
        while self._wish == "drain" and not self.station.wait_idle(0.2):
            pass
        self.station.interrupt(GRACE)
        if not self.station.wait_idle(PARTING):
            say("not all ends could be told to the head; the next worker here does")
        self.closing.set()
        end()
        self._read.wait(2)  # Celery says goodbye to the broker
        self._guardian.close(timeout=1)
        os._exit(0)

    def _say_goodbye(self) -> None:
        """The head sends nothing more."""
        with suppress(SweepError):
            self._ask(0)

    def _unguarded(self) -> None:
        say("the guardian was killed: all trials end, and so does this worker")
        abandon()
        os._exit(1)
