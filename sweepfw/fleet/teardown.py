"""Taking a deployment off its hosts: what is to be removed there, and in which order. Nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sweepfw import crash
from sweepfw.core.command import Cmd, cmd
from sweepfw.errors import SweepError
from sweepfw.fleet import authorized
from sweepfw.fleet.remains import Remains

if TYPE_CHECKING:
    from collections.abc import Collection

    from sweepfw.shell.shell import Result, Shell

GRACE = 20  # seconds that a worker has to end its trials and tell of it
AFTER_WORKERS = ("flower", "tunnel", "head", "rabbitmq")  # who hears how trials ended stops later
_FOLDER = 'rm -rf -- "$1"; [ ! -e "$1" ] && { rmdir -- "${1%/*}" 2>/dev/null || true; }'


class Step(NamedTuple):
    """A command, what it does, and whether it may fail: an image that somebody else uses stays."""

    what: str
    command: Cmd
    may_fail: bool = False


def stop(shell: Shell, remains: Remains, host: str, roles: Collection[str]) -> None:
    """End the containers of these roles, with grace: a worker's trials are interrupted, and told so."""
    names = [each.name for each in remains.containers if each.role in roles and each.state != "exited"]
    if names:
        done = shell.run(cmd("docker", "stop", "-t", str(GRACE), *names), timeout=GRACE * 3 + 60)
        _check(host, f"{', '.join(names)} can't be stopped", done)


def removal(remains: Remains, uid: str) -> list[Step]:
    """What takes the deployment off the host, in order; nothing where there is nothing of it.

    The key goes first: from then on nobody comes in. Images are shared by all deployments of a host: those
    that others' containers use stay.
    """
    steps = []
    if remains.key:
        tag = authorized.tag(uid, remains.machine_id)
        steps.append(Step("the line in authorized_keys", authorized.remove(tag)))
    if remains.containers:
        names = [each.name for each in remains.containers]
        steps.append(Step("containers", cmd("docker", "rm", "-f", "-v", *names)))
    if remains.networks:
        steps.append(Step("networks", cmd("docker", "network", "rm", *remains.networks)))
    if remains.volumes:
        steps.append(Step("volumes", cmd("docker", "volume", "rm", *remains.volumes)))
    unused = [image for image in remains.images if image not in remains.shared]
    steps += [Step("images", cmd("docker", "image", "rm", image), may_fail=True) for image in unused]
    if remains.folder:
        steps.append(Step("the folder", cmd("sh", "-c", _FOLDER, "sh", remains.folder)))
    return steps


def remove(shell: Shell, remains: Remains, uid: str, host: str) -> None:
    """Take the deployment off the host. SweepError that names what could not be removed; what is gone then
    is gone, and the next time goes on."""
    if remains.silent:
        raise SweepError(
            f"{host}: Docker does not answer there; start it, and type `sweepfw infra down` again"
        )
    for step in removal(remains, uid):
        done = shell.run(step.command, timeout=300)
        if not step.may_fail:
            _check(host, f"{step.what} can't be removed", done)
        crash.point("down.removal")


def _check(host: str, what: str, done: Result) -> None:
    if done.code != 0:
        said = done.err.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit code {done.code}"
        raise SweepError(f"{host}: {what} ({why}); type `sweepfw infra down` again")
