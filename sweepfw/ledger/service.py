"""The ledger's second door, from inside the head: HTTP over TLS, for workers and people with their tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sweepfw.ledger.desk import Desk
from sweepfw.ledger.interface import Ledger


class Service:
    """Serves a ledger and a desk. `people` is the command line's token, `workers` each host's own.

    A worker may only do what its host's attempts need. `report` is told one line (and the traceback) of what
    went wrong here; no secrets are in it. `address` may name port 0.
    """

    def __init__(
        self,
        ledger: Ledger,
        desk: Desk,
        *,
        address: tuple[str, int],
        certificate: Path,
        key: Path,
        people: str,
        workers: Mapping[str, str],
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        raise NotImplementedError

    def start(self) -> None:
        """Serve in threads of its own; SweepError where the address is taken or the certificate no good."""

    def stop(self) -> None:
        """Answer no new requests, close the connections; what is under way gets a second."""
