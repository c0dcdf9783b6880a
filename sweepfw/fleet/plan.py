"""From what should be and what is there to the steps that are needed, and no other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, get_args

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import Role
from sweepfw.fleet import authorized, containers
from sweepfw.fleet.containers import Wanted
from sweepfw.fleet.facts import Container, Facts
from sweepfw.fleet.images import REPOSITORY
from sweepfw.fleet.services import Wish

_ROLES = get_args(Role)


class Run(NamedTuple):
    """Commands, one after the other; a failure of one counts, unless `tolerant`."""

    commands: tuple[Cmd, ...]
    tolerant: bool = False


class Write(NamedTuple):
    path: str
    data: bytes


class Build(NamedTuple):
    image: str


class Copy(NamedTuple):
    """Bring the image from another host."""

    image: str
    source: str


class Make(NamedTuple):
    """Make a container, fill and start it; `replace`: end the one of its name first."""

    container: Wanted
    replace: bool


class Key(NamedTuple):
    """Have this line of ours in authorized_keys. Never two at once: hosts may share a home."""

    command: Cmd


Act: TypeAlias = Run | Write | Build | Copy | Make | Key


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do on a host, after the steps (by their ids) that it needs. `what` is for people.
    `interrupts`: running trials there start again."""

    id: str
    host: str
    what: str
    act: Act
    after: tuple[str, ...] = ()
    interrupts: bool = False


def plan(wishes: Mapping[str, Wish], facts: Mapping[str, Facts], ours: str, uid: str) -> list[Step]:
    """What to do. `ours`: the image that we build. None of it is needed twice: after these steps, and after
    some of them, the same question gives those that are left."""
    steps = _images(wishes, facts, ours)
    brought = {step.id for step in steps}
    for host, wish in wishes.items():
        steps += _Host(wish, facts[host], uid, brought).steps()
    return steps


# -- images ----------------------------------------------------------------------------------------------


def _images(wishes: Mapping[str, Wish], facts: Mapping[str, Facts], ours: str) -> list[Step]:
    steps: list[Step] = []
    for host, wish in wishes.items():
        for image in wish.images:
            if image != ours and not _has(facts[host], image):
                pull = Run((cmd("docker", "pull", "--quiet", image),))
                steps.append(Step(f"{host}/image {image}", host, f"pull {image}", pull))
    users = [host for host, wish in wishes.items() if ours in wish.images]
    for arch in dict.fromkeys(facts[host].arch for host in users):
        steps += _ours([host for host in users if facts[host].arch == arch], facts, ours)
    return steps


def _ours(hosts: list[str], facts: Mapping[str, Facts], ours: str) -> Iterator[Step]:
    """Built once, on the first host, and brought to the others of its architecture."""
    lacking = [host for host in hosts if not _has(facts[host], ours)]
    having = [host for host in hosts if host not in lacking]
    after: tuple[str, ...] = ()
    if lacking and not having:
        first = next((host for host in lacking if facts[host].docker.builds), lacking[0])
        step = Step(f"{first}/image {ours}", first, f"build image {ours}", Build(ours))
        yield step
        having, after = [first], (step.id,)
        lacking.remove(first)
    for host in lacking:
        what = f"copy image {ours} from {having[0]}"
        yield Step(f"{host}/image {ours}", host, what, Copy(ours, having[0]), after)


def _has(facts: Facts, image: str) -> bool:
    return image in facts.images or f"{image}:latest" in facts.images


# -- one host --------------------------------------------------------------------------------------------


class _Host:
    """The steps on one host. `brought`: the ids of the steps that bring images."""

    def __init__(self, wish: Wish, facts: Facts, uid: str, brought: set[str]) -> None:
        self.wish, self.facts, self.uid, self.brought = wish, facts, uid, brought
        self.host = wish.host
        self.there = {each.name: each for each in facts.containers if each.deployment == uid}

    def steps(self) -> list[Step]:
        ground = list(self._ground())
        made = list(self._containers(tuple(step.id for step in ground)))
        gone = list(self._gone())
        tidy = self._old_images(tuple(step.id for step in (*made, *gone)))
        return [*ground, *gone, *made, *tidy, *self._key()]

    def _ground(self) -> Iterator[Step]:
        """What containers stand on."""
        wish = self.wish
        if wish.readme.rstrip() != self.facts.readme:
            path = f"{wish.folder}/README"
            yield self._step("folder", f"write {path}", Write(path, wish.readme))
        if wish.network not in {each.name for each in self.facts.networks}:
            made = containers.network(wish.network, self.uid)
            yield self._step("network", f"make network {wish.network}", Run((made,)))
        lacking = [name for name in wish.volumes if name not in {each.name for each in self.facts.volumes}]
        if lacking:
            made_all = tuple(containers.volume(name, self.uid) for name in lacking)
            yield self._step("volumes", f"make volume {', '.join(lacking)}", Run(made_all))

    def _containers(self, ground: tuple[str, ...]) -> Iterator[Step]:
        """In their order: each needs those before it on this host."""
        before = ground
        for wanted in self.wish.containers:
            image = f"{self.host}/image {wanted.image}"
            after = (*before, *((image,) if image in self.brought else ()))
            step = self._container(wanted, self.there.get(wanted.name), after)
            if step is not None:
                yield step
                before = (*before, step.id)

    def _container(self, wanted: Wanted, found: Container | None, after: tuple[str, ...]) -> Step | None:
        role = wanted.role
        if found is None:
            return self._step(role, f"start {role}", Make(wanted, replace=False), after)
        if found.config != wanted.config or found.state in ("created", "dead", "removing", "paused"):
            half = found.state not in ("running", "paused")
            what = f"start {role}" if half else f"start {role} anew, its configuration changed"
            interrupts = role == "worker" and not half
            return self._step(role, what, Make(wanted, replace=True), after, interrupts)
        if found.state == "exited":
            return self._step(role, f"start {role}, which was stopped", Run((wanted.start(),)), after)
        if found.unhealthy:
            again = Run((cmd("docker", "restart", wanted.name),))
            return self._step(role, f"start {role} anew, it is unhealthy", again, after)
        return None

    def _gone(self) -> Iterator[Step]:
        """Containers of roles that the host has no more. Volumes stay until `down`: results lie there."""
        wanted = {each.name for each in self.wish.containers}
        for name, found in self.there.items():
            if found.role in _ROLES and name not in wanted:  # `pull` may read there just now
                act = Run(containers.removal(name), tolerant=True)
                interrupts = found.role == "worker" and found.state == "running"
                yield self._step(f"no {found.role}", f"remove {found.role}", act, (), interrupts)

    def _old_images(self, changed: tuple[str, ...]) -> Iterator[Step]:
        """Our images that containers of this deployment had until now, and that nobody has from now on."""
        kept = {each.image for each in self.facts.containers if each.name not in self.there}
        had = {each.image for each in self.there.values()} - kept - set(self.wish.images)
        old = sorted(each for each in had if each.startswith(f"{REPOSITORY}:"))
        if changed and old:
            act = Run(tuple(cmd("docker", "rmi", each) for each in old), tolerant=True)
            yield self._step("old images", f"remove image {', '.join(old)}", act, changed)

    def _key(self) -> Iterator[Step]:
        """The head's key: for this machine alone, whoever else shares the home."""
        mine = [line for line in self.facts.keys if line.endswith(f" {self.wish.tag}")]
        if self.wish.key and mine != [self.wish.key]:
            put = authorized.put(self.wish.tag, self.wish.key)
            yield self._step("key", "let the head's key reach the worker", Key(put))
        if not self.wish.key and mine:
            yield self._step("key", "take out the head's key", Key(authorized.remove(self.wish.tag)))

    def _step(
        self, part: str, what: str, act: Act, after: tuple[str, ...] = (), interrupts: bool = False
    ) -> Step:
        return Step(f"{self.host}/{part}", self.host, what, act, after, interrupts)
