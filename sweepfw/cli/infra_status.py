"""`infra status`: how the deployment is, host by host."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sweepfw.cli import chosen, options

if TYPE_CHECKING:
    from sweepfw.cli.terminal import Screen
    from sweepfw.fleet.status import HostStatus, Status

UNREACHABLE, BROKEN = 4, 1


@click.command()
@options.as_json
@chosen.on
def status(as_json: bool, on: str | None) -> int:
    """Show how the deployment is: hosts, containers, workers, slots with their trials, GPUs, disk.

    Exit code 0 where all is well, 1 where something is not, 4 where the head can't be reached.
    """
    from sweepfw.cli.terminal import Screen
    from sweepfw.fleet.status import gather, to_json

    found = gather(chosen.chosen(on))
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        click.echo("\n".join(picture(found, Screen.of(sys.stdout), time.time())))
    if found.head is None:
        return UNREACHABLE
    return BROKEN if found.complaints() else 0


def picture(found: Status, screen: Screen, now: float) -> Iterator[str]:
    """The whole, for people."""
    from sweepfw.cli.render import safe, table

    yield from _head(found, screen, now)
    yield ""
    headers = ["HOST", "RUNS", "CONTAINERS", "WORKER", "SLOTS", "RAM", "DISK FREE", "DOCKER"]
    yield from table(headers, [_host(host) for host in found.hosts], screen)
    yield from _gpus(found, screen)
    yield from _running(found, screen)
    complaints = found.complaints()
    if complaints:
        yield ""
    for line in complaints:
        yield screen.paint("! ", "red") + safe(line)


def _head(found: Status, screen: Screen, now: float) -> Iterator[str]:
    from sweepfw.cli.render import age, plural, safe

    name = screen.paint(safe(found.deployment.name), "bold")
    where = f"head on {safe(found.deployment.head)}, {plural(len(found.hosts), 'host')}"
    if found.head is None:
        yield f"{name}  {where}; {screen.paint('the head does not answer', 'red')}"
        return
    broker = "" if found.head.broker else ", no broker"
    yield f"{name}  {where}, sweepfw {safe(found.head.version)}, up {age(now - found.head.started)}{broker}"
    yield f"  trials    {found.head.running:,} running, {found.head.queued:,} queued"


def _host(host: HostStatus) -> list[str]:
    from sweepfw.cli.render import size

    runs = "+".join(
        (["head"] if "head" in host.roles else []) + (["worker"] if "worker" in host.roles else [])
    )
    remains, worker = host.remains, host.worker
    slots = f"{len(worker.running)}/{worker.advert.slots}" if worker else "-"
    memory = size(worker.advert.memory) if worker and worker.advert.memory else "-"
    disk = size(remains.disk_free) if remains and remains.disk_free is not None else "-"
    docker = (remains.docker if remains else "") or "-"
    return [host.name, runs, _containers(host), _worker(host), slots, memory, disk, docker]


def _containers(host: HostStatus) -> str:
    """`5 healthy`, or what is wrong with which."""
    if host.remains is None:
        return "can't be reached"
    there = {each.role: each for each in host.remains.containers}
    missing = [role for role in host.roles if role not in there]
    broken = [f"{role} {each.health}" for role, each in there.items() if each.broken]
    wrong = broken + [f"{role} missing" for role in missing]
    starting = [role for role, each in there.items() if each.health == "starting"]
    if wrong:
        return ", ".join(wrong)
    return f"{', '.join(starting)} starting" if starting else f"{len(there)} running"


def _worker(host: HostStatus) -> str:
    from sweepfw.cli.render import age

    if "worker" not in host.roles:
        return "-"
    if host.worker is None:
        return "unknown"
    if host.worker.draining:
        return "draining"
    return "alive" if host.worker.alive else f"silent for {age(host.worker.seen)}"


def _gpus(found: Status, screen: Screen) -> Iterator[str]:
    from sweepfw.cli.render import size, table

    rows = [
        [
            host.name,
            str(gpu.index),
            gpu.name,
            size(gpu.memory) if gpu.memory is not None else "-",
            size(gpu.used) if gpu.used is not None else "-",
            taken or "-",
        ]
        for host in found.hosts
        for gpu, taken in host.gpus
    ]
    if rows:
        yield ""
        yield from table(["HOST", "GPU", "MODEL", "MEMORY", "USED", "TAKEN BY OTHERS"], rows, screen)


def _running(found: Status, screen: Screen) -> Iterator[str]:
    from sweepfw.cli.render import table

    rows = [
        [f"{sweep}/{trial}", str(attempt), host.name, slot]
        for host in found.hosts
        for sweep, trial, attempt, slot in (host.worker.running if host.worker else ())
    ]
    if rows:
        yield ""
        yield from table(["RUNNING", "ATTEMPT", "HOST", "SLOT"], rows, screen)
