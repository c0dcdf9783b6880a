"""What workers have, what runs there, what waits -> which trial is sent where. Pure.

A worker's own bookkeeping uses `fits` too, so that head and worker agree on what there is room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sweepfw.core.deployment import Advert
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs, Waiting, Worker
from sweepfw.core.states import TRIES_WHEN_LOST


class Load(NamedTuple):
    """A trial that takes room at a worker, from when it was sent there until it ended."""

    uid: str
    trial: int
    needs: Needs
    alone: bool = False  # nothing else may run beside it


class Station(NamedTuple):
    """A worker that may be sent trials. `cautious`: trial after trial failed there at once; one at a time."""

    worker: Worker
    advert: Advert
    loads: tuple[Load, ...] = ()
    cautious: bool = False


class Publication(NamedTuple):
    """A trial that is to be sent to a worker."""

    worker: Worker
    load: Load


def place(stations: Iterable[Station], waiting: Iterable[Waiting]) -> list[Publication]:
    """Which of the waiting trials to send where: the sweep with the fewest running ones first, then the
    oldest; never more than there is room for.

    `waiting` names no trial that was sent already, and `running` counts those that were. A sweep that has
    nothing running and fits nowhere now gets room kept for it, so that smaller trials don't starve it; so
    does, of each sweep, one trial that has to run alone.
    """
    hosts = [_Host(station) for station in stations]
    lines = [line for line in map(_Line, waiting) if line.wants]
    found = _place_alone(hosts, lines)
    while lines:
        line = min(lines, key=_Line.turn)
        load = line.load()
        host = _choose(hosts, load)
        # What keeps one trial out keeps out all of its sweep, but for what concerns this one alone.
        own = load.alone or any(load[:2] == other[:2] for each in hosts for other in each.loads)
        if host is not None:
            found.append(_send(load, host, line))
        elif not (line.running or own):
            _reserve(hosts, load)
        line.at = line.at + 1 if host is not None or own else len(line.trials)
        if not line.wants:
            lines.remove(line)
    return found


def _place_alone(hosts: Sequence[_Host], lines: list[_Line]) -> list[Publication]:
    """Before all others: else a host that got idle would be filled again each time."""
    found = []
    for line in sorted(lines, key=lambda line: line.sweep.created):
        first = next((trial for trial in line.trials if trial[1] >= TRIES_WHEN_LOST), None)
        if first is None or any(load.alone and load.uid == line.sweep.uid for h in hosts for load in h.loads):
            continue
        load = Load(line.sweep.uid, first[0], line.sweep.needs, alone=True)
        if host := _choose(hosts, load):
            found.append(_send(load, host, line))
            line.trials.remove(first)
        else:
            _reserve(hosts, load)
    lines[:] = [line for line in lines if line.wants]
    return found


def _send(load: Load, host: _Host, line: _Line) -> Publication:
    host.loads.append(load)
    line.running += 1
    return Publication(host.worker, load)


def fits(advert: Advert, loads: Sequence[Load], load: Load) -> bool:
    """Whether there is room for one more load beside these."""
    beside = [*loads, load]
    return (
        len(beside) <= advert.slots
        and (len(beside) == 1 or not any(each.alone for each in beside))
        and all(other[:2] != load[:2] for other in loads)
        and _enough_cpus(advert, loads, load.needs)
        and _enough_memory(advert, beside, load.needs)
        and _enough_gpus(advert, beside, load.needs)
    )


def unmet(host: str, advert: Advert, needs: Needs) -> str | None:
    """Why this host could never run such a trial, even with nothing else there. None: it could."""
    if needs.hosts and host not in needs.hosts:
        return f"needs.hosts: {host} is none of {', '.join(needs.hosts)}"
    absent = [label for label in needs.labels if label not in advert.labels]
    if absent:
        return f"needs.labels: {host} has no label {absent[0]}"
    missing = [path for path in needs.paths if not _mounted(path, advert.mounts)]
    if missing:
        return f"needs.paths: {host} has no mount for {missing[0]}"
    if needs.cpus > advert.cpus:
        return f"needs.cpus: {host} has {advert.cpus:g}, trials need {needs.cpus:g}"
    if needs.memory and advert.memory is not None and needs.memory > advert.memory:
        return f"needs.memory: {host} has {_gb(advert.memory)}, trials need {_gb(needs.memory)}"
    wanted, there = gpus_wanted(advert, needs), sum(_has(gpu, needs.vram) for gpu in advert.gpus)
    if wanted > there:
        size = f" with {_gb(needs.vram)}" if needs.vram else ""
        return f"needs.{'vram' if size else 'gpus'}: {host} has {there} GPUs{size}, trials need {wanted}"
    return None


def gpus_wanted(advert: Advert, needs: Needs) -> int:
    """How many GPUs of this host a trial takes: one where it does not say and there are any."""
    if needs.gpus is None:
        return 1 if advert.gpus or needs.vram else 0
    return needs.gpus


def taken(gpu: Gpu) -> bool:
    """Whether others compute on it: in what a worker tells of its host, `pids` are never ours."""
    return bool(gpu.pids)


class _Host:
    """A station while trials are put there. `kept`: what room is kept for."""

    def __init__(self, station: Station) -> None:
        self.worker, self.advert = station.worker, station.advert
        self.loads = list(station.loads)
        self.kept: list[Load] = []
        self.limit = 1 if station.cautious else station.advert.slots

    def takes(self, load: Load) -> bool:
        if len(self.loads) >= self.limit or unmet(self.worker.host, self.advert, load.needs):
            return False
        return fits(self.advert, [*self.loads, *self.kept], load)

    def rank(self, load: Load) -> tuple[bool, float, str]:
        """Trials without a GPU leave the hosts with GPUs to others; else the emptiest host is best."""
        wasted = bool(self.advert.gpus) and not gpus_wanted(self.advert, load.needs)
        return wasted, len(self.loads) / max(1, self.advert.slots), self.worker.host


class _Line:
    """A sweep's trials, first to last."""

    def __init__(self, sweep: Waiting) -> None:
        self.sweep = sweep
        self.trials = list(sweep.trials)
        self.running = sweep.running
        self.at = 0

    @property
    def wants(self) -> bool:
        """Whether one more may run."""
        most = self.sweep.at_once
        return self.at < len(self.trials) and (most is None or self.running < most)

    def turn(self) -> tuple[int, float, str]:
        return self.running, self.sweep.created, self.sweep.uid

    def load(self) -> Load:
        number, losses = self.trials[self.at]
        return Load(self.sweep.uid, number, self.sweep.needs, losses >= TRIES_WHEN_LOST)


def _choose(hosts: Iterable[_Host], load: Load) -> _Host | None:
    return min((host for host in hosts if host.takes(load)), key=lambda host: host.rank(load), default=None)


def _reserve(hosts: Iterable[_Host], load: Load) -> None:
    """Keep room for a load at the emptiest host that can ever run it, if there is one."""
    able = [host for host in hosts if not host.kept and not unmet(host.worker.host, host.advert, load.needs)]
    if able:
        min(able, key=lambda host: host.rank(load)).kept.append(load)


def _enough_cpus(advert: Advert, loads: Sequence[Load], needs: Needs) -> bool:
    """A host's slots may exceed its CPUs, by its user's word or by its GPUs: that is for trials of one CPU;
    those that ask for several get no more than there are."""
    together = sum(load.needs.cpus for load in loads) + needs.cpus
    if together > max(advert.cpus, advert.slots):
        return False
    large = sum(load.needs.cpus for load in loads if load.needs.cpus > 1)
    return needs.cpus <= 1 or large + needs.cpus <= advert.cpus


def _enough_memory(advert: Advert, beside: Sequence[Load], needs: Needs) -> bool:
    if not needs.memory or advert.memory is None:
        return True
    return sum(load.needs.memory or 0 for load in beside) <= advert.memory


def _enough_gpus(advert: Advert, beside: Sequence[Load], needs: Needs) -> bool:
    """Whether all can have the GPUs that they want at once. What a small trial may use, is not always enough
    for a large one: so for each size that is asked for there must be as many as those who want as much."""
    if not gpus_wanted(advert, needs):
        return True
    for size in {load.needs.vram or 0 for load in beside}:
        there = sum(_has(gpu, size) for gpu in advert.gpus if not taken(gpu))
        wanted = sum(gpus_wanted(advert, load.needs) for load in beside if (load.needs.vram or 0) >= size)
        if wanted > there:
            return False
    return True


def _has(gpu: Gpu, vram: int | None) -> bool:
    return not vram or (gpu.memory or 0) >= vram


def _mounted(path: str, mounts: Iterable[str]) -> bool:
    """Whether the path is a mount or lies in one. What is not absolute lies in the project."""
    if not path.startswith("/"):
        return True
    return any(f"{path}/".startswith(mount.rstrip("/") + "/") for mount in mounts)


def _gb(size: int) -> str:
    return f"{size / 10**9:.3g}GB"
