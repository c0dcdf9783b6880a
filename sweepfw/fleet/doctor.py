"""What stands in the way of a deployment, all of it at once, each with what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sweepfw.core.deployment import Deployment, Host
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet.facts import Facts
from sweepfw.fleet.look import Seen, Way
from sweepfw.fleet.roles import gpu_options
from sweepfw.fleet.services import far
from sweepfw.shell.host_keys import ChangedKeyError

_GB = 10**9
_DISK_LEAST, _DISK_GOOD = 3 * _GB, 10 * _GB
_MEMORY_LEAST, _MEMORY_GOOD = 1 * _GB, 2 * _GB
_FOLDER_LEAST = 1_000_000
_CLOCK = 5.0  # seconds
_DOCKER = 20  # the oldest major version that has all that containers of ours are given


class Complaint(NamedTuple):
    """Something on a host that is not as it should be. `fatal`: nothing can be set up there; `away`: one may
    go on without it; `note`: it is worth knowing, and all right."""

    host: str
    what: str
    do: str
    fatal: bool = True
    unreachable: bool = False
    note: bool = False
    away: bool = False

    @property
    def line(self) -> str:
        return f"{self.host}: {self.what}; {self.do}" if self.do else f"{self.host}: {self.what}"


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged. `ways`: to the worker hosts that the head reaches over SSH. `known`: uids of this
    user's deployments -> their names. `image`: whether the host has our image already, by host."""

    deployment: Deployment
    uid: str
    seen: Seen
    ways: Mapping[str, Way]
    known: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, bool] = field(default_factory=dict)


def complaints(case: Case) -> list[Complaint]:
    """In the order of the hosts."""
    found = [*_together(case)]
    for host in case.deployment.hosts:
        if host.name in case.seen.failures:
            found.append(_unreachable(host, case.seen.failures[host.name]))
        elif host.name in case.seen.facts:
            facts = case.seen.facts[host.name]
            found += [*_docker(host, facts, case), *_room(host, facts, case), *_account(host, facts)]
            if host.name in case.deployment.workers:
                found += [*_gpus(host, facts), *_mounts(host, facts), *_from_head(host, facts, case)]
            found += _neighbours(host, facts, case)
    order = [host.name for host in case.deployment.hosts]
    return sorted(found, key=lambda each: order.index(each.host))


def _unreachable(host: Host, failure: SweepError) -> Complaint:
    text = str(failure).removeprefix(f"{host.name}: ")
    what, _, do = text.partition("; ")
    unreachable = isinstance(failure, UnreachableError)
    # A changed key, on the way there too, stops everything: it is no matter of one host that is off.
    away = unreachable and not isinstance(failure, ChangedKeyError)
    return Complaint(host.name, what, do, unreachable=unreachable, away=away)


def _docker(host: Host, facts: Facts, case: Case) -> Iterator[Complaint]:
    docker, name = facts.docker, host.name
    target = "" if host.local else f" {host.target}"
    if docker.path is None:
        yield Complaint(name, "Docker is not installed", f"run scripts/install_docker.sh{target}")
    elif docker.podman:
        yield Complaint(
            name, "`docker` is Podman there", f"install Docker's engine: scripts/install_docker.sh{target}"
        )
    elif "permission denied" in docker.error.lower():
        yield Complaint(
            name,
            f"user {facts.user} may not use Docker",
            f"`sudo usermod -aG docker {facts.user}` there, then log in anew",
        )
    elif docker.error:
        yield Complaint(name, f"Docker does not answer ({docker.error[:200]})", "start it there")
    elif docker.rootless:
        yield Complaint(
            name,
            "Docker runs rootless, and its containers can't have the user's own account",
            "use the system's engine (`docker context use default`)",
        )
    elif _major(docker.version) < _DOCKER:
        yield Complaint(name, f"Docker {docker.version} is too old", "20.10 or newer is needed")
    elif not docker.builds and not case.images.get(name) and host.image is None:
        yield Complaint(
            name,
            "Docker has no buildx, which building images takes",
            "install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin",
            fatal=not _other_builder(host, facts, case),
        )


def _other_builder(host: Host, facts: Facts, case: Case) -> bool:
    """Whether another host of the same architecture builds, or has the image."""
    return any(
        (each.docker.builds or case.images.get(name, False)) and each.arch == facts.arch
        for name, each in case.seen.facts.items()
        if name != host.name
    )


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else _DOCKER


def _room(host: Host, facts: Facts, case: Case) -> Iterator[Complaint]:
    free = facts.docker.disk_free
    if free is not None and free < _DISK_GOOD:
        least = _DISK_LEAST if not case.images.get(host.name) else _DISK_LEAST // 10
        yield Complaint(
            host.name,
            f"{_gb(free)} free where Docker keeps images and results ({facts.docker.root})",
            f"make room there (`docker system df` tells of it); {_gb(_DISK_GOOD)} is a good measure",
            fatal=free < least,
        )
    if facts.disk_free is not None and facts.disk_free < _FOLDER_LEAST:
        yield Complaint(host.name, f"the disk of {facts.dir} is full", "make room, or name another with -r")
    if facts.over_quota:
        yield Complaint(host.name, f"user {facts.user} is over quota", "make room, or name another -r")
    if facts.memory is not None and facts.memory < _MEMORY_GOOD:
        yield Complaint(
            host.name,
            f"{_gb(facts.memory)} of memory",
            f"{_gb(_MEMORY_GOOD)} is a good measure",
            fatal=facts.memory < _MEMORY_LEAST,
        )


def _account(host: Host, facts: Facts) -> Iterator[Complaint]:
    if abs(facts.offset) > _CLOCK:
        way = "ahead of" if facts.offset > 0 else "behind"
        yield Complaint(
            host.name,
            f"its clock is {abs(facts.offset):.0f} s {way} this machine's",
            "times in reports will differ; set it (`timedatectl set-ntp true`)",
            fatal=False,
        )
    if facts.network_home:
        yield Complaint(
            host.name, f"its home lies on a network ({facts.home_type})", "", fatal=False, note=True
        )
    if not facts.machine_id:
        yield Complaint(
            host.name, "it has no /etc/machine-id", "`sudo systemd-machine-id-setup` there makes one"
        )


def _gpus(host: Host, facts: Facts) -> Iterator[Complaint]:
    if host.gpus == ():
        return
    there = {gpu.uuid for gpu in facts.gpus}
    lacking = [uuid for uuid in host.gpus or () if uuid not in there]
    if lacking:
        yield Complaint(
            host.name, f"no GPU {', '.join(lacking)} there", "`nvidia-smi -L` lists those that are"
        )
    if facts.gpu_error:
        yield Complaint(
            host.name,
            f"nvidia-smi: {facts.gpu_error}",
            "GPUs that do not answer are not used",
            fatal=bool(host.gpus),
        )
    elif facts.nvidia and not facts.gpus:
        yield Complaint(
            host.name,
            f"{facts.nvidia} NVIDIA GPU{'s' if facts.nvidia > 1 else ''} without a driver",
            "install it (nvidia-smi must work there), or trials run on the CPUs",
            fatal=bool(host.gpus),
        )
    if facts.gpus and not gpu_options(host, facts):
        target = "" if host.local else f" {host.target}"
        yield Complaint(
            host.name,
            f"{len(facts.gpus)} GPU{'s' if len(facts.gpus) > 1 else ''}, but containers don't get them",
            f"run scripts/install_nvidia_container_toolkit.sh{target}, or write `gpus: 0` for the host",
        )


def _mounts(host: Host, facts: Facts) -> Iterator[Complaint]:
    for path in facts.missing_mounts:
        yield Complaint(host.name, f"mounts: there is no {path}", "make it there, or take it out")
    if facts.selinux == "Enforcing" and host.mounts:
        yield Complaint(
            host.name,
            "SELinux is enforcing",
            "its labels are off for the worker, so that it can read the mounts",
            fatal=False,
            note=True,
        )


def _from_head(host: Host, facts: Facts, case: Case) -> Iterator[Complaint]:
    """Whether the head gets through to the worker host, and finds that one there."""
    head = case.deployment.head
    if host.name not in far(case.deployment) or head in case.seen.failures:
        return
    way, hint = case.ways.get(host.name), "name another address with `address_from_head` in config.yml"
    if way is None:
        yield Complaint(host.name, f"the head ({head}) has no address for this machine", hint)
        return
    found = case.seen.reach.get(host.name)
    if found is None:
        return
    place = f"{way.address}, port {way.port}"
    if not found.answers:
        patience = "; if it had one a minute ago, try again in a minute: sshd turns away who connects often"
        yield Complaint(host.name, f"the head ({head}) gets no answer from sshd at {place}", hint + patience)
    elif not facts.host_keys:
        yield Complaint(
            host.name, "its host keys (/etc/ssh/ssh_host_*_key.pub) can't be read", "make them readable"
        )
    elif found.keys and not set(found.keys) & set(facts.host_keys):
        yield Complaint(host.name, f"from the head ({head}) another machine answers at {place}", hint)


def _neighbours(host: Host, facts: Facts, case: Case) -> Iterator[Complaint]:
    """Deployments of this user's own that stand there already, and those of which nothing is known here."""
    others: dict[str, str] = {}
    for each in facts.containers:
        if each.deployment != case.uid:
            others.setdefault(each.deployment, each.name.rpartition("-")[0].removeprefix("sweepfw-"))
    for uid, name in others.items():
        mine = case.known.get(uid)
        what = f"also carries deployment {mine}" if mine else f"also carries a deployment of others ({name})"
        do = f"its trials share the machine; `sweepfw infra down --on {mine}` removes it" if mine else ""
        yield Complaint(host.name, what, do or "trials of both share the machine", fatal=False, note=True)


def _together(case: Case) -> Iterator[Complaint]:
    """What only a look at all hosts shows."""
    seen: dict[str, str] = {}
    for name, facts in case.seen.facts.items():
        if facts.machine_id and facts.machine_id in seen:
            yield Complaint(
                name,
                f"has the same machine-id as {seen[facts.machine_id]}",
                "name a machine only once; for a clone, `sudo rm /etc/machine-id` and "
                "`sudo systemd-machine-id-setup` there",
            )
        seen.setdefault(facts.machine_id, name)
    arches = {facts.arch for facts in case.seen.facts.values()}
    if len(arches) > 1:
        first = next(iter(case.seen.facts))
        yield Complaint(
            first,
            f"hosts of several kinds ({', '.join(sorted(arches))})",
            "an image is built for each",
            fatal=False,
            note=True,
        )


def _gb(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count < 10 * _GB else f"{count / _GB:.0f} GB"
