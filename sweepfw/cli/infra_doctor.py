"""`infra doctor`: the look that `up` begins with, alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sweepfw.cli import infra_hosts, options

if TYPE_CHECKING:
    from sweepfw.cli.infra_hosts import Asked
    from sweepfw.cli.terminal import Screen
    from sweepfw.core.deployment import Deployment
    from sweepfw.fleet.doctor import Complaint
    from sweepfw.fleet.facts import Facts
    from sweepfw.fleet.up import Decision

UNREACHABLE, COMPLAINTS = 4, 1


@click.command()
@infra_hosts.asked
@options.as_json
def doctor(what: Asked, as_json: bool) -> int:
    """Look at every host and say all that is wrong with it, and what to do about it. Changes nothing.

    Takes the options of `infra up`. Exit code 0 where all is well, 1 where something is not, 4 where a host
    can't be reached.
    """
    from sweepfw.cli.terminal import Screen

    deployment, _ = infra_hosts.wanted(what)
    found = _look(deployment, what)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        click.echo("\n".join(picture(found, Screen.of(sys.stdout))))
    if any(each.unreachable for each in found.complaints):
        return UNREACHABLE
    return COMPLAINTS if not all(each.note for each in found.complaints) else 0


def _look(deployment: Deployment, what: Asked) -> Decision:
    from sweepfw.fleet.up import Making, diagnose
    from sweepfw.shell.access import Access, parse_trust

    with infra_hosts.stated(deployment) as (state, _):
        access = Access(state.known_hosts, deployment.identity, trust=parse_trust(what.trust))
        shells = infra_hosts.Reaching(access).open(deployment.hosts)
        try:
            image = Making.read(deployment).image
            return diagnose(deployment, state.uid, shells, access, image, infra_hosts.known)
        finally:
            infra_hosts.close(shells)


def picture(found: Decision, screen: Screen) -> Iterator[str]:
    """A few lines for each host: what it is, then what is wrong."""
    from sweepfw.cli.terminal import safe

    for host in found.deployment.hosts:
        facts = found.seen.facts.get(host.name)
        mine = [each for each in found.complaints if each.host == host.name]
        told = f"  {safe(described(facts))}" if facts else ""
        yield f"{_sign(mine, screen)} {screen.paint(safe(host.name), 'bold')}{told}"
        for complaint in mine:
            sign = "·" if complaint.note else _sign([complaint], screen)
            yield f"    {sign} {safe(complaint.what)}"
            if complaint.do:
                yield f"      {safe(complaint.do)}"


def _sign(complaints: list[Complaint], screen: Screen) -> str:
    if any(each.fatal for each in complaints):
        return screen.paint("✗", "red")
    if not all(each.note for each in complaints):
        return screen.paint("!", "yellow")
    return screen.paint("✓", "green")


def described(facts: Facts) -> str:
    """`Debian GNU/Linux 13 (trixie), x86_64, 16 CPUs, 64.0 GB, 4 × NVIDIA A100, driver 550.54, Docker 26.1.5,
    80.3 GB free`."""
    from collections import Counter

    from sweepfw.cli.words import plural, size

    gpus = [f"{count} × {name}" for name, count in Counter(gpu.name for gpu in facts.gpus).items()]
    parts = [
        facts.system or facts.kernel,
        facts.arch,
        plural(facts.cpus, "CPU"),
        size(facts.memory) if facts.memory else "",
        *gpus,
        f"driver {facts.driver}" if facts.gpus and facts.driver else "",
        f"Docker {facts.docker.version}" if facts.docker.usable else "",
        f"{size(facts.docker.disk_free)} free" if facts.docker.disk_free is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def to_json(found: Decision) -> dict[str, Any]:
    return {
        "deployment": found.deployment.name,
        "hosts": [
            {
                "host": host.name,
                "reachable": host.name in found.seen.facts,
                "facts": _facts_json(found.seen.facts[host.name]) if host.name in found.seen.facts else None,
                "complaints": [
                    {"what": each.what, "do": each.do, "fatal": each.fatal, "note": each.note}
                    for each in found.complaints
                    if each.host == host.name
                ],
            }
            for host in found.deployment.hosts
        ],
    }


def _facts_json(facts: Facts) -> dict[str, Any]:
    return {
        "system": facts.system,
        "kernel": facts.kernel,
        "architecture": facts.arch,
        "machine_id": facts.machine_id,
        "user": facts.user,
        "uid": facts.uid,
        "cpus": facts.cpus,
        "memory": facts.memory,
        "clock_offset": round(facts.offset, 3),
        "home": facts.home,
        "home_file_system": facts.home_type,
        "docker": facts.docker.version or None,
        "docker_disk_free": facts.docker.disk_free,
        "driver": facts.driver or None,
        "gpus": [{"index": g.index, "uuid": g.uuid, "name": g.name, "memory": g.memory} for g in facts.gpus],
    }
