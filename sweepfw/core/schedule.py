"""What a host has and what a trial needs -> its slots."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs
from sweepfw.errors import SweepError


class Room(NamedTuple):
    """What a host has for trials. `memory` in bytes; `paths`: those of the needed ones that are there.

    `visible`: the CUDA_VISIBLE_DEVICES that chose among its GPUs; None: it has no others.
    """

    host: str
    cpus: float
    gpus: tuple[Gpu, ...] = ()
    memory: int | None = None
    paths: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    visible: str | None = None


class SlotPlan(NamedTuple):
    """Room for one running trial. `gpus` are UUIDs; None: they are hidden from the trial (`gpus: 0`).

    An empty tuple: the host has no GPUs that we know of, and the trial sees what is there.
    """

    name: str
    cpus: int
    gpus: tuple[str, ...] | None = ()


def slots_for(room: Room, needs: Needs, jobs: int | None = None) -> tuple[SlotPlan, ...]:
    """The slots of this host for trials with these needs; at least one.

    One for each GPU (or group of `needs.gpus`) where there are GPUs and the trials don't say `gpus: 0`, else
    one for each `needs.cpus`. `jobs` is the user's own number: it may exceed the CPUs, never the GPUs or
    the memory. Raises SweepError for needs that this host can't meet, with what it has.
    """
    _check_place(room, needs)
    if jobs is not None and jobs < 1:
        raise SweepError(f"-j {jobs}: at least one trial at a time; write -j 1 or more")
    if needs.cpus > room.cpus:
        raise _unmet(room, "cpus", f"{needs.cpus:g}", f"{room.cpus:g}")
    groups = _groups(room, needs)
    count = _count(room, needs, jobs, groups)
    cpus = max(1, ceil(needs.cpus), int(room.cpus // count))
    if groups:
        return tuple(SlotPlan(str(n), cpus, group) for n, group in enumerate(groups[:count]))
    return tuple(SlotPlan(str(n), cpus, None if needs.gpus == 0 else ()) for n in range(count))


def _count(room: Room, needs: Needs, jobs: int | None, groups: Sequence[tuple[str, ...]]) -> int:
    by_cpus = int(room.cpus // needs.cpus)
    if groups:
        # A GPU is worth more than a CPU: only trials that ask for several CPUs are held back by them.
        most = len(groups) if needs.cpus <= 1 or jobs is not None else min(len(groups), by_cpus)
        count = most if jobs is None else min(jobs, most)
    else:
        count = jobs or by_cpus
    if needs.memory is not None and room.memory is not None:
        if needs.memory > room.memory:
            raise _unmet(room, "memory", _gb(needs.memory), _gb(room.memory))
        count = min(count, room.memory // needs.memory)
    return count


def _groups(room: Room, needs: Needs) -> list[tuple[str, ...]]:
    """The GPUs of each slot; none where trials run without."""
    wanted = needs.gpus
    if wanted == 0 or (wanted is None and not room.gpus and needs.vram is None):
        return []
    fit = [gpu for gpu in room.gpus if needs.vram is None or (gpu.memory or 0) >= needs.vram]
    size = wanted or 1
    if len(fit) < size:
        have = ", ".join(f"{gpu.name} with {_gb(gpu.memory or 0)}" for gpu in room.gpus) or "no GPU"
        have += f" with CUDA_VISIBLE_DEVICES={room.visible}" if room.visible is not None else ""
        what = f"{size} GPU{'s' if size > 1 else ''}"
        what += f" with {_gb(needs.vram)}" if needs.vram is not None else ""
        raise _unmet(room, "vram" if needs.vram is not None else "gpus", what, have)
    uuids = [gpu.uuid for gpu in sorted(fit, key=lambda gpu: gpu.index)]
    return [tuple(uuids[at : at + size]) for at in range(0, len(uuids) - size + 1, size)]


def _check_place(room: Room, needs: Needs) -> None:
    missing = [path for path in needs.paths if path not in room.paths]
    if missing:
        raise SweepError(
            f"needs.paths: {room.host} has no {missing[0]}; make it, mount it, or take it out of needs"
        )
    if needs.hosts and room.host not in needs.hosts:
        raise _unmet(room, "hosts", " or ".join(needs.hosts), f"the name {room.host}")
    absent = [label for label in needs.labels if label not in room.labels]
    if absent:
        raise _unmet(room, "labels", absent[0], ", ".join(sorted(room.labels)) or "no labels")


def _unmet(room: Room, key: str, wanted: str, there: str) -> SweepError:
    return SweepError(f"needs.{key}: trials need {wanted}, but {room.host} has {there}; lower needs.{key}")


def _gb(size: int) -> str:
    return f"{size / 10**9:.3g}GB"
