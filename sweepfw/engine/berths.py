"""The room of a worker's host: which slots and GPUs are free for the next trial."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from math import ceil

from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs
from sweepfw.trial.attempt import Slot


class Berth:
    """A slot that a trial has, until it gives it back; again does nothing."""

    def __init__(self, slot: Slot, give: Callable[[Slot], None]) -> None:
        self.slot, self._give = slot, give
        self._lock = threading.Lock()
        self._given = False

    def give(self) -> None:
        with self._lock:
            given, self._given = self._given, True
        if not given:
            self._give(self.slot)


class Berths:
    """Hands out slots; safe from several threads.

    The head has seen to it that a trial's needs are met here; what is kept here as well is what would do
    harm: two trials on one GPU, and more trials than slots.
    """

    def __init__(self, host: str, slots: int, cpus: float, gpus: Sequence[Gpu]) -> None:
        self._host, self._cpus = host, max(1, int(cpus // slots))
        self._gpus = sorted(gpus, key=lambda gpu: (gpu.memory or 0, gpu.index))  # the smallest that will do
        self._lock = threading.Lock()
        self._free = list(range(slots))
        self._used: set[str] = set()
        self._foreign: set[str] = set()

    def take(self, needs: Needs) -> Berth | None:
        """A slot with the GPUs that a trial with these needs wants; None where that is not free now."""
        count = self._wanted(needs)
        with self._lock:
            closed = self._used | self._foreign
            fit = [gpu.uuid for gpu in self._gpus if gpu.uuid not in closed and _large_enough(gpu, needs)]
            if not self._free or len(fit) < count:
                return None
            gpus = tuple(fit[:count])
            self._used.update(gpus)
            number = min(self._free)
            self._free.remove(number)
        visible = gpus if gpus or needs.gpus == 0 else None
        return Berth(Slot(str(number), self._host, max(ceil(needs.cpus), self._cpus), visible), self._give)

    def _wanted(self, needs: Needs) -> int:
        if needs.gpus is not None:
            return needs.gpus
        return 1 if self._gpus or needs.vram is not None else 0

    def _give(self, slot: Slot) -> None:
        with self._lock:
            self._free.append(int(slot.name))
            self._used.difference_update(slot.gpus or ())

    def idle_gpus(self) -> list[str]:
        """The GPUs that no trial of ours has."""
        with self._lock:
            return [gpu.uuid for gpu in self._gpus if gpu.uuid not in self._used]

    @property
    def foreign(self) -> frozenset[str]:
        """The GPUs that others use, or that don't answer: they are not handed out."""
        with self._lock:
            return frozenset(self._foreign)

    def mark(self, gpus: Collection[str], *, foreign: bool) -> bool:
        """Note that others use these GPUs, or do no longer; whether that is news."""
        with self._lock:
            before = set(self._foreign)
            self._foreign = before.union(gpus) if foreign else before.difference(gpus)
            return before != self._foreign


def _large_enough(gpu: Gpu, needs: Needs) -> bool:
    return needs.vram is None or (gpu.memory or 0) >= needs.vram
