"""What containers of ours are given: options of `docker create`, accounts, files. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sweepfw.core.deployment import SETTINGS, STATE, TUNNEL_ACCOUNT, TUNNEL_UID, Host
from sweepfw.fleet.containers import File, mount, parse_mount
from sweepfw.fleet.facts import Facts
from sweepfw.fleet.tunnel_lines import AUTHORIZED, SSHD

SERVICE = "/opt/sweepfw/bin/python -m sweepfw.engine.service"
CA_FILE = f"{SETTINGS}/ca.pem"
HEALTH = (
    *("--health-interval", "30s", "--health-timeout", "20s"),
    *("--health-retries", "4", "--health-start-period", "60s"),
)
# The broker keeps nothing: what it held is published again. Its own watermark (400 MB) is below the limit.
RABBITMQ = (
    *("--memory", "1500m", "--memory-swap", "1500m"),
    *("--tmpfs", "/var/lib/rabbitmq:rw,mode=1777,size=512m"),
    *HEALTH,
)
README = """\
This folder belongs to sweepfw, a program that runs grids of experiments.
Deployment: {name}, of {owner}. It opens no port.

What it keeps on this machine:
  - Docker containers, volumes and a network named {prefix}...
    with the label sweepfw.deployment={uid}
  - images named sweepfw:...
  - this folder
  - on hosts that only run workers, the line in ~/.ssh/authorized_keys that ends with
    {tag}

Its owner removes all of it with `sweepfw infra down`. An admin stops it with
  docker update --restart no $(docker ps -q --filter label=sweepfw.deployment={uid})
  docker stop $(docker ps -q --filter label=sweepfw.deployment={uid})
and removes it with
  docker rm -f -v $(docker ps -aq --filter label=sweepfw.deployment={uid})
  docker volume rm $(docker volume ls -q --filter label=sweepfw.deployment={uid})
  docker network rm $(docker network ls -q --filter label=sweepfw.deployment={uid})
"""
_GIB = 1 << 30


def common(facts: Facts) -> tuple[str, ...]:
    """For each container: as the SSH user, without any right beyond that account's."""
    groups = [word for gid in _groups(facts) for word in ("--group-add", str(gid))]
    return (
        *("--user", f"{facts.uid}:{facts.gid}", *groups),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init"),
        # Not `unless-stopped`: an engine that was killed takes what it finds alive for stopped by a person.
        *("--restart", "always", "--pids-limit", "-1"),
        *("--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
        *(("--userns", "host") if facts.docker.userns else ()),
    )


def _groups(facts: Facts) -> list[int]:
    """The user's other groups, by which shared data may be readable."""
    return sorted(set(facts.groups) - {facts.gid})


def accounts(host: Host, facts: Facts) -> tuple[File, ...]:
    """Who there is in the container: the SSH user has the name that it has outside, and a home."""
    home = facts.home if facts.home.startswith("/") and facts.home != "/" else f"{STATE}/home"
    passwd = {
        0: "root:x:0:0:root:/root:/bin/sh",
        TUNNEL_UID: f"{TUNNEL_ACCOUNT}:x:{TUNNEL_UID}:{TUNNEL_UID}::/nonexistent:/bin/sh",
        65534: "nobody:x:65534:65534:nobody:/nonexistent:/bin/false",
    }
    group = {0: "root:x:0:", TUNNEL_UID: f"{TUNNEL_ACCOUNT}:x:{TUNNEL_UID}:", 65534: "nogroup:x:65534:"}
    passwd[facts.uid] = f"{_word(facts.user)}:x:{facts.uid}:{facts.gid}::{home}:/bin/sh"
    group.setdefault(facts.gid, f"{_word(facts.group)}:x:{facts.gid}:")
    return (
        File("/etc/passwd", _text(passwd), 0o644),
        File("/etc/group", _text(group), 0o644),
        File(SETTINGS, None, 0o755),
        *((File(home, None, 0o700, facts.uid, facts.gid),) if not _covered(host, home) else ()),
    )


def _covered(host: Host, home: str) -> bool:
    """Whether the home in the container is, or lies in, something that the user mounts there."""
    targets = (parse_mount(spec)[1].rstrip("/") for spec in host.mounts)
    return any(f"{home}/".startswith(f"{target}/") for target in targets)


def hostname(name: str) -> str:
    """The host's name as machines may be called."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name).strip(".-") or "worker"


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@-]", "_", name) or "user"


def _text(rows: Mapping[int, str]) -> bytes:
    return "".join(f"{rows[number]}\n" for number in sorted(rows)).encode()


def worker_options(host: Host, facts: Facts) -> tuple[str, ...]:
    mounts = [word for spec in host.mounts for word in ("--mount", mount(spec, facts.home))]
    # Data that others label for themselves is not ours to label anew.
    confined = facts.selinux == "Enforcing" and host.mounts
    return (
        *("--shm-size", str(_shared(facts))),
        *gpu_options(host, facts),
        *mounts,
        *(("--security-opt", "label=disable") if confined else ()),
    )


def _shared(facts: Facts) -> int:
    """Half the memory, in whole GiB: kernels count the rest a bit differently after each start."""
    return max(_GIB, round((facts.memory or 2 * _GIB) / 2 / _GIB) * _GIB)


def gpu_options(host: Host, facts: Facts) -> tuple[str, ...]:
    """How the container gets the host's GPUs, by what the host has for that; () for none."""
    if not facts.gpus or host.gpus == ():
        return ()
    shown = ",".join(host.gpus) if host.gpus else "all"
    if "nvidia" in facts.docker.runtimes:
        variables = (f"NVIDIA_VISIBLE_DEVICES={shown}", "NVIDIA_DRIVER_CAPABILITIES=compute,utility")
        return ("--runtime", "nvidia", *(word for each in variables for word in ("--env", each)))
    if "nvidia-container-runtime-hook" in facts.toolkit:
        return ("--gpus", "all" if shown == "all" else f'"device={shown}"')
    return ()


def inner_sshd(host_key: str, head_key: str) -> list[File]:
    """For the sshd inside a worker's container: its own account's files, which trials can't read."""

    def own(name: str, text: str, mode: int = 0o600) -> File:
        return File(f"{SETTINGS}/{name}", text.encode(), mode, TUNNEL_UID, TUNNEL_UID)

    return [
        own("sshd_config", SSHD),
        own("host_key", host_key),
        own("authorized_keys", f"{AUTHORIZED}{head_key}\n"),
    ]


def pip_files(pip_conf: bytes | None, ca_bundle: bytes | None, gid: int) -> list[File]:
    """What environments are built with on workers, as images are."""
    found = {"/etc/pip.conf": pip_conf, CA_FILE: ca_bundle}
    return [File(path, data, 0o640, 0, gid) for path, data in found.items() if data is not None]


def told(settings: Mapping[str, Any]) -> bytes:
    return (json.dumps(settings, indent=1, default=dict) + "\n").encode()
