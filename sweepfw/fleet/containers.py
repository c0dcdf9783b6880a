"""Containers as they should be: everything that decides one, its files included, and the commands for it."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import NamedTuple

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import CONFIG_LABEL, DEPLOYMENT_LABEL, ROLE_LABEL, Role

STOP_SECONDS = 20  # for a worker to end its trials and tell of it


class File(NamedTuple):
    """A file (or, where `data` is None, a folder) that is put into a container before its first start.

    Not mounted: the home that it would be mounted from may lie on a file system that no engine may read.
    """

    path: str
    data: bytes | None
    mode: int = 0o640
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container as it should be. `options` are those of `docker create`, without name and labels."""

    role: Role
    name: str
    deployment: str  # uid
    image: str
    options: tuple[str, ...]
    command: tuple[str, ...]
    files: tuple[File, ...]

    @property
    def config(self) -> str:
        """A hash of all that decides it: another one means that it must be made anew."""
        files = [
            (file.path, file.mode, file.uid, file.gid, hashlib.sha256(file.data or b"").hexdigest())
            for file in self.files
        ]
        told = json.dumps([self.role, self.name, self.image, self.options, self.command, files])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def create(self) -> Cmd:
        labels = {DEPLOYMENT_LABEL: self.deployment, ROLE_LABEL: self.role, CONFIG_LABEL: self.config}
        words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
        return cmd("docker", "create", "--name", self.name, *words, *self.options, self.image, *self.command)

    def fill(self) -> Cmd:
        """Puts `archive` into the container that `create` made."""
        return cmd("docker", "cp", "-", f"{self.name}:/")

    def start(self) -> Cmd:
        return cmd("docker", "start", self.name)

    def archive(self) -> bytes:
        """Its files as a tar, with their owners."""
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in self.files:
                member = tarfile.TarInfo(file.path.lstrip("/"))
                member.mode, member.uid, member.gid = file.mode, file.uid, file.gid
                if file.data is None:
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
                else:
                    member.size = len(file.data)
                    tar.addfile(member, io.BytesIO(file.data))
        return packed.getvalue()


def removal(name: str) -> tuple[Cmd, ...]:
    """End a container with grace, and remove it with what nobody named."""
    return (
        cmd("docker", "stop", "-t", str(STOP_SECONDS), name),
        cmd("docker", "rm", "-f", "-v", name),
    )


def volume(name: str, uid: str) -> Cmd:
    return cmd("docker", "volume", "create", "--label", f"{DEPLOYMENT_LABEL}={uid}", name)


def network(name: str, uid: str) -> Cmd:
    return cmd("docker", "network", "create", "--label", f"{DEPLOYMENT_LABEL}={uid}", name)


def mount(spec: str, home: str) -> str:
    """The user's `host:container[:ro]` as `--mount` takes it, which refuses a path that is not there
    instead of making it, owned by root."""
    source, target, read_only = parse_mount(spec)
    if source == "~" or source.startswith("~/"):
        source = home + source[1:]
    words = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    return ",".join(_csv(word) for word in words)


def parse_mount(spec: str) -> tuple[str, str, bool]:
    source, target, *mode = spec.split(":")
    return source, target, mode == ["ro"]


def _csv(word: str) -> str:
    return '"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word
