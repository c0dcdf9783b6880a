"""How a deployment is: what its hosts say, and what its head says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sweepfw import __version__
from sweepfw.core.gpus import Gpu, others
from sweepfw.errors import SweepError
from sweepfw.fleet.hosts import Open, bound, look, open_shell, opened, side_by_side
from sweepfw.fleet.reach import Reached, connect
from sweepfw.fleet.remains import Container, Remains

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import Deployment, HeadStatus, WorkerStatus

LOW_DISK = 5_000_000_000  # bytes
HEAD_ROLES = ("rabbitmq", "head", "flower")
Connect = Callable[["DeploymentState"], Reached]


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host. `remains` None: it can't be reached, and `problem` says why. `roles`: what should run."""

    name: str
    roles: tuple[str, ...]
    remains: Remains | None = None
    problem: str = ""
    worker: WorkerStatus | None = None

    @property
    def gpus(self) -> list[tuple[Gpu, str | None]]:
        """Its GPUs, each with who else uses it, if somebody does."""
        found = self.remains.gpus if self.remains else ()
        ours = self.remains.ours if self.remains else frozenset()
        return [(gpu, others(gpu, ours)) for gpu in found]

    def complaints(self) -> list[str]:
        """What is not as it should be, a line each."""
        if self.remains is None:
            return [self.problem or f"{self.name}: can't be reached"]
        if self.remains.silent:
            return [f"{self.name}: Docker does not answer; start it there"]
        found = [line for role in self.roles if (line := self._container(role))]
        free = self.remains.disk_free
        if free is not None and free < LOW_DISK:
            found.append(f"{self.name}: {free / 1e9:.1f} GB free where Docker keeps its data; make room")
        return found

    def _container(self, role: str) -> str:
        found: Container | None = self.remains.container(role) if self.remains else None
        if found is None:
            return f"{self.name}: {role} is not there; `sweepfw infra up` brings it up again"
        if found.broken:
            hint = f"`sweepfw infra logs {self.name} {role}` tells why"
            return f"{self.name}: {role} is {found.health}; {hint}"
        return ""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole. `head` None: it did not answer, and `problem` says why."""

    deployment: Deployment
    uid: str
    hosts: tuple[HostStatus, ...]
    head: HeadStatus | None = None
    problem: str = ""

    def complaints(self) -> list[str]:
        """What is not as it should be, a line each; nothing where all is well."""
        found = [line for host in self.hosts for line in host.complaints()]
        if self.head is None:
            return [self.problem, *found]
        if not self.head.broker:
            found.append("the head has no connection to the broker; it tries again by itself")
        found += [line for host in self.hosts if (line := _worker(self.deployment, host))]
        found += [f"{sweep}: no host can run its trials: {why}" for sweep, why in self.unmet.items()]
        found += [
            _version(what, version) for what, version in self.versions.items() if version != __version__
        ]
        return found

    @property
    def unmet(self) -> Mapping[str, str]:
        """Sweep -> why none of the hosts can ever run its trials."""
        told = self.head.extra.get("unmet") if self.head else None
        return told if isinstance(told, Mapping) else {}

    @property
    def versions(self) -> dict[str, str]:
        """Which version runs where."""
        if self.head is None:
            return {}
        workers = {f"{each.worker.host}'s worker": each.advert.version for each in self.head.workers}
        return {"the head": self.head.version} | {who: version for who, version in workers.items() if version}


def _worker(deployment: Deployment, host: HostStatus) -> str:
    if host.name not in deployment.workers or host.remains is None:
        return ""
    if host.worker is None:
        return f"{host.name}: its worker has not announced itself to the head"
    if not host.worker.alive:
        return f"{host.name}: its worker was last heard of {host.worker.seen:.0f} s ago"
    if host.worker.draining:
        hint = "`sweepfw infra up` undoes that, `sweepfw infra down` ends what had begun"
        return f"{host.name}: its worker gets no new trials (drained); {hint}"
    return ""


def _version(what: str, version: str) -> str:
    return f"{what} runs sweepfw {version}, here is {__version__}; `sweepfw infra up` makes them the same"


def gather(state: DeploymentState, *, open: Open = open_shell, connect: Connect = connect) -> Status:
    """Ask the head and all hosts, side by side. Never fails for what does not answer."""
    asked: dict[str, Any] = side_by_side(
        {"head": lambda: _ask_head(state, connect), "hosts": lambda: _ask_hosts(state, open)}
    )
    head, (found, failures) = asked["head"], asked["hosts"]
    told: HeadStatus | None = None if isinstance(head, SweepError) else head
    workers = {each.worker.host: each for each in told.workers} if told else {}
    hosts = tuple(
        HostStatus(
            host.name,
            roles(state.deployment, host.name),
            found.get(host.name),
            str(failures.get(host.name, "")),
            workers.get(host.name),
        )
        for host in state.deployment.hosts
    )
    return Status(state.deployment, state.uid, hosts, told, str(head) if told is None else "")


def roles(deployment: Deployment, host: str) -> tuple[str, ...]:
    """What should run on a host."""
    found: tuple[str, ...] = HEAD_ROLES if host == deployment.head else ()
    if host == deployment.head and set(deployment.workers) - {host}:
        found += ("tunnel",)
    return (*found, "worker") if host in deployment.workers else found


def _ask_head(state: DeploymentState, connect: Connect) -> HeadStatus:
    with connect(state) as reached:
        return reached.desk.status()


def _ask_hosts(state: DeploymentState, open: Open) -> tuple[dict[str, Remains], dict[str, SweepError]]:
    with opened(state, open=open) as hosts:
        ask = partial(look, state, gpus=True)
        answers = side_by_side({name: bound(ask, shell, name) for name, shell in hosts.shells.items()})
    found = {name: each for name, each in answers.items() if not isinstance(each, SweepError)}
    failed = {name: each for name, each in answers.items() if isinstance(each, SweepError)}
    return found, {**hosts.failures, **failed}


# -- as JSON -----------------------------------------------------------------------------------------------


def to_json(status: Status) -> dict[str, Any]:
    """The stable form of `infra status --json`. Sizes in bytes, times in seconds; null: not known."""
    head = status.head
    return {
        "deployment": status.deployment.name,
        "uid": status.uid,
        "version": __version__,
        "head": None
        if head is None
        else {
            "host": status.deployment.head,
            "version": head.version,
            "started": head.started,
            "broker": head.broker,
            "queued": head.queued,
            "running": head.running,
            "disk_free": head.disk_free,
        },
        "hosts": [_host_json(host) for host in status.hosts],
        "unmet": dict(status.unmet),
        "complaints": status.complaints(),
    }


def _host_json(host: HostStatus) -> dict[str, Any]:
    remains = host.remains
    return {
        "host": host.name,
        "roles": list(host.roles),
        "reached": remains is not None,
        "problem": host.problem,
        "docker": remains.docker if remains else None,
        "disk_free": remains.disk_free if remains else None,
        "containers": [
            {"name": each.name, "role": each.role, "state": each.state, "health": each.health}
            for each in (remains.containers if remains else ())
        ],
        "gpus": [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "name": gpu.name,
                "memory": gpu.memory,
                "used": gpu.used,
                "taken": taken,
            }
            for gpu, taken in host.gpus
        ],
        "worker": _worker_json(host.worker),
    }


def _worker_json(worker: WorkerStatus | None) -> dict[str, Any] | None:
    if worker is None:
        return None
    return {
        "alive": worker.alive,
        "seen": worker.seen,
        "draining": worker.draining,
        "version": worker.advert.version,
        "python": worker.advert.python,
        "slots": worker.advert.slots,
        "cpus": worker.advert.cpus,
        "memory": worker.advert.memory,
        "labels": list(worker.advert.labels),
        "disk_free": worker.advert.disk_free,
        "running": [
            {"sweep": sweep, "trial": trial, "attempt": attempt, "slot": slot}
            for sweep, trial, attempt, slot in worker.running
        ],
    }
