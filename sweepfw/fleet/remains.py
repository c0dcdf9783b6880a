"""What of a deployment there is on a host: one question, and how to read the answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import CONFIG_LABEL, DEPLOYMENT_LABEL, ROLE_LABEL, STATE, folder
from sweepfw.core.gpus import LIST, PROCESSES, Gpu, read_gpus
from sweepfw.errors import SweepError

IMAGE = "sweepfw"  # the repository of the images that we build: sweepfw:<hash>

# Sections begin with "@@MARK NAME"; the mark is drawn anew each time: nothing can pretend to one.
_SCRIPT = r"""
say() { printf '\n@@%s %s\n' "$mark" "$1"; }
soon() { if command -v timeout >/dev/null; then timeout 30 "$@"; else "$@"; fi; }
ask() { soon docker "$@" || failed="$failed $1"; }
main() {
failed=
mark=$1 uid=$2 dir=$3 stem=$4 ours=label=@LABEL@=$2
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin
case $dir in "~") dir=$HOME;; "~/"*) dir=$HOME/${dir#"~/"};; esac
id=$(cat /etc/machine-id || cat /var/lib/dbus/machine-id) id8=$(printf %.8s "$id")
say who; id -u; id -g
say machine; printf '%s\n' "$id"
say key; grep -c " sweepfw:$uid:$id8\$" "$HOME/.ssh/authorized_keys"
say folder; [ -e "$dir/$stem-$id8" ] && printf '%s\n' "$dir/$stem-$id8"
say command; command -v docker
say docker; soon docker version --format '{{.Server.Version}}'
say containers; ask ps -a --no-trunc --filter "$ours" --format '{{json .}}'
say volumes; ask volume ls --filter "$ours" --format '{{json .}}'
say networks; ask network ls --filter "$ours" --format '{{json .}}'
say images; ask image ls --no-trunc --format '{{json .}}' @IMAGE@
say used; ask ps -a --no-trunc --format '{{.Label "@LABEL@"}} {{.Image}}'
say mounts; for id in $(soon docker ps -aq --filter "$ours"); do soon docker inspect --format \
    '{{$n := .Name}}{{range .Mounts}}{{$n}} {{.Name}} {{.Destination}}{{println}}{{end}}' "$id"; done
say disk; root=$(soon docker info --format '{{.DockerRootDir}}'); [ -d "$root" ] || root=/
soon df -Pk "$root" | tail -n 1
@MORE@
say failed; printf '%s\n' "$failed"
say end
}
main "$@" </dev/null 2>/dev/null
"""
_GPUS = f"""say gpus; soon {LIST.quoted()}
say processes; soon {PROCESSES.quoted()}
say owners; for pid in $(soon nvidia-smi --query-compute-apps=pid --format=csv,noheader); do
    printf '%s %s\\n' "$pid" "$(tr '\\n' ' ' <"/proc/$pid/cgroup")"; done"""


class Container(NamedTuple):
    """A container of ours. `state` is Docker's (`running`, `exited`, …); `status` its words for people.
    `volume` is the one at its /var/lib/sweepfw, if it has one there."""

    name: str
    role: str
    state: str
    status: str
    image: str
    config: str = ""
    volume: str = ""
    id: str = ""

    @property
    def health(self) -> str:
        """`healthy`, `unhealthy`, `starting`; where Docker does not look after it, its state."""
        for word in ("unhealthy", "healthy", "starting"):
            if f"({word})" in self.status or (word == "starting" and "health: starting" in self.status):
                return word
        return self.state

    @property
    def broken(self) -> bool:
        return self.health not in ("healthy", "running", "starting")


class Remains(NamedTuple):
    """All of a deployment that one host holds, and what was asked beside it. `user` as docker takes it,
    `uid:gid`; `installed`: there is a docker command; `docker`: the engine's version, "" where none answers
    us; `images` are those that we built, for whomever, and `shared` those that containers of others use."""

    user: str = ""
    machine_id: str = ""
    installed: bool = False
    docker: str = ""
    failed: bool = False
    containers: tuple[Container, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    shared: frozenset[str] = frozenset()
    folder: str = ""  # the deployment's, there
    key: bool = False
    disk_free: int | None = None
    gpus: tuple[Gpu, ...] = ()
    ours: frozenset[int] = frozenset()  # the processes on GPUs that run in our containers

    @property
    def silent(self) -> bool:
        """Whether there may be more than we see: Docker is there, and does not answer, or not all."""
        return self.installed and (not self.docker or self.failed)

    @property
    def anything(self) -> bool:
        """Whether something of the deployment is left; images don't count, they are nobody's."""
        return bool(self.containers or self.volumes or self.networks or self.folder or self.key)

    def container(self, role: str) -> Container | None:
        return next((each for each in self.containers if each.role == role), None)

    def state_volume(self, role: str) -> str | None:
        """The volume with the state of head or worker, also where its container is gone."""
        found = self.container(role)
        if found and found.volume:
            return found.volume
        return next((name for name in self.volumes if name.endswith(f"-{role}")), None)

    def image(self, role: str) -> str | None:
        """An image of ours to look into volumes with, the role's own if it is known."""
        found = self.container(role)
        return found.image if found else next(iter(self.images), None)


def question(mark: str, deployment: str, uid: str, remote_dir: str, *, gpus: bool = False) -> Cmd:
    """What to run on a host; its answer is for `read`, with the same mark."""
    script = _SCRIPT.replace("@LABEL@", DEPLOYMENT_LABEL).replace("@IMAGE@", IMAGE)
    stem = folder(deployment, uid, "").rstrip("-")
    script = script.replace("@MORE@", _GPUS if gpus else "")
    return cmd("sh", "-c", script, "sh", mark, uid, remote_dir, stem)


def read(mark: str, uid: str, answer: str) -> Remains:
    """The answer to the question. SweepError where it is not whole."""
    parts = _sections(mark, answer)
    if "end" not in parts:
        raise SweepError("the answer of the host's shell is not whole; is its login shell a POSIX one?")
    mounts = _mounts(parts["mounts"])
    containers = tuple(_container(row, mounts) for row in _rows(parts["containers"]))
    disk = next(iter(parts["disk"]), "").split()
    return Remains(
        user=":".join(parts["who"]),
        machine_id="".join(parts["machine"]),
        installed=bool(parts["command"]),
        docker=next(iter(parts["docker"]), ""),
        failed=any(line.strip() for line in parts["failed"]),
        containers=containers,
        volumes=tuple(str(row.get("Name")) for row in _rows(parts["volumes"])),
        networks=tuple(str(row.get("Name")) for row in _rows(parts["networks"])),
        images=tuple(_images(_rows(parts["images"]))),
        shared=frozenset(row[2] for line in parts["used"] if (row := line.partition(" "))[0] != uid),
        folder="".join(parts["folder"]),
        key=parts["key"] not in ([], ["0"]),
        disk_free=int(disk[3]) * 1024 if len(disk) > 3 and disk[3].isdecimal() else None,
        gpus=read_gpus("\n".join(parts.get("gpus", [])), "\n".join(parts.get("processes", []))),
        ours=_ours(parts.get("owners", []), containers),
    )


def _sections(mark: str, answer: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in answer.splitlines():
        if line.startswith(f"@@{mark} "):
            lines = parts.setdefault(line.removeprefix(f"@@{mark} "), [])
        elif line:
            lines.append(line)
    return parts


def _rows(lines: list[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _container(row: Mapping[str, Any], mounts: Mapping[str, str]) -> Container:
    labels = dict(pair.partition("=")[::2] for pair in str(row.get("Labels", "")).split(","))
    name = str(row.get("Names"))
    return Container(
        name,
        labels.get(ROLE_LABEL, ""),
        str(row.get("State")),
        str(row.get("Status")),
        str(row.get("Image")),
        labels.get(CONFIG_LABEL, ""),
        mounts.get(name, ""),
        str(row.get("ID")),
    )


def _ours(lines: list[str], containers: tuple[Container, ...]) -> frozenset[int]:
    """The processes whose control group is that of a container of ours."""
    rows = [line.partition(" ") for line in lines]
    return frozenset(
        int(pid)
        for pid, _, group in rows
        if pid.isdecimal() and any(c.id and c.id in group for c in containers)
    )


def _mounts(lines: list[str]) -> dict[str, str]:
    """Container -> the volume at our state's place."""
    rows = (line.split() for line in lines)
    return {row[0].removeprefix("/"): row[1] for row in rows if len(row) == 3 and row[2] == STATE}


def _images(rows: list[dict[str, Any]]) -> list[str]:
    named = (f"{row.get('Repository')}:{row.get('Tag')}" for row in rows)
    return [name for name in named if not name.endswith(":<none>")]
