"""What a host is and has: read from what `questions.SCRIPT` printed there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from sweepfw.core.gpus import Gpu, complaint, read_gpus

_KIB = 1024
_LATEST = 1 << 40  # seconds: no clock is there yet
NONSENSE = (ValueError, TypeError, AttributeError, RecursionError, OverflowError)  # what answers may raise
_WORDS = {  # what goes into paths and commands, also of other hosts
    "user": r"[^\s:'\"`$;&|<>\x00-\x1f\x7f-\x9f]{1,64}[$]?",
    "machine_id": r"[0-9A-Za-z-]{0,64}",
    "arch": r"[0-9A-Za-z_.-]{0,32}",
    "home": r"|/[^\x00-\x1f\x7f-\x9f]{0,1000}",
    "dir": r"|/[^\x00-\x1f\x7f-\x9f]{0,1000}",
}
_NETWORK = ("nfs", "cifs", "smb", "afs", "lustre", "gpfs", "ceph", "fuse.sshfs", "beegfs", "panfs", "9p")


class Container(NamedTuple):
    """A container of sweepfw's, of whatever deployment. `state`: created, running, exited, ...; `status`:
    docker's words, with the health in them. `config`: the hash that it was made from."""

    name: str
    state: str
    status: str
    deployment: str
    role: str
    config: str
    image: str

    @property
    def unhealthy(self) -> bool:
        return "(unhealthy)" in self.status


class Owned(NamedTuple):
    """A volume or a network, and the deployment that it belongs to."""

    name: str
    deployment: str


@dataclass(frozen=True, slots=True)
class Docker:
    """The engine. `path` None: there is no command. `error`: why it does not answer, in its own words."""

    path: str | None = None
    error: str = ""
    version: str = ""
    client: str = ""  # the version of the command
    root: str = ""
    rootless: bool = False
    podman: bool = False
    userns: bool = False  # containers' accounts are others outside
    buildx: bool = False
    containerd: bool = False  # whether images lie in containerd's store
    runtimes: tuple[str, ...] = ()
    disk_free: int | None = None  # bytes where images and volumes lie

    @property
    def builds(self) -> bool:
        """Whether it can build with secrets. Older commands bring BuildKit themselves."""
        major = (self.client or self.version).partition(".")[0]
        return self.buildx or (major.isdecimal() and int(major) < 23)

    @property
    def usable(self) -> bool:
        return self.path is not None and not self.error and not self.rootless and not self.podman


@dataclass(frozen=True, slots=True)
class Facts:
    """What one look at a host told. None, 0 or empty where it did not say. Sizes in bytes."""

    uid: int
    gid: int
    user: str
    group: str
    groups: tuple[int, ...]
    home: str
    machine_id: str
    hostname: str
    arch: str
    kernel: str
    system: str  # "Debian GNU/Linux 13 (trixie)"
    cpus: int
    memory: int | None
    memory_free: int | None
    clock: float  # the host's, in seconds since 1970, as the script began
    offset: float  # how far its clock is surely off ours; 0 where the time that asking took may explain it
    home_type: str  # of file system
    dir: str  # remote_dir, with ~ replaced
    disk_free: int | None  # where `dir` lies
    over_quota: bool
    folders: tuple[str, ...]  # in `dir`
    readme: bytes  # of the deployment's folder; empty where there is none
    keys: tuple[str, ...]  # lines of ours in authorized_keys, of whatever deployment
    host_keys: tuple[str, ...]  # of its sshd, "ssh-ed25519 AAAA..."
    selinux: str
    nvidia: int  # NVIDIA GPUs on the bus, with a driver or not
    driver: str
    gpus: tuple[Gpu, ...]
    gpu_error: str
    toolkit: tuple[str, ...]  # commands of the NVIDIA container toolkit that are there
    missing_mounts: tuple[str, ...]  # of those asked for
    docker: Docker
    containers: tuple[Container, ...]
    volumes: tuple[Owned, ...]
    networks: tuple[Owned, ...]
    images: tuple[str, ...]

    @property
    def network_home(self) -> bool:
        return self.home_type.lower().startswith(_NETWORK)


class Reach(NamedTuple):
    """What the head's host sees at an address: whether sshd answers, its keys ("ssh-ed25519 AAAA..."), and
    the IP address that a name has there: containers may not know it."""

    answers: bool
    keys: tuple[str, ...] = ()
    ip: str = ""


def read(printed: str, mark: str, sent: float, received: float) -> Facts:
    """The facts in what the script printed between `sent` and `received`, on our clock. Raises one of
    NONSENSE for answers that no host gives."""
    part = _sections(printed, mark)
    who, system, folder = _lines(part, "who", 6), _lines(part, "system", 4), _lines(part, "dir", 2)
    clock = float(part.get("clock", "") or received)
    sizes = {key: int(value) * _KIB for key, value in re.findall(r"(\w+): +(\d+)", part.get("memory", ""))}
    docker = _docker(part)
    listed = part.get("gpus", "")
    found = Facts(
        uid=int(who[0] or -1),
        gid=int(who[1] or -1),
        user=who[2],
        group=who[3],
        groups=tuple(int(word) for word in who[4].split()),
        home=who[5],
        machine_id=part.get("machine", ""),
        hostname=system[0],
        arch=system[1],
        kernel=system[2],
        system=_release(part.get("release", "")),
        cpus=int(system[3] or 1),
        memory=sizes.get("MemTotal"),
        memory_free=sizes.get("MemAvailable"),
        clock=clock,
        offset=min(clock - sent, 0.0) or max(clock - received, 0.0),
        home_type=part.get("home", ""),
        dir=folder[0],
        disk_free=_free(folder[1]),
        over_quota="*" in part.get("quota", ""),
        folders=tuple(part.get("folders", "").splitlines()),
        readme=part.get("readme", "").encode(),
        keys=tuple(part.get("keys", "").splitlines()),
        host_keys=tuple(part.get("hostkeys", "").splitlines()),
        selinux=part.get("selinux", ""),
        nvidia=len(part.get("nvidia", "").splitlines()),
        driver=part.get("driver", "").partition("\n")[2],
        gpus=read_gpus(listed),
        gpu_error=complaint(listed) or "",
        toolkit=tuple(path.rpartition("/")[2] for path in part.get("toolkit", "").splitlines()),
        missing_mounts=tuple(line[3:] for line in part.get("mounts", "").splitlines() if line[:3] == "no "),
        docker=docker,
        containers=tuple(Container(*row) for row in _rows(part, "containers", len(Container._fields))),
        volumes=tuple(Owned(*row) for row in _rows(part, "volumes", 2)),
        networks=tuple(Owned(*row) for row in _rows(part, "networks", 2)),
        images=tuple(part.get("images", "").splitlines()),
    )
    _check(found)
    return found


def _check(found: Facts) -> None:
    """A host may be anybody's. What it says of itself can't be more than a word or a path."""
    if not isfinite(found.clock) or abs(found.clock) > _LATEST:
        raise ValueError("a clock without a time")
    for name, pattern in _WORDS.items():
        said = getattr(found, name)
        if not re.fullmatch(pattern, said) and found.uid >= 0:
            raise ValueError(f"{name} {said[:40]!r}")


def read_reach(printed: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Reach]:
    """What `questions.REACH` found at each address and port."""
    found = {place: Reach(False) for place in places}
    for line in printed.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "name":
            address, _, ip = rest.partition(" ")
            for place in [each for each in found if each[0] == address != ip]:
                found[place] = found[place]._replace(ip=ip)
            continue
        port, _, said = rest.partition(" ")
        place = (_scanned(said) if kind == "scan" else said.partition(" ")[0], int(port or 0))
        if place not in found:
            continue
        if kind == "scan" and not said.startswith("#"):
            keys = (*found[place].keys, " ".join(said.split()[1:3]))
            found[place] = found[place]._replace(answers=True, keys=keys)
        elif "SSH-" in said:
            found[place] = found[place]._replace(answers=True)
    return found


def _scanned(said: str) -> str:
    """The address in `host type key`, `[host]:port type key` or `# host:port SSH-2.0-...`."""
    word = (said.lstrip("# ").split() or [""])[0]
    if match := re.fullmatch(r"\[(.+)\](?::\d+)?", word):
        return match[1]
    return word.rpartition(":")[0] if said.startswith("#") else word


def _sections(printed: str, mark: str) -> dict[str, str]:
    parts = ("\n" + printed).split(f"\n@@{mark} ")[1:]
    return {name: text.rstrip("\n") for name, _, text in (part.partition("\n") for part in parts)}


def _lines(part: Mapping[str, str], name: str, count: int) -> list[str]:
    lines = part.get(name, "").splitlines()
    return [*lines, *[""] * count][:count]


def _rows(part: Mapping[str, str], name: str, count: int) -> list[list[str]]:
    rows = [line.split("|") for line in part.get(name, "").splitlines()]
    return [row for row in rows if len(row) == count]


def _free(line: str) -> int | None:
    """Available bytes in a line of `df -Pk`."""
    match = re.search(r" (\d+) +\d+% /", line)
    return int(match[1]) * _KIB if match else None


def _release(text: str) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else ""


def _docker(part: Mapping[str, str]) -> Docker:
    path = _lines(part, "command", 1)[0]
    if not path:
        return Docker()
    said = part.get("info", "")
    row = next((line for line in said.splitlines() if line.startswith("{")), "")
    try:
        info: dict[str, Any] = json.loads(row or "{}")
    except ValueError:
        info = {}
    if "host" in info or "podman" in said.lower():
        return Docker(path, podman=True, version=str(info.get("version", {}).get("Version", "")))
    security = " ".join(map(str, info.get("SecurityOptions") or ()))
    return Docker(
        path,
        error=_engine_error(info, said),
        version=str(info.get("ServerVersion") or ""),
        client=str((info.get("ClientInfo") or {}).get("Version") or ""),
        root=str(info.get("DockerRootDir") or ""),
        rootless="name=rootless" in security,
        userns="name=userns" in security,
        buildx=bool(part.get("buildx")),
        containerd="io.containerd.snapshotter" in json.dumps(info.get("DriverStatus")),
        runtimes=tuple(map(str, info.get("Runtimes") or ())),
        disk_free=_free(part.get("disk", "")),
    )


def _engine_error(info: Mapping[str, Any], said: str) -> str:
    """Why the engine did not answer, "" where it did."""
    if info.get("ServerVersion"):
        return ""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("{")]
    errors = [*(info.get("ServerErrors") or ()), *lines]
    return str(errors[0]) if errors else "no answer from the engine"
