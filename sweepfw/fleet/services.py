"""What should be on each host of a deployment: a pure function of its configuration, of what the hosts are,
and of its credentials. What it returns is compared with what is there (`plan`)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from sweepfw.core import broker
from sweepfw.core.deployment import (
    BROKER_PORT,
    SERVICE_PORT,
    SETTINGS,
    STATE,
    Deployment,
    FlowerSettings,
    HeadSettings,
    Host,
    Role,
    TunnelSettings,
    WorkerSettings,
    container,
    folder,
    network,
    prefix,
)
from sweepfw.fleet import authorized, roles, tunnel_lines
from sweepfw.fleet.containers import File, Wanted
from sweepfw.fleet.credentials import FLOWER_USER, Credentials
from sweepfw.fleet.facts import Facts
from sweepfw.fleet.tunnel_lines import End


@dataclass(frozen=True, slots=True)
class World:
    """All that decides what should be, beside the configuration.

    `facts` of the hosts that answered; `ends` of all worker hosts that are known, whether they answer now or
    not; `ours` the image that we build; `pip_conf` and `ca_bundle` what environments on workers are built
    with; `start` RabbitMQ's script.
    """

    uid: str
    owner: str  # the user and machine that the deployment belongs to, for the README
    facts: Mapping[str, Facts]
    ends: Mapping[str, End]
    credentials: Credentials
    ours: str
    start: bytes
    pip_conf: bytes | None = None
    ca_bundle: bytes | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What should be on one host. `key`: the line in authorized_keys, "" for none."""

    host: str
    folder: str
    readme: bytes
    network: str
    volumes: tuple[str, ...]
    containers: tuple[Wanted, ...]
    tag: str
    key: str

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.image for each in self.containers))


def wishes(deployment: Deployment, world: World) -> dict[str, Wish]:
    """By host, for those that answered."""
    return {
        host.name: _wish(deployment, world, host) for host in deployment.hosts if host.name in world.facts
    }


def _wish(deployment: Deployment, world: World, host: Host) -> Wish:
    facts = world.facts[host.name]
    head, worker = host.name == deployment.head, host.name in deployment.workers
    tag = authorized.tag(world.uid, facts.machine_id)
    name = container(deployment.name, world.uid, "worker")
    reached = worker and not head
    key = authorized.line(world.credentials.outer.public, facts.docker.path or "docker", name, tag)
    making = _Making(deployment, world, host, facts)
    stem = prefix(deployment.name, world.uid)
    return Wish(
        host.name,
        f"{facts.dir}/{folder(deployment.name, world.uid, facts.machine_id)}",
        roles.README.format(
            name=deployment.name, owner=world.owner, uid=world.uid, prefix=stem, tag=tag
        ).encode(),
        network(deployment.name, world.uid),
        tuple(stem + role for role in (["head", "flower"] if head else []) + (["worker"] if worker else [])),
        (*(making.head() if head else ()), *((making.worker(),) if worker else ())),
        tag,
        key if reached else "",
    )


def password(credentials: Credentials, host: str) -> str:
    """A worker host's own at the broker."""
    return hmac.digest(credentials.broker_worker.reveal().encode(), host.encode(), "sha256").hex()


def far(deployment: Deployment) -> list[str]:
    """The worker hosts that the head reaches over SSH."""
    return sorted(name for name in deployment.workers if name != deployment.head)


class _Making:
    """The containers of one host."""

    def __init__(self, deployment: Deployment, world: World, host: Host, facts: Facts) -> None:
        self.deployment, self.world, self.host, self.facts = deployment, world, host, facts
        self.credentials = world.credentials

    def head(self) -> tuple[Wanted, ...]:
        made = (self._rabbitmq(), self._head(), self._flower())
        return (*made, self._tunnel()) if far(self.deployment) else made

    def _rabbitmq(self) -> Wanted:
        passwords = {
            broker.HEAD: self.credentials.broker_head.reveal(),
            broker.FLOWER: self.credentials.broker_flower.reveal(),
        }
        workers = tuple(sorted(self.deployment.workers))
        passwords |= {broker.worker_user(name): password(self.credentials, name) for name in workers}
        told = broker.definitions(self.world.uid, passwords, workers)
        files = (
            self._file("rabbitmq/start", self.world.start, 0o644),
            self._file("rabbitmq/definitions.json", told.encode()),
        )
        script = f"{SETTINGS}/rabbitmq/start"
        options = (*roles.RABBITMQ, "--health-cmd", f"/bin/sh {script} health", "--entrypoint", "/bin/sh")
        return self._made("rabbitmq", self.deployment.build.rabbitmq, options, (script,), files)

    def _head(self) -> Wanted:
        settings = HeadSettings(
            self.deployment.name,
            self.world.uid,
            self._broker(broker.HEAD, self.credentials.broker_head.reveal(), "rabbitmq"),
            f"{SETTINGS}/certificate.pem",
            f"{SETTINGS}/key.pem",
            self.credentials.people.reveal(),
            {name: self.credentials.workers[name].token.reveal() for name in sorted(self.deployment.workers)},
            float(self.deployment.lease),  # 20 and 20.0 are not the same text
            float(self.deployment.renew),
        )
        key = self.credentials.certificate_key.reveal()
        files = (self._settings(settings), self._certificate(), self._file("key.pem", key.encode()))
        health = ("--health-cmd", f"{roles.SERVICE} head --health")
        return self._ours("head", (*health, *roles.HEALTH, *self._state("head")), files)

    def _flower(self) -> Wanted:
        secret = self.credentials.broker_flower.reveal()
        settings = FlowerSettings(
            self.deployment.name,
            self.world.uid,
            self._broker(broker.FLOWER, secret, "rabbitmq"),
            FLOWER_USER,
            self.credentials.flower_password.reveal(),
        )
        return self._ours("flower", self._state("flower"), (self._settings(settings),))

    def _tunnel(self) -> Wanted:
        ends = {name: self.world.ends[name] for name in far(self.deployment) if name in self.world.ends}
        lines = {name: tunnel_lines.arguments(name, end) for name, end in ends.items()}
        keys = [(name, key) for name, end in ends.items() for key in end.keys]
        workers = self.credentials.workers
        keys += [(tunnel_lines.inner(name), workers[name].host_key.public) for name in ends]
        files = (
            self._settings(TunnelSettings(self.deployment.name, self.world.uid, lines)),
            self._file("known_hosts", tunnel_lines.known_hosts(keys).encode()),
            self._key("outer", self.credentials.outer.private.reveal()),
            self._key("inner", self.credentials.inner.private.reveal()),
        )
        return self._ours("tunnel", (), files)

    def worker(self) -> Wanted:
        here = self.host.name == self.deployment.head
        mine = self.credentials.workers[self.host.name]
        user = broker.worker_user(self.host.name)
        settings = WorkerSettings(
            self.deployment.name,
            self.world.uid,
            self.host.name,
            self._broker(
                user, password(self.credentials, self.host.name), "rabbitmq" if here else "127.0.0.1"
            ),
            ("head" if here else "127.0.0.1", SERVICE_PORT),
            f"{SETTINGS}/certificate.pem",
            mine.token.reveal(),
            self.host.slots,
            self.host.gpus,
            self.host.labels,
            tuple(spec.split(":")[1] for spec in self.host.mounts),
            renew=float(self.deployment.renew),
        )
        files = [self._settings(settings), self._certificate()]
        if not here:
            files += roles.inner_sshd(mine.host_key.private.reveal(), self.credentials.inner.public)
        files += roles.pip_files(self.world.pip_conf, self.world.ca_bundle, self.facts.gid)
        options = (*self._state("worker"), *roles.worker_options(self.host, self.facts))
        options += ("--env", f"PIP_CERT={roles.CA_FILE}") if self.world.ca_bundle else ()
        image = self.host.image or self.world.ours
        return self._ours("worker", options, tuple(files), image=image)

    def _ours(
        self, role: Role, options: tuple[str, ...], files: tuple[File, ...], image: str | None = None
    ) -> Wanted:
        entry = ("--entrypoint", "/opt/sweepfw/bin/python")
        command = ("-m", "sweepfw.engine.service", role)
        return self._made(role, image or self._image(), (*options, *entry), command, files)

    def _image(self) -> str:
        return self.host.image or self.world.ours

    def _made(
        self,
        role: Role,
        image: str,
        options: tuple[str, ...],
        command: tuple[str, ...],
        files: tuple[File, ...],
    ) -> Wanted:
        place = ("--network", network(self.deployment.name, self.world.uid), "--network-alias", role)
        hostname = ("--hostname", roles.hostname(self.host.name) if role == "worker" else role)
        return Wanted(
            role,
            container(self.deployment.name, self.world.uid, role),
            self.world.uid,
            image,
            (*roles.common(self.facts), *place, *hostname, *options),
            command,
            (*roles.accounts(self.host, self.facts), *files),
        )

    def _state(self, role: Role) -> tuple[str, ...]:
        name = prefix(self.deployment.name, self.world.uid) + role
        return ("--mount", f"type=volume,source={name},target={STATE}", "--workdir", STATE)

    def _broker(self, user: str, secret: str, host: str) -> str:
        return broker.address(user, secret, host, BROKER_PORT)

    def _settings(self, settings: HeadSettings | WorkerSettings | TunnelSettings | FlowerSettings) -> File:
        return self._file("settings.json", roles.told(settings._asdict()))

    def _certificate(self) -> File:
        return self._file("certificate.pem", self.credentials.certificate.encode())

    def _file(self, name: str, data: bytes, mode: int = 0o640) -> File:
        return File(f"{SETTINGS}/{name}", data, mode, 0, self.facts.gid)

    def _key(self, name: str, data: str) -> File:
        # ssh takes a key of its own user's only where nobody else can read it.
        return File(f"{SETTINGS}/{name}", data.encode(), 0o400, self.facts.uid, self.facts.gid)
