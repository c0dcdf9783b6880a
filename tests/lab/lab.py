"""A lab of real hosts on one machine: containers with an SSH server and a Docker engine of their own.

    lab = Lab.start(hosts=2, gpus={"host2": 4})
    lab.hosts[0].ssh(["hostname"])        # as the user `lab`, over SSH
    lab.hosts[0].run(["docker", "ps"])    # as root, from beside, also where the network is cut
    lab.stop()

Accounts: `lab` may use Docker and sudo, `plain` neither, `root` is there too; the lab's key opens them all.
Hosts know one another as host1, host2, ... Nothing is left behind: what a killed process leaves is removed
at the next start.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import lab_images
from lab_docker import LabError, docker, labelled, mtu, nameservers
from lab_host import Host
from lab_images import CACHE, Images
from lab_machine import BASE, RABBITMQ, copy_seed, make_seed, run_machine

USERS = {"lab": ("docker",), "plain": ()}
_LABEL = "sweepfw.lab"


@dataclass(frozen=True)
class Kind:
    """What is special about one host.

    engine: has Docker; its disk is `docker_disk` large (such as "300m"), if given. home: the name of a home
    that several hosts share. machine_id: instead of a fresh one. behind: only that host may reach its SSH.
    image: another one of this machine's, with what bare.Dockerfile adds. share: the name of a folder,
    /srv/NAME, that several hosts share and that no host takes along when it is lost.
    """

    gpus: int = 0
    engine: bool = True
    docker_disk: str = ""
    home: str = ""
    machine_id: str = ""
    behind: str = ""
    image: str = ""
    share: str = ""


@dataclass
class Lab:
    """Hosts that run. folder: `key`, `ssh_config`, `known_hosts`."""

    name: str
    folder: Path
    images: Images
    hosts: list[Host] = field(default_factory=list)

    # What a configuration's `build.base` and `build.rabbitmq` name: every host's engine has them.
    base = BASE
    rabbitmq = RABBITMQ

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: host1, host2, ... as the user `lab`."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def network(self) -> str:
        return f"sweepfw-lab-{self.name}"

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    @classmethod
    def start(
        cls,
        hosts: int = 2,
        *,
        gpus: Mapping[str, int] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        users: Mapping[str, Iterable[str]] | None = None,
        name: str = "",
        forever: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> Lab:
        """Hosts that answer. `users`: accounts with their groups, beside `lab` and `plain`.

        The lab goes with this process, by `stop` or at the next start of any; `forever`: by `stop` only.
        """
        sweep()
        images = lab_images.make(say, make_seed)
        name = name or f"{os.getpid()}-{random.randrange(16**4):04x}"
        lab = cls(name, CACHE / "labs" / name, images)
        if lab.folder.exists() or labelled("container", f"{_LABEL}={name}"):
            raise LabError(f"a lab {name} is up: `scripts/lab down {name}` ends it")
        named = {f"host{n}": (kinds or {}).get(f"host{n}", Kind()) for n in range(1, hosts + 1)}
        for host, count in (gpus or {}).items():
            named[host] = Kind(**{**named[host].__dict__, "gpus": count})
        lab.folder.mkdir(parents=True, mode=0o700)
        try:
            lab._make(named, {**USERS, **(users or {})}, "-" if forever else _identity(os.getpid()))
        except BaseException:
            lab.stop()
            raise
        return lab

    def _make(self, kinds: Mapping[str, Kind], users: Mapping[str, Iterable[str]], owner: str) -> None:
        labels = ["--label", f"{_LABEL}={self.name}", "--label", f"{_LABEL}.owner={owner}"]
        (self.folder / "owner").write_text(owner)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {self.name}", "-f", str(self.key)],
            check=True,
        )
        subnet = _make_network(self.network, labels)
        volumes = {host: f"{self.network}-{host}" for host, kind in kinds.items() if not kind.docker_disk}
        for volume in volumes.values():
            docker("volume", "create", *labels, volume)
        copy_seed(self.images, [volume for host, volume in volumes.items() if kinds[host].engine])
        accounts = " ".join(f"{user}:{','.join(groups)}" for user, groups in users.items())
        environment = {"LAB_KEY": self.key.with_suffix(".pub").read_text().strip(), "LAB_USERS": accounts}

        def start(number: int, name: str, kind: Kind) -> Host:
            host = Host(name, f"{subnet}.{10 + number}", self.key, f"{self.network}-{name}", self)
            arguments = _arguments(kind, subnet, environment)
            if name in volumes:
                arguments += ["--mount", f"type=volume,src={volumes[name]},dst=/var/lib/docker"]
            if kind.home:
                arguments += ["--mount", f"type=volume,src={self.network}-home-{kind.home},dst=/home"]
            if kind.share:
                volume = f"{self.network}-share-{kind.share}"
                arguments += ["--mount", f"type=volume,src={volume},dst=/srv/{kind.share}"]
            place = ["--network", self.network, "--ip", host.address, "--network-alias", name]
            image = kind.image or (self.images.host if kind.engine else self.images.bare)
            run_machine("--name", host.container, "--hostname", name, *labels, *place, *arguments, image)
            host.wait_until_up()
            return host

        for home in {kind.home for kind in kinds.values()} - {""}:
            docker("volume", "create", *labels, f"{self.network}-home-{home}")
        for share in {kind.share for kind in kinds.values()} - {""}:
            docker("volume", "create", *labels, f"{self.network}-share-{share}")
        with ThreadPoolExecutor() as pool:
            starts = [pool.submit(start, n, *item) for n, item in enumerate(kinds.items(), 1)]
            self.hosts = [one.result() for one in starts]
        self.write_ssh_files({name: kind.behind for name, kind in kinds.items()})
        (self.folder / "hosts.json").write_text(json.dumps({host.name: host.address for host in self.hosts}))

    def write_ssh_files(self, behind: Mapping[str, str]) -> None:
        """ssh_config and known_hosts, as the hosts are now."""
        known = [f"{host.name},{host.address} {host.host_key()}\n" for host in self.hosts]
        self.known_hosts.write_text("".join(known))
        rows = []
        for host in self.hosts:
            rows += [f"Host {host.name}", f"  HostName {host.address}"]
            if behind.get(host.name):
                rows += [f"  ProxyJump {behind[host.name]}"]
        rows += ["Host *", "  User lab", f"  IdentityFile {self.key}", "  IdentitiesOnly yes"]
        rows += [f"  UserKnownHostsFile {self.known_hosts}", "  StrictHostKeyChecking yes", "  BatchMode yes"]
        self.ssh_config.write_text("\n".join([*rows, ""]))

    def heal(self) -> None:
        """All hosts up, connected and awake, whatever was done to them. Files are as they were left."""
        for host in self.hosts:
            host.heal()

    def stop(self) -> None:
        """Nothing of the lab is left."""
        remove(self.name)


def stop_all() -> None:
    """No lab is left, whoever started it."""
    for name in labs():
        remove(name)


def remove(name: str) -> None:
    label = f"{_LABEL}={name}"
    if containers := labelled("container", label):
        docker("rm", "-f", "-v", *containers, check=False)
    if networks := labelled("network", label):
        docker("network", "rm", *networks, check=False)
    if volumes := labelled("volume", label):
        docker("volume", "rm", "-f", *volumes, check=False)
    shutil.rmtree(CACHE / "labs" / name, ignore_errors=True)


def sweep() -> None:
    """Remove the labs whose process is gone."""
    for name, owner in labs().items():
        if owner != "-" and _identity(int(owner.partition("/")[0])) != owner:
            remove(name)


def labs() -> dict[str, str]:
    """Labs that left anything here, with their owners."""
    shape = '{{.Label "sweepfw.lab"}} {{.Label "sweepfw.lab.owner"}}'
    rows = docker("ps", "-a", "--filter", f"label={_LABEL}.owner", "--format", shape).splitlines()
    for kind in ("network", "volume"):
        rows += docker(kind, "ls", "--filter", f"label={_LABEL}.owner", "--format", shape).splitlines()
    found = dict(row.split() for row in set(rows))
    for file in (CACHE / "labs").glob("*/owner"):
        with suppress(FileNotFoundError):  # its process is just removing it
            found.setdefault(file.parent.name, file.read_text() or "-")
    return found


def _identity(pid: int) -> str:
    """A process, by more than its number; what ended has no start."""
    try:
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        start = "gone"
    return f"{pid}/{start}"


def _make_network(name: str, labels: Sequence[str]) -> str:
    """A network's first three numbers. Addresses of our own choice stay the same over a host's reboot."""
    for _ in range(20):
        subnet = f"10.213.{random.randrange(1, 255)}"
        options = ["--subnet", f"{subnet}.0/24", "--gateway", f"{subnet}.1"]
        options += ["-o", f"com.docker.network.driver.mtu={mtu()}"]
        try:
            docker("network", "create", *labels, *options, name)
        except LabError as error:
            if "overlaps" not in str(error):
                raise
            continue
        return subnet
    raise LabError("no free network in 10.213.0.0/16 for the lab")


def _arguments(kind: Kind, subnet: str, environment: Mapping[str, str]) -> list[str]:
    """A host's own options of `docker run`."""
    daemon: dict[str, object] = {
        "mtu": mtu(),
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": str(mtu())}},
    }
    if servers := nameservers():
        daemon["dns"] = servers
    if kind.gpus:
        daemon["runtimes"] = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    variables = {**environment, "LAB_DAEMON": json.dumps(daemon) if kind.engine else ""}
    variables |= {"LAB_ENGINE": "yes" if kind.engine else "no", "LAB_GPUS": str(kind.gpus)}
    variables |= {"LAB_MACHINE_ID": kind.machine_id, "LAB_REFUSE": f"{subnet}.1" if kind.behind else ""}
    arguments = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
    if kind.docker_disk:
        arguments += ["--tmpfs", f"/var/lib/docker:exec,mode=710,size={kind.docker_disk}"]
    return arguments
