"""Questions of `up` to the head: it may not be there yet, and connections to it may break."""

from __future__ import annotations

from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

from sweepfw.errors import SweepError, UnreachableError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import HeadStatus
    from sweepfw.fleet.reach import Reached


class Asking:
    """Asks the head how the deployment is; over a new connection where the last one failed."""

    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self._reached: Reached | None = None
        self._early: Queue[HeadStatus | SweepError] | None = None

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._reached is not None:
            self._reached.close()
            self._reached = None

    def begin(self) -> None:
        """Ask now, in a thread of its own; the first `status` gives that answer."""
        self._early = Queue()
        Thread(target=self._begin, args=(self._early,), daemon=True).start()

    def _begin(self, answer: Queue[HeadStatus | SweepError]) -> None:
        try:
            answer.put(self._ask())
        except SweepError as error:
            answer.put(error)
        except BaseException:
            answer.put(UnreachableError("the head was not asked"))
            raise

    def status(self) -> HeadStatus:
        """UnreachableError where it does not answer."""
        if self._early is not None:
            early, self._early = self._early, None
            found = early.get()
            if isinstance(found, SweepError):
                raise found
            return found
        return self._ask()

    def send_again(self, status: HeadStatus) -> list[str]:
        """Give trials again to the workers that get none since an `infra down` began; which these are."""
        drained = sorted(each.worker.host for each in status.workers if each.draining)
        for host in drained:
            assert self._reached is not None  # it gave the status
            self._reached.desk.drain(host, off=True)
        return drained

    def _ask(self) -> HeadStatus:
        from sweepfw.fleet.reach import connect

        if self._reached is None:
            self._reached = connect(self._state)
        try:
            return self._reached.desk.status()
        except UnreachableError:
            self.close()
            raise
