"""A deployment of two hosts that exist on paper only: what is asked, what is there, what the steps change."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from sweepfw.core.deployment import Build, Deployment, Host
from sweepfw.fleet import images
from sweepfw.fleet.credentials import Credentials, ensure_credentials
from sweepfw.fleet.facts import Container, Docker, Facts, Owned
from sweepfw.fleet.plan import Build as BuildImage
from sweepfw.fleet.plan import Copy, Key, Make, Run, Step, Write
from sweepfw.fleet.services import Wish, World, wishes
from sweepfw.fleet.tunnel_lines import End

UID = "c0ffee0123456789c0ffee0123456789"
OURS = "sweepfw:0123456789ab"
HOST1, HOST2 = Host("host1", "10.0.0.1", "lab"), Host("host2", "10.0.0.2", "lab")
TWO = Deployment("t", (HOST1, HOST2), "host1", ("host1", "host2"), build=Build("base:1", "rabbitmq:4"))


def facts(number: int = 1, **changes: object) -> Facts:
    """Those of an empty host."""
    found = Facts(
        uid=1000,
        gid=1000,
        user="lab",
        group="lab",
        groups=(1000, 102),
        home="/home/lab",
        machine_id=f"{number:032x}",
        hostname=f"host{number}",
        arch="x86_64",
        kernel="Linux 6.12",
        system="Debian GNU/Linux 13 (trixie)",
        cpus=8,
        memory=64_000_000_000,
        memory_free=60_000_000_000,
        clock=1_795_315_146.0,
        offset=0.0,
        home_type="ext2/ext3",
        dir="/home/lab/.sweepfw",
        disk_free=80_000_000_000,
        over_quota=False,
        folders=(),
        readme=b"",
        keys=(),
        host_keys=(f"ssh-ed25519 AAAA{number}",),
        selinux="",
        nvidia=0,
        driver="",
        gpus=(),
        gpu_error="",
        toolkit=(),
        missing_mounts=(),
        docker=Docker(
            "/usr/bin/docker",
            version="26.1.5",
            client="26.1.5",
            root="/var/lib/docker",
            buildx=True,
            runtimes=("runc",),
            disk_free=80_000_000_000,
        ),
        containers=(),
        volumes=(),
        networks=(),
        images=("base:1", "rabbitmq:4"),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


@cache
def credentials(*workers: str) -> Credentials:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o700)
        return ensure_credentials(Path(folder) / "credentials.json", workers)


def world(found: dict[str, Facts], deployment: Deployment = TWO, **changes: object) -> World:
    ends = {
        host.name: End(host.target, host.port or 22, host.user or "lab", (f"ssh-ed25519 KEY-{host.name}",))
        for host in deployment.hosts
    }
    made = World(
        UID,
        "ada@laptop",
        found,
        ends,
        credentials(*(host.name for host in deployment.hosts)),
        OURS,
        b"#!/bin/sh\n",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def empty(deployment: Deployment = TWO) -> dict[str, Facts]:
    return {host.name: facts(number) for number, host in enumerate(deployment.hosts, 1)}


def wanted(found: dict[str, Facts], deployment: Deployment = TWO, **changes: object) -> dict[str, Wish]:
    return wishes(deployment, world(found, deployment, **changes))


def done(found: dict[str, Facts], steps: list[Step]) -> dict[str, Facts]:
    """The hosts after these steps, as a look would find them."""
    found = dict(found)
    for step in steps:
        found[step.host] = _after(found[step.host], step)
    return found


def _after(host: Facts, step: Step) -> Facts:
    match step.act:
        case Write(_, data):
            return replace(host, readme=data.rstrip())
        case BuildImage(image) | Copy(image, _):
            return replace(host, images=(*host.images, image))
        case Make(wanted, _):
            others = tuple(each for each in host.containers if each.name != wanted.name)
            row = (wanted.name, "running", "Up 1 s", UID, wanted.role, wanted.config, wanted.image)
            return replace(host, containers=(*others, Container(*row)))
        case Key(command):
            tag, line = command.reveal()[-2:]
            kept = tuple(each for each in host.keys if not each.endswith(f" {tag}"))
            return replace(host, keys=(*kept, line) if line else kept)
        case Run(commands):
            for command in commands:
                host = _ran(host, command.reveal())
    return host


def _ran(host: Facts, argv: list[str]) -> Facts:
    match argv[1:]:
        case ["volume", "create", *_, name]:
            return replace(host, volumes=(*host.volumes, Owned(name, UID)))
        case ["network", "create", *_, name]:
            return replace(host, networks=(*host.networks, Owned(name, UID)))
        case ["pull", *_, name]:
            return replace(host, images=(*host.images, name))
        case ["rmi", name]:
            return replace(host, images=tuple(each for each in host.images if each != name))
        case ["rm", *_, name]:
            return replace(host, containers=tuple(each for each in host.containers if each.name != name))
        case ["start" | "restart", name]:
            return replace(
                host,
                containers=tuple(
                    each._replace(state="running", status="Up") if each.name == name else each
                    for each in host.containers
                ),
            )
        case ["stop", *_]:
            return host
    raise AssertionError(argv)


assert images.REPOSITORY == "sweepfw"
