"""The ledger's first door: SQLite in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sweepfw.ledger.adoption import Adoption
from sweepfw.ledger.backlog import Backlog
from sweepfw.ledger.holder import Holder
from sweepfw.ledger.leases import Leases
from sweepfw.ledger.logs import Logs
from sweepfw.ledger.orders import Orders
from sweepfw.ledger.protocol import Protocol
from sweepfw.ledger.queries import Queries


class SqliteLedger(Adoption, Protocol, Leases, Holder, Logs, Orders, Queries, Backlog):
    """Keeps every promise of `interface.Ledger` in one SQLite file that several processes may use at once.

    `runs` is the folder that logs are stored in; `clock` tells Unix seconds. The file is made where it
    isn't there; LedgerError where it can't be used. Open one per process and share it between threads.
    """

    def __init__(self, path: Path, runs: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, runs, clock)

    @property
    def version(self) -> int:
        """A number that grows with every change through this object, read without a lock. Whoever asks after
        reading it sees that change. (`changed` tells of other processes' changes.)"""
        return self._db.version

    def wait_changed(self, seen: int, timeout: float) -> int:
        """The version, as soon as it is another than `seen`, or after `timeout` seconds; at once after
        `disconnect`."""
        return self._db.wait(seen, timeout)

    def disconnect(self) -> None:
        """See Ledger.disconnect."""
        self._db.close()

    def __enter__(self) -> SqliteLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
