"""A deployment: hosts brought up together, the services on them, and how all that is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Worker

Role: TypeAlias = Literal["rabbitmq", "head", "flower", "tunnel", "worker"]

LOCAL = "local"  # the host's name that means this machine, without SSH

BROKER_PORT = 5672
SERVICE_PORT = 7443
FLOWER_PORT = 5555

SETTINGS = "/etc/sweepfw"  # in every container of ours: a read-only mount with settings.json
STATE = "/var/lib/sweepfw"  # in head and workers: a volume, laid out as a Workspace
TUNNEL_ACCOUNT = "tunnel"  # the image's account for the sshd inside a worker's container
TUNNEL_UID = 10022

DEPLOYMENT_LABEL = "sweepfw.deployment"  # the deployment's uid
ROLE_LABEL = "sweepfw.role"
CONFIG_LABEL = "sweepfw.config"  # a hash of everything that decides the container


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the deployment, as config.yml names it. `name` is what people see; `target` what ssh is
    asked for (an alias, or an address). `gpus` None: all; otherwise these UUIDs, or none. `slots` None: one
    per GPU, or per CPU."""

    name: str
    target: str
    user: str | None = None
    port: int | None = None
    address_from_head: str | None = None
    mounts: tuple[str, ...] = ()  # host path:container path[:ro], as docker takes them
    gpus: tuple[str, ...] | None = None
    slots: int | None = None
    labels: tuple[str, ...] = ()
    image: str | None = None  # pulled there instead of our own build

    @property
    def local(self) -> bool:
        return self.target == LOCAL


@dataclass(frozen=True, slots=True)
class Build:
    """What images are made of. `ca_bundle` and `pip_conf` are files of this machine, given to builds as
    secrets."""

    base: str = "python:3.13-slim"
    rabbitmq: str = "rabbitmq:4"
    ca_bundle: str | None = None
    pip_conf: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the user asked for. `head` and `workers` are names of `hosts`. Durations in seconds."""

    name: str
    hosts: tuple[Host, ...]
    head: str
    workers: tuple[str, ...]
    identity: str | None = None
    remote_dir: str = "~/.sweepfw"
    build: Build = Build()
    lease: float = 300
    renew: float = 20

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def prefix(name: str, uid: str) -> str:
    """What every container, volume and network of the deployment begins with."""
    return f"sweepfw-{name}-{uid[:6]}-"


def container(name: str, uid: str, role: Role) -> str:
    return prefix(name, uid) + role


def network(name: str, uid: str) -> str:
    return prefix(name, uid) + "net"


def folder(name: str, uid: str, machine_id: str) -> str:
    """The deployment's folder under `remote_dir`. Homes may be shared: so it carries the machine's id."""
    return f"{name}-{uid[:6]}-{machine_id[:8]}"


# -- what services are told (settings.json) ------------------------------------------------------------


class HeadSettings(NamedTuple):
    """For the head. `broker` is an AMQP address with user and password. Paths are the container's."""

    deployment: str
    uid: str
    broker: str
    certificate: str
    key: str
    people: str  # the token of the command line
    workers: Mapping[str, str]  # host -> its token
    lease: float = 300
    renew: float = 20


class WorkerSettings(NamedTuple):
    """For a worker. `service` is host and port; `certificate` the path of the one that is pinned."""

    deployment: str
    uid: str
    host: str
    broker: str
    service: tuple[str, int]
    certificate: str
    token: str
    slots: int | None = None
    gpus: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()  # paths in the container that the user mounted
    cpus: float | None = None
    renew: float = 20


class TunnelSettings(NamedTuple):
    """For the tunnel: one line of ssh to each worker host. `ssh` is the argument list, but for `ssh`."""

    deployment: str
    uid: str
    lines: Mapping[str, tuple[str, ...]]  # host -> arguments


class FlowerSettings(NamedTuple):
    deployment: str
    uid: str
    broker: str
    user: str
    password: str


# -- what passes between workers, head and people -------------------------------------------------------


class Advert(NamedTuple):
    """What a worker tells of its host when it announces itself. Memory in bytes."""

    slots: int
    cpus: float
    memory: int | None = None
    gpus: tuple[Gpu, ...] = ()
    labels: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    version: str = ""  # sweepfw's
    python: str = ""
    disk_free: int | None = None  # bytes where runs lie
    queue: str = ""  # the Celery queue that it alone reads


class Orders(NamedTuple):
    """What the head wants of a worker. `seen`: to be told in the next question."""

    seen: int
    stop: Mapping[str, Literal["stop", "stop now"]] = {}  # token -> how
    drain: bool = False  # start nothing, end by itself when nothing runs
    forget: tuple[str, ...] = ()  # names of sweeps whose files can go


class LogPart(NamedTuple):
    """Bytes of an attempt's output from where was asked. `ended`: nothing comes after them."""

    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker as the head knows it. `running`: attempts as sweep, trial, attempt, slot."""

    worker: Worker
    advert: Advert
    alive: bool
    seen: float  # seconds since it was last heard of
    draining: bool = False
    running: tuple[tuple[str, int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HeadStatus:
    """The deployment as its head knows it."""

    deployment: str
    uid: str
    version: str
    started: float
    broker: bool  # whether the head is connected to it
    queued: int
    running: int
    disk_free: int | None = None
    workers: tuple[WorkerStatus, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
