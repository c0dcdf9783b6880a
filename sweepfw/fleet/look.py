"""One look at all hosts, side by side: a round trip each, and one more from the head's host to the others."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sweepfw.core.deployment import Deployment, Host, prefix
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet import questions
from sweepfw.fleet.facts import NONSENSE, Facts, Reach, read, read_reach
from sweepfw.fleet.hosts import side_by_side

if TYPE_CHECKING:
    from sweepfw.shell.shell import Shell

_PATIENCE = 150.0  # seconds; a GPU driver without persistence mode takes some for each GPU

_REACH = "\0reach"  # no host's name


class Way(NamedTuple):
    """Where the head goes to reach a worker host."""

    address: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found: `facts` of the hosts that answered, `failures` of the others, `reach` of the worker
    hosts' addresses as the head's host sees them (where it answered)."""

    facts: Mapping[str, Facts]
    failures: Mapping[str, SweepError]
    reach: Mapping[str, Reach]


def look(
    deployment: Deployment, uid: str, shells: Mapping[str, Shell | SweepError], ways: Mapping[str, Way]
) -> Seen:
    """Ask all hosts that were reached. `ways`: by worker host, for those that the head reaches over SSH."""
    mark = secrets.token_hex(8)
    stem = prefix(deployment.name, uid).removeprefix("sweepfw-").removesuffix("-")
    failures = {name: shell for name, shell in shells.items() if isinstance(shell, SweepError)}
    reached = {name: shell for name, shell in shells.items() if not isinstance(shell, SweepError)}
    asking = _Asking(mark, deployment, stem)
    calls: dict[str, Callable[[], object]] = {
        name: partial(asking.ask, deployment.host(name), shell) for name, shell in reached.items()
    }
    found: dict[str, Reach] = {}
    if ways and (head := reached.get(deployment.head)) is not None:
        calls[_REACH] = lambda: found.update(_reach(head, ways))
    answers = side_by_side(calls)
    answers.pop(_REACH, None)
    failures |= {name: answer for name, answer in answers.items() if isinstance(answer, SweepError)}
    facts = {name: answer for name, answer in answers.items() if isinstance(answer, Facts)}
    return Seen(facts, failures, found)


class _Asking(NamedTuple):
    """What is the same for all hosts."""

    mark: str
    deployment: Deployment
    stem: str

    def ask(self, host: Host, shell: Shell) -> Facts:
        mounts = [spec.split(":")[0] for spec in host.mounts]
        command = questions.look(self.mark, self.deployment.remote_dir, self.stem, mounts)
        sent = time.time()
        result = shell.run(command, questions.SCRIPT.encode(), timeout=_PATIENCE)
        try:
            facts = read(result.text, self.mark, sent, time.time())
        except NONSENSE as error:
            raise UnreachableError(
                f"{host.name}: its answers make no sense ({str(error)[:100]}); look at it: ssh {host.target}"
            ) from None
        if facts.uid < 0 or not facts.dir:
            raise UnreachableError(
                f"{host.name}: its shell is no POSIX shell; `ssh {host.target} sh -c id` must work"
            )
        return facts


def _reach(head: Shell, ways: Mapping[str, Way]) -> dict[str, Reach]:
    """By worker host."""
    places = [(way.address, way.port) for way in ways.values()]
    answer = head.run(questions.reach(places), questions.REACH.encode(), timeout=_PATIENCE)
    found = read_reach(answer.text, places)
    return {name: found[way.address, way.port] for name, way in ways.items()}


def way(host: Host, address: str, port: int, user: str) -> Way:
    """How the head reaches the host: as this machine does, or as `address_from_head` says."""
    if host.address_from_head is None:
        return Way(address, port, user)
    match = re.fullmatch(r"(?:(.+)@)?(?:\[(.+)\]|([^:]+|.*:.*:.*))(?::([0-9]+))?", host.address_from_head)
    assert match  # any text matches; config.yml has checked it
    return Way(match[2] or match[3], int(match[4] or port), match[1] or user)
