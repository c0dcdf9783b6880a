"""Calls that must not happen twice: the service remembers what it answered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_KEPT = 1000  # answers


class Memory(Generic[_T]):
    """The last answers by their requests' ids. A repetition gets the first one's, also when that is still
    being made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, _Slot[_T]] = OrderedDict()

    def answer(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` returned when it was asked first. Where that raised, it is asked again."""
        with self._lock:
            slot = self._answers.setdefault(key, _Slot())
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        with slot.lock:
            if not slot.made:
                slot.made.append(make())
            return slot.made[0]

    def knows(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._answers


class _Slot(Generic[_T]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: list[_T] = []
