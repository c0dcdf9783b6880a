"""The end of a deployment, step by step: what there is, stop it, bring it home, take it off its hosts.

Killed anywhere, it is begun again from the start: what is home is not fetched twice, what is gone is not
missed. Nothing is removed from the head's host before all of it is home.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sweepfw import crash
from sweepfw.errors import SweepError
from sweepfw.fleet import home, teardown
from sweepfw.fleet.home import Homecoming, Load, Wanted
from sweepfw.fleet.hosts import Hosts, bound, look, side_by_side
from sweepfw.fleet.parcels import Item, lacking
from sweepfw.fleet.remains import Remains
from sweepfw.fleet.volumes import Volume, state_volume

if TYPE_CHECKING:
    from pathlib import Path

    from sweepfw.config.deployments import DeploymentState
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.deployment import Host
    from sweepfw.ledger.store import SqliteLedger

T = TypeVar("T")
Say = Callable[[str], object]
_MOST = 20  # lines
_MEMO = "home.json"  # in the deployment's folder here: what a down that did not end had reached


@dataclass(frozen=True, slots=True)
class Memo:
    """What an earlier `down` came to: the workspace that things went to, sweeps that have another name
    there, hosts that hold nothing any more."""

    workspace: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    removed: Collection[str] = ()

    @classmethod
    def load(cls, state: DeploymentState) -> Memo:
        try:
            told = json.loads((state.folder / _MEMO).read_text())
            return cls(str(told["workspace"]), dict(told["names"]), tuple(told["removed"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, state: DeploymentState) -> None:
        told = {"workspace": self.workspace, "names": dict(self.names), "removed": sorted(self.removed)}
        part = state.folder / f"{_MEMO}.part"
        part.write_text(json.dumps(told))
        crash.point("down.memo")
        part.replace(state.folder / _MEMO)


def all_hosts(state: DeploymentState) -> list[Host]:
    """Those of the deployment, and those that may still hold something of it."""
    named = {host.name: host for host in (*state.former, *state.deployment.hosts)}
    return list(named.values())


@dataclass(slots=True)
class Departure:
    """One `down`. `found` is what the hosts hold, `failures` why we don't know of others."""

    state: DeploymentState
    place: Workspace
    hosts: Hosts
    say: Say
    found: dict[str, Remains] = field(default_factory=dict)
    failures: dict[str, SweepError] = field(default_factory=dict)
    kept: list[Item] = field(default_factory=list)  # what the head's volume holds
    listings: dict[str, list[Item]] = field(default_factory=dict)  # output files on workers alone
    came: Homecoming = field(default_factory=Homecoming)
    memo: Memo = field(default_factory=Memo)

    def look(self) -> None:
        """Learn what each host holds. SweepError where an earlier `down` brought things elsewhere."""
        self.memo = Memo.load(self.state)
        if self.memo.workspace and self.memo.workspace != str(self.place.root):
            raise SweepError(
                f"{self.state.name}: the first part of it came home to {self.memo.workspace}; "
                "go there and type the same again"
            )
        answers = side_by_side(
            {name: bound(look, self.state, shell, name) for name, shell in self.hosts.shells.items()}
        )
        self.failures = dict(self.hosts.failures)
        for name, answer in answers.items():
            if isinstance(answer, SweepError):
                self.failures[name] = answer
            elif answer.silent:
                self.failures[name] = SweepError(f"{name}: Docker does not answer; start it there")
            else:
                self.found[name] = answer
        for name in self.memo.removed:  # it held nothing any more when it was last seen
            self.failures.pop(name, None)

    def volume(self, host: str, role: str) -> Volume | None:
        """The state of head or worker on the host, where there is one to be read."""
        if (remains := self.found.get(host)) is None:
            return None
        return state_volume(self.state.uid, host, self.hosts.shells[host], remains, role)

    @property
    def head(self) -> Volume | None:
        return self.volume(self.state.deployment.head, "head")

    def workers(self) -> dict[str, Volume]:
        found = {name: self.volume(name, "worker") for name in self.found}
        return {name: volume for name, volume in found.items() if volume is not None}

    def list_outputs(self) -> list[Item]:
        """The output files on worker hosts that are neither home yet nor kept by the head."""
        volumes, head = self.workers(), self.head
        calls: list[Callable[[], list[Item]]] = [volume.listing for volume in volumes.values()]
        self.kept, *found = self._all([head.listing if head else list, *calls])
        listings = [home.not_kept(items, self.kept) for items in found]
        self.listings = dict(zip(volumes, listings, strict=True))
        outputs = [item for items in listings for item in items if not item.link]
        return lacking(outputs, self._path)

    def stop(self) -> None:
        """End workers first, so that they tell the head how; then the rest."""
        for roles in (("worker",), teardown.AFTER_WORKERS):
            self._all(
                bound(teardown.stop, self.hosts.shells[name], remains, name, roles)
                for name, remains in self.found.items()
            )
            crash.point("down.roles")

    def bring_ledger(self, ledger: SqliteLedger) -> None:
        """Sweeps, logs, small files and snapshots, from the head to this workspace. `list_outputs` goes
        before it, when nothing runs any more."""
        head = self.head
        if head is None:
            self.came.names = dict(self.memo.names)
            return
        self.came = home.bring_ledger(head, self.place, ledger, self.state.name)
        crash.point("down.adopted")
        self._remember(self.memo.removed)
        items = [item for item in self.kept if item.place.sweep in self.came.names]
        self._bring([home.load_from_head(head, items, self._path)], lambda count: None)
        crash.point("down.recorded")
        for id in sorted(self.came.snapshots):
            try:
                head.fetch_snapshot(id, self.place.snapshots)
            except SweepError as error:
                if type(error) is not SweepError:  # no room here, no connection: the next time goes on
                    raise
                self.say(f"! {error}; `resume` and `debug` of its sweeps won't find their code")
        home.unpack_checkpoints(self.place, self.came.names.values())

    def bring_outputs(self, ledger: SqliteLedger, wanted: Wanted, took: home.Took) -> None:
        """The output files that are wanted, from the hosts that made them, side by side."""
        if wanted.kind == "none":
            return
        keys = {
            there: home.wanted_attempts(wanted, there, here, ledger)
            for there, here in self.came.names.items()
        }
        others = not self.came.names  # the head is not here to tell which there are
        volumes = self.workers()
        self._bring(
            [
                home.load(volumes[name], home.outputs(items, keys, others=others), self._path)
                for name, items in self.listings.items()
            ],
            took,
        )

    def lost(self, ledger: SqliteLedger, wanted: Wanted) -> list[str]:
        """Attempts whose output files were wanted and are not here, a line each."""
        return [
            line
            for there, here in self.came.names.items()
            if (keys := home.wanted_attempts(wanted, there, here, ledger)) is None or keys
            for line in home.lost(ledger.sweep(here), ledger, self.place, keys, self.failures)
        ]

    def remove(self) -> None:
        """Take it off every host that is known to hold something, side by side."""
        calls = {
            name: bound(teardown.remove, self.hosts.shells[name], remains, self.state.uid, name)
            for name, remains in self.found.items()
        }
        for name, answer in side_by_side(calls).items():
            if isinstance(answer, SweepError):
                self.failures[name] = answer
        crash.point("down.removed")
        self._remember({*self.memo.removed, *self.found} - set(self.failures))

    def forget(self) -> None:
        """The end: keys, tokens and all that is known of it here go."""
        self.state.remove()

    def keep(self) -> None:
        """Some hosts are left for the next time."""
        self.state.complete = False
        self.state.save()

    def _bring(self, loads: Iterable[Load], took: home.Took) -> None:
        wanted = [load for load in loads if load.items]
        home.check_room(self.place.runs, wanted)
        calls = [bound(home.bring, load, self._path, self.place.runs, took) for load in wanted]
        stayed = [line for lines in self._all(calls) for line in lines]
        for line in stayed[:_MOST]:
            self.say(f"! {line}")
        if stayed:
            raise SweepError(
                f"{self.state.name}: {len(stayed)} files could not come home, so nothing was removed; "
                "mend what the lines above say, or leave output files there: --outputs none"
            )

    def _path(self, item: Item) -> Path:
        return self.came.path(self.place, item)

    def _remember(self, removed: Collection[str]) -> None:
        Memo(str(self.place.root), self.came.names, removed).save(self.state)

    def _all(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """What all of them returned, done side by side; the first failure is raised."""
        answers = side_by_side({str(number): call for number, call in enumerate(calls)})
        for answer in answers.values():
            if isinstance(answer, SweepError):
                raise answer
        return [answer for answer in answers.values() if not isinstance(answer, SweepError)]
