"""A worker's host: what it has for trials, what it tells the head of that, what its trials see of it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sweepfw import __version__
from sweepfw.config.workspace import Workspace
from sweepfw.core import gpus as nvidia
from sweepfw.core.broker import queue
from sweepfw.core.deployment import Advert, WorkerSettings
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Worker
from sweepfw.engine.berths import Berths
from sweepfw.errors import BusyError
from sweepfw.shell.shell import Shell
from sweepfw.trial import slots

_OURS = ("SWEEPFW_", "CELERY_", "C_FORCE_ROOT")


class Host:
    """What there is here, as the worker's settings leave it to us."""

    def __init__(
        self, settings: WorkerSettings, place: Workspace, shell: Shell, warn: Callable[[str], None]
    ) -> None:
        self._settings, self._place, self._shell, self._warn = settings, place, shell, warn
        self.cpus = settings.cpus or slots.cpus()
        found = self._look() if settings.gpus != () else ()
        self.gpus = found
        self.slots = settings.slots or len(found) or max(1, int(self.cpus))
        self.berths = Berths(settings.host, self.slots, self.cpus, found)
        self.berths.mark([gpu.uuid for gpu in found if nvidia.others(gpu)], foreign=True)

    def _look(self) -> tuple[Gpu, ...]:
        allowed = self._settings.gpus
        found = slots.gpus(self._shell, self._warn)
        return tuple(gpu for gpu in found if allowed is None or gpu.uuid in allowed)

    def busy(self, uuid: str) -> str | None:
        """Why nothing may start on the GPU now."""
        return slots.busy(uuid, self._shell)

    def look_again(self) -> bool:
        """Whether a GPU that trials of ours don't use has come to others, or is free of them again."""
        idle = set(self.berths.idle_gpus())
        found = {gpu.uuid: nvidia.others(gpu) for gpu in self._look()}
        still = idle.intersection(self.berths.idle_gpus())  # no trial took it while we looked
        taken = {uuid for uuid in still if found.get(uuid, "it does not answer")}
        lost = self.berths.mark(taken, foreign=True)
        return self.berths.mark(still - taken, foreign=False) or lost

    def advert(self, worker: Worker) -> Advert:
        """What the head is to know. A GPU that others use is told with a process, ours never are."""
        settings, foreign = self._settings, self.berths.foreign
        gpus = [replace(gpu, pids=(gpu.pids or (0,)) if gpu.uuid in foreign else ()) for gpu in self.gpus]
        return Advert(
            slots=self.slots,
            cpus=self.cpus,
            memory=slots.memory(),
            gpus=tuple(gpus),
            labels=settings.labels,
            mounts=settings.mounts,
            version=__version__,
            python=platform.python_version(),
            disk_free=shutil.disk_usage(self._place.root).free,
            queue=queue(settings.uid, worker.host, worker.boot),
        )


def trials_environment(environment: Mapping[str, str], place: Workspace) -> dict[str, str]:
    """The variables that trials get: the image's, not what is ours; and a home that can be written."""
    env = {name: value for name, value in environment.items() if not name.startswith(_OURS)}
    home = env.get("HOME", "")
    if not (home and os.access(home, os.W_OK) and Path(home).is_dir()):
        made = place.state / "home"
        made.mkdir(parents=True, exist_ok=True)
        env["HOME"] = str(made)
    return env


def hold(place: Workspace, patience: float = 15) -> int:
    """The lock of this host's state, as an open file. Guardian and keepers hold it too: who has it knows that
    nothing of a predecessor lives. BusyError where that takes longer than `patience` seconds."""
    import time
    from fcntl import LOCK_EX, LOCK_NB, flock

    descriptor = os.open(place.state / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BusyError(f"{place.root}: another worker runs here; stop it first") from None
            time.sleep(0.05)
        else:
            return descriptor
