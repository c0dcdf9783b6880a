"""When a slot may use its GPUs: not while another run does, nor while somebody else computes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweepfw.trial.slots import GpuLock

LOCKED = 1.0  # seconds to stand in line for another run's GPU; then the slot looks whether there is work
LONGEST = 8.0  # seconds between two questions to nvidia-smi, after 1, 2 and 4


class Turn:
    """A slot's locks on its GPUs; without GPUs it is always its turn. `busy` tells why a GPU is not free."""

    def __init__(
        self, locks: Sequence[GpuLock] = (), busy: Callable[[str], str | None] = lambda _: None
    ) -> None:
        self._locks, self._busy = locks, busy
        self._held = 0
        self._said = ""
        self.rest = 0.0  # seconds until it is worth asking again

    @property
    def asks(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._locks)

    def take(self, note: Callable[[str], None]) -> bool:
        """Whether the slot may start a trial now; the locks are held then. `note` hears once why not."""
        for lock in self._locks:
            if not lock.try_acquire(LOCKED):
                self.rest = 0.0
                return self._refuse(f"GPU {lock.uuid} is used by another run; waiting for it", note)
            self._held += 1
        for lock in self._locks:
            if why := self._busy(lock.uuid):
                self.rest = min(max(1.0, 2 * self.rest), LONGEST)  # nvidia-smi costs the whole machine time
                return self._refuse(f"{why}; waiting for it", note)
        self.rest = 0.0
        return True

    def give(self) -> None:
        """Free what `take` locked, also after it said no."""
        for lock in self._locks[: self._held]:
            lock.release()
        self._held = 0

    def _refuse(self, why: str, note: Callable[[str], None]) -> bool:
        if why != self._said:
            note(why)
            self._said = why
        return False
