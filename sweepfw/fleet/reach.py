"""From the command line to a deployment's head: through one SSH connection, or directly where it is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweepfw.config.deployments import DeploymentState

if TYPE_CHECKING:
    from sweepfw.ledger.client import HttpDesk, HttpLedger


class Reached:
    """A head that answered: its ledger and its desk. Use as a context, or `close` it."""

    ledger: HttpLedger
    desk: HttpDesk

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Reached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(state: DeploymentState) -> Reached:
    """Reach the head's service. UnreachableError, one line within 15 seconds, where it does not answer."""
    raise NotImplementedError


@contextmanager
def forward(state: DeploymentState, port: int = 0) -> Iterator[int]:
    """A port on this machine's loopback (0: a free one) that leads to Flower, for as long as the context
    lasts. Yields the port. SweepError where the port is taken."""
    raise NotImplementedError
    yield 0
