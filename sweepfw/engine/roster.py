"""The workers that the head knows: what their hosts have, when they were last heard of, who is drained."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepfw import crash
from sweepfw.core.deployment import Advert
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Worker


@dataclass(slots=True)
class Member:
    """A worker. `heard`: on our clock; minus infinity: not since the head started."""

    worker: Worker
    advert: Advert
    heard: float = float("-inf")
    connected: bool = False  # to the broker


class Roster:
    """Members by host, and the drained hosts; kept in `file`, so that a new head knows them too. Safe from
    several threads. `hosts`: whom it may hold; others belong to the deployment no more."""

    def __init__(
        self, file: Path, hosts: Collection[str], patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.patience = patience  # seconds of silence after which a worker counts as dead
        self._file, self._clock = file, clock
        self._lock = threading.Lock()
        self._members, self._drained = _read(file, hosts)

    def announce(self, worker: Worker, advert: Advert) -> bool:
        """Whether this boot is new here."""
        with self._lock:
            known = self._members.get(worker.host)
            new = known is None or known.worker != worker
            self._members[worker.host] = Member(worker, advert, self._clock(), connected=True)
            self._write()
        return new

    def heard(self, worker: Worker, *, connected: bool) -> tuple[Member | None, bool]:
        """The member (None: this boot is not the host's current one), and whether it may get trials now and
        might not before."""
        with self._lock:
            member = self._members.get(worker.host)
            if member is None or member.worker != worker:
                return None, False
            before = self._ready(member)
            member.heard, member.connected = self._clock(), connected
            return member, not before and self._ready(member)

    def known(self, host: str) -> bool:
        with self._lock:
            return host in self._members

    def drain(self, host: str, *, off: bool) -> bool:
        """Whether the host is known."""
        with self._lock:
            (self._drained.discard if off else self._drained.add)(host)
            self._write()
            return host in self._members

    def ready(self) -> list[Member]:
        """Those who may be sent trials: alive, connected, not drained."""
        with self._lock:
            return [member for member in self._members.values() if self._ready(member)]

    def all(self) -> list[tuple[Member, bool, float, bool]]:
        """Every member: whether it is alive, for how many seconds it was silent, whether it is drained."""
        with self._lock:
            now = self._clock()
            return [
                (each, self._alive(each), now - each.heard, each.worker.host in self._drained)
                for each in self._members.values()
            ]

    def _alive(self, member: Member) -> bool:
        return member.connected and self._clock() - member.heard <= self.patience

    def _ready(self, member: Member) -> bool:
        return self._alive(member) and member.worker.host not in self._drained

    def _write(self) -> None:
        told = {
            "workers": [
                [*each.worker, {**each.advert._asdict(), "gpus": [_gpu(gpu) for gpu in each.advert.gpus]}]
                for each in self._members.values()
            ],
            "drained": sorted(self._drained),
        }
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(told))
        crash.point("head.roster")
        draft.replace(self._file)


def _read(file: Path, hosts: Collection[str]) -> tuple[dict[str, Member], set[str]]:
    try:
        told = json.loads(file.read_bytes())
        members = [Member(Worker(host, boot), _advert(advert)) for host, boot, advert in told["workers"]]
        drained = set(told["drained"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # workers announce themselves again
        return {}, set()
    return {each.worker.host: each for each in members if each.worker.host in hosts}, drained


def _gpu(gpu: Gpu) -> list[Any]:
    return [gpu.index, gpu.uuid, gpu.name, gpu.memory, gpu.used, list(gpu.pids)]


def _advert(told: dict[str, Any]) -> Advert:
    gpus = tuple(
        Gpu(index, uuid, name, memory, used, tuple(pids))
        for index, uuid, name, memory, used, pids in told["gpus"]
    )
    return Advert(**{**told, "gpus": gpus, "labels": tuple(told["labels"]), "mounts": tuple(told["mounts"])})
