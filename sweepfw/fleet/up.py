"""`infra up`: reach the hosts, look at them, decide, do it, and wait until every worker has answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sweepfw import crash
from sweepfw.config.deployments import DeploymentState, HostRecord
from sweepfw.core.command import cmd
from sweepfw.core.deployment import Deployment, Host, container, folder
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet import images, services
from sweepfw.fleet.apply import Doing, Progress, apply
from sweepfw.fleet.credentials import Credentials, ensure_credentials
from sweepfw.fleet.doctor import Case, Complaint, complaints
from sweepfw.fleet.hosts import side_by_side
from sweepfw.fleet.look import Seen, Way, look, way
from sweepfw.fleet.plan import Step, plan
from sweepfw.fleet.services import World, far
from sweepfw.fleet.tunnel_lines import End

if TYPE_CHECKING:
    from sweepfw.core.deployment import HeadStatus
    from sweepfw.shell.access import Access
    from sweepfw.shell.shell import Shell

_LOOK = 0.5  # seconds between two questions to the head
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def open_shells(hosts: Iterable[Host], access: Access) -> dict[str, Shell | SweepError]:
    """A shell on each host, or what stood in the way; side by side."""
    return side_by_side({host.name: partial(_open, host, access) for host in hosts})


def _open(host: Host, access: Access) -> Shell:
    if host.local:
        from sweepfw.shell.local import LocalShell

        return LocalShell()
    from sweepfw.shell.ssh import SshShell

    return SshShell.open(host, access)


def find_ways(deployment: Deployment, access: Access) -> dict[str, Way]:
    """How the head reaches the worker hosts that it reaches over SSH; without those of which nobody knows:
    this machine, unless `address_from_head` says."""
    hosts = [deployment.host(name) for name in far(deployment)]
    found = side_by_side({host.name: partial(_way, host, access) for host in hosts})
    return {name: each for name, each in found.items() if isinstance(each, Way)}


def _way(host: Host, access: Access) -> Way | None:
    if host.local:
        from getpass import getuser

        return way(host, "", 22, host.user or getuser()) if host.address_from_head else None
    from sweepfw.shell.local import LocalShell
    from sweepfw.shell.route import resolve

    hop = resolve(host, access, LocalShell())[-1]
    return way(host, hop.address, hop.port, hop.user)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look led to. `steps` is empty where there is nothing to do, or a fatal complaint."""

    deployment: Deployment
    uid: str
    seen: Seen
    ways: Mapping[str, Way]
    complaints: tuple[Complaint, ...]
    image: str
    steps: tuple[Step, ...]

    @property
    def fatal(self) -> list[Complaint]:
        return [each for each in self.complaints if each.fatal]


@dataclass(frozen=True, slots=True)
class Making:
    """What images are made of, read once."""

    context: Mapping[str, bytes]
    secrets: Mapping[str, bytes]
    image: str

    @classmethod
    def read(cls, deployment: Deployment) -> Making:
        context, secrets = images.context(), images.secrets(deployment.build)
        return cls(context, secrets, images.name(context, deployment.build, secrets))


def diagnose(
    deployment: Deployment,
    uid: str,
    shells: Mapping[str, Shell | SweepError],
    access: Access,
    image: str,
    known: Callable[[], Mapping[str, str]],
) -> Decision:
    """Look at the hosts and judge what was seen; no steps yet."""
    ways = find_ways(deployment, access)
    seen = look(deployment, uid, shells, ways)
    others = {each.deployment for facts in seen.facts.values() for each in facts.containers} - {uid}
    here = {name: image in facts.images for name, facts in seen.facts.items()}
    case = Case(deployment, uid, seen, ways, known() if others else {}, here)
    return Decision(deployment, uid, seen, ways, tuple(complaints(case)), image, ())


def decide(decision: Decision, state: DeploymentState, making: Making, owner: str) -> Decision:
    """The steps for what was seen. Makes the credentials that are missing, on this machine."""
    from dataclasses import replace

    deployment, seen = decision.deployment, decision.seen
    credentials = ensure_credentials(state.credentials, deployment.workers)
    world = _world(decision, state, making, credentials, owner)
    steps = plan(services.wishes(deployment, world), seen.facts, making.image, state.uid)
    return replace(decision, steps=tuple(steps))


def _world(
    decision: Decision, state: DeploymentState, making: Making, credentials: Credentials, owner: str
) -> World:
    return World(
        state.uid,
        owner,
        decision.seen.facts,
        _ends(decision, state),
        credentials,
        making.image,
        (images.FILES / "rabbitmq" / "start").read_bytes(),
        making.secrets.get("pip"),
        making.secrets.get("ca"),
    )


def _ends(decision: Decision, state: DeploymentState) -> dict[str, End]:
    """With the host keys that were seen now, or, of hosts that do not answer, at an earlier time."""
    ends = {}
    for name, found in decision.ways.items():
        facts, record = decision.seen.facts.get(name), state.records.get(name)
        keys = facts.host_keys if facts else record.host_keys if record else ()
        if keys:
            reach = decision.seen.reach.get(name)
            ip = reach.ip if reach else ""
            ends[name] = End(found.address, found.port, found.user, tuple(keys), ip)
    return ends


def carry_out(
    decision: Decision,
    state: DeploymentState,
    shells: Mapping[str, Shell],
    making: Making,
    progress: Progress,
) -> None:
    """Do the steps, and remember what was learned of the hosts. What fails leaves the state incomplete, and
    the next `up` goes on."""
    state.deployment, state.complete = decision.deployment, False
    state.records |= records(decision)
    state.save()
    dockers = {name: facts.docker for name, facts in decision.seen.facts.items()}
    base = decision.deployment.build.base
    apply(decision.steps, Doing(shells, dockers, base, making.context, making.secrets, progress))
    crash.point("up.done")
    state.head_addresses = addresses(decision, shells[decision.deployment.head])
    state.complete = True
    state.save()
    crash.point("up.complete")


def records(decision: Decision) -> dict[str, HostRecord]:
    """What is kept of the hosts that were seen."""
    found = {}
    for name, facts in decision.seen.facts.items():
        place = f"{facts.dir}/{folder(decision.deployment.name, decision.uid, facts.machine_id)}"
        found[name] = HostRecord(
            facts.machine_id,
            facts.arch,
            facts.user,
            facts.uid,
            facts.gid,
            facts.home,
            place,
            facts.host_keys,
        )
    return found


def addresses(decision: Decision, head: Shell) -> dict[str, str]:
    """Where head and Flower are on the deployment's network."""
    docker = decision.seen.facts[decision.deployment.head].docker.path or "docker"
    roles = ("head", "flower")
    names = [container(decision.deployment.name, decision.uid, role) for role in ("head", "flower")]
    answer = head.run(cmd(docker, "inspect", "--format", _ADDRESS, *names), timeout=60)
    return {role: ip for role, ip in zip(roles, answer.text.split(), strict=False) if ip}


# -- the workers' answers --------------------------------------------------------------------------------


def wait_for_workers(
    ask: Callable[[], HeadStatus],
    wanted: Iterable[str],
    patience: float,
    heard: Callable[[list[str]], object] = lambda missing: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> HeadStatus:
    """Until each of these hosts' workers has told the head of itself, and answers through the broker.

    `ask` may raise UnreachableError while the head starts. `heard` gets those that are missing, each time
    that they change. UnreachableError that names them when the patience is at its end.
    """
    deadline, missing, failure = clock() + patience, list(wanted), "the head has not answered"
    told: list[str] = []
    while True:
        try:
            status = ask()
        except UnreachableError as error:
            failure = str(error)
        else:
            there = {each.worker.host for each in status.workers if each.alive}
            still = [name for name in missing if name not in there]
            if not still and status.broker:
                return status
            missing, failure = still, f"no answer from the worker on {', '.join(still) or 'any host'}"
            if not status.broker:
                failure = "the head has no connection to its broker"
        if missing != told:
            heard(missing)
            told = missing
        if clock() >= deadline:
            raise UnreachableError(f"{failure} within {patience:.0f} s; `sweepfw infra logs` tells more")
        sleep(_LOOK)
