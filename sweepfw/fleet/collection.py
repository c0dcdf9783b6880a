"""Collecting output files of a sweep while its deployment lives, straight from the hosts that have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sweepfw.errors import SweepError
from sweepfw.fleet import home
from sweepfw.fleet.home import Key, Load
from sweepfw.fleet.hosts import Hosts, bound, look, side_by_side
from sweepfw.fleet.parcels import Item
from sweepfw.fleet.volumes import Volume, state_volume

if TYPE_CHECKING:
    from pathlib import Path

    from sweepfw.config.deployments import DeploymentState
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Attempt
    from sweepfw.shell.shell import Shell


@dataclass(slots=True)
class Collected:
    """What came of it. `failures`: hosts that could not be asked; `refused`: files that could not come, with
    the reason; `files` and `size`: what came."""

    failures: dict[str, SweepError] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0


def makers(state: DeploymentState, attempts: Iterable[Attempt]) -> list[str]:
    """The hosts that have the attempts' files: the head those of small attempts, else who made them. Some
    may have left the deployment."""
    found = {str(each.outcome.get("files_on") or state.deployment.head) for each in attempts}
    return sorted(found)


class Source(NamedTuple):
    """A volume that has some, and what is in it of the sweep."""

    volume: Volume
    at_head: bool
    items: list[Item]


def collect(
    state: DeploymentState, place: Workspace, hosts: Hosts, sweep: str, keys: Collection[Key], took: home.Took
) -> Collected:
    """Bring these attempts' files from the hosts that answer, as far as they are not at home."""
    done = Collected(dict(hosts.failures))
    found: list[Source] = []
    calls = {name: bound(_find, state, shell, name, sweep) for name, shell in hosts.shells.items()}
    for name, answer in side_by_side(calls).items():
        if isinstance(answer, SweepError):
            done.failures[name] = answer
        else:
            found += answer
    _bring(_loads(found, sweep, keys, place), place, took, done)
    return done


def _find(state: DeploymentState, shell: Shell, host: str, sweep: str) -> list[Source]:
    remains = look(state, shell, host)
    if remains.silent:
        raise SweepError(f"{host}: Docker does not answer; start it there")
    found = []
    for role in ("head", "worker"):
        volume = state_volume(state.uid, host, shell, remains, role)
        if volume is not None:
            found.append(Source(volume, role == "head", volume.listing([sweep])))
    return found


def _loads(sources: list[Source], sweep: str, keys: Collection[Key], place: Workspace) -> list[Load]:
    """What each volume is asked for: the head for what it keeps, workers for the rest."""

    def path(item: Item) -> Path:
        return place.runs / item.path

    wanted: dict[str, Collection[Key] | None] = {sweep: keys}
    of = [(source, home.outputs(source.items, wanted)) for source in sources]
    kept = [item for source, items in of if source.at_head for item in items]
    return [
        home.load_from_head(source.volume, items, path)
        if source.at_head
        else home.load(source.volume, home.not_kept(items, kept), path)
        for source, items in of
    ]


def _bring(loads: list[Load], place: Workspace, took: home.Took, done: Collected) -> None:
    wanted = [load for load in loads if load.items]
    home.check_room(place.runs, wanted)

    def path(item: Item) -> Path:
        return place.runs / item.path

    calls = {str(n): bound(home.bring, load, path, place.runs, took) for n, load in enumerate(wanted)}
    for load, answer in zip(wanted, side_by_side(calls).values(), strict=True):
        if isinstance(answer, SweepError):
            done.failures[load.volume.host] = answer
        else:
            done.refused += answer
            done.files += len(load.items) - len(answer)
            done.size += load.size
