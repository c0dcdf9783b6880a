"""The ledger's first door: SQLite in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sweepfw.ledger.holder import Holder
from sweepfw.ledger.logs import Logs
from sweepfw.ledger.orders import Orders
from sweepfw.ledger.protocol import Protocol
from sweepfw.ledger.queries import Queries
from sweepfw.ledger.submission import Submission


class SqliteLedger(Submission, Protocol, Holder, Logs, Orders, Queries):
    """Keeps every promise of `interface.Ledger` in one SQLite file that several processes may use at once.

    `runs` is the folder that logs are stored in; `clock` tells Unix seconds. The file is made where it
    isn't there; LedgerError where it can't be used. Open one per process and share it between threads.
    """

    def __init__(self, path: Path, runs: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, runs, clock)

    def disconnect(self) -> None:
        """See Ledger.disconnect."""
        self._db.close()

    def __enter__(self) -> SqliteLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
