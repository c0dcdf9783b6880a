"""Bringing sweeps home from a deployment: their ledger, what their attempts left, their code."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweepfw import crash
from sweepfw.errors import StoppedError, SweepError
from sweepfw.fleet.parcels import Item, Place, lacking, missing

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Attempt, Sweep
    from sweepfw.fleet.volumes import Volume
    from sweepfw.ledger.interface import Ledger
    from sweepfw.ledger.store import SqliteLedger

WHY = "the deployment was taken down"
CHECKPOINT = "checkpoint.tar"
_PROVENANCE = "provenance.json"
_BIRTH = ("time", "root", "submitter", "workspace")  # what never changes in it
_SPARE = 100_000_000  # bytes that stay free on the disk
Took = Callable[[int], object]


class Wanted(NamedTuple):
    """Which output files are to come home: all, none, or those of the best N trials of each sweep."""

    kind: str  # all, none, best
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """`all`, `none` or `best:N`. SweepError otherwise."""
        if text in ("all", "none"):
            return cls(text)
        if (match := re.fullmatch(r"best:([1-9]\d{0,8})", text, re.ASCII)) is None:
            raise SweepError(f"--outputs {text}: expected all, none or best:N, such as best:3")
        return cls("best", int(match[1]))


class Key(NamedTuple):
    """One attempt, wherever its sweep's name is enough."""

    sweep: str
    trial: int
    attempt: int


def key(place: Place) -> Key:
    return Key(place.sweep, place.trial, place.attempt)


def wanted_attempts(wanted: Wanted, there: str, here: str, ledger: Ledger) -> Collection[Key] | None:
    """The attempts whose output files are wanted, of the sweep that is called so there and here; None: all.

    A sweep without objective has no best, so all of its files are wanted: nothing is lost by a word that
    means nothing there. One that was deleted here meanwhile wants nothing.
    """
    if wanted.kind == "none":
        return ()
    try:
        sweep = ledger.sweep(here)
    except SweepError:
        return ()
    if wanted.kind == "all" or sweep.spec.objective is None:
        return None
    return {key._replace(sweep=there) for key in best_attempts(sweep, ledger, wanted.number)}


def best_attempts(sweep: Sweep, ledger: Ledger, number: int) -> set[Key]:
    """The accepted attempts of the best trials; repeats of one combination count as one."""
    from sweepfw.core.ranking import rank

    assert sweep.spec.objective is not None
    ranking = rank(sweep, ledger.trials(sweep.uid), sweep.spec.objective)
    trials = {trial for entry in ranking.entries[:number] for trial in entry.trials}
    return {
        Key(sweep.name, attempt.trial, attempt.number)
        for trial in sorted(trials)
        for attempt in ledger.attempts(sweep.uid, trial)
        if attempt.accepted
    }


def with_outputs(attempts: Iterable[Attempt]) -> dict[tuple[int, int], Attempt]:
    """The attempts that left output files, as they told."""
    return {(a.trial, a.number): a for a in attempts if output_count(a)}


def output_count(attempt: Attempt) -> int:
    """How many output files it left, as it told."""
    told = attempt.outcome.get("files")
    count = told.get("count") if isinstance(told, Mapping) else None
    return count if isinstance(count, int) else 0


def lost(
    sweep: Sweep, ledger: Ledger, place: Workspace, keys: Collection[Key] | None, away: Collection[str] = ()
) -> list[str]:
    """Accepted attempts that left output files which are not all at home, a line each. `keys`: only these;
    `away`: hosts that can't be reached now."""
    found = []
    wanted = None if keys is None else {(key.trial, key.attempt) for key in keys}
    for attempt in ledger.attempts(sweep.uid):
        count = output_count(attempt)
        if attempt.accepted and count and (wanted is None or (attempt.trial, attempt.number) in wanted):
            here = _files(place.attempt(sweep.name, attempt.trial, attempt.number) / "files")
            if here < count:
                fate = "can't be reached now" if attempt.host in away else "are lost"
                what = f"{count - here} of {count} output files"
                found.append(f"{sweep.name}/{attempt.trial}: {what}, made on {attempt.host}, {fate}")
    return found


def _files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_symlink() or path.is_file())


# -- the ledger ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Homecoming:
    """What came home. `names`: each sweep's name there -> its name here, mostly the same; `new`: names here
    of those that were not here before; `snapshots`: the ids that they name."""

    names: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)

    def path(self, place: Workspace, item: Item) -> Path:
        """Where a file of the deployment's `runs/` belongs here."""
        sweep, _, rest = item.path.partition("/")
        return place.runs / self.names.get(sweep, sweep) / rest


def bring_ledger(volume: Volume, place: Workspace, ledger: SqliteLedger, deployment: str) -> Homecoming:
    """Take every sweep of the head's ledger into this workspace's, with its state; what was there before
    stays as it is. Only when the head stands still. SweepError where its ledger can't be read."""
    from sweepfw.ledger.store import SqliteLedger

    came = Homecoming()
    with tempfile.TemporaryDirectory(prefix="home-", dir=place.state) as folder:
        path = volume.fetch_ledger(Path(folder))
        with SqliteLedger(path, Path(folder) / "runs") as there:
            for sweep in there.sweeps():
                settle(there, sweep)
                _adopt(there, ledger, there.sweep(sweep.uid), deployment, place, came)
    ledger.flush()
    return came


def settle(ledger: SqliteLedger, sweep: Sweep) -> None:
    """Nothing of it runs any more: what did is queued again, and no run holds the sweep."""
    if sweep.counts.get("running") or ledger.running(sweep.uid):
        ledger.requeue(sweep.uid, state="interrupted", why=WHY)
    ledger.leave(sweep.uid)


def _adopt(
    there: SqliteLedger,
    here: SqliteLedger,
    sweep: Sweep,
    deployment: str,
    place: Workspace,
    came: Homecoming,
) -> None:
    from sweepfw.ledger.transfer import dump

    came.snapshots |= there.snapshots(sweep.uid)
    known = {each.uid: each.name for each in here.sweeps()}
    name = known.get(sweep.uid)
    if name is None:
        used = sweep.name.lower() in {each.lower() for each in known.values()}
        own = not used and is_folder_of(place, sweep)
        name = sweep.name if own else free_name(here, sweep.name, deployment)
        here.adopt(dump(there, sweep.uid), place=deployment, name=name)
        came.new.append(name)
    came.names[sweep.name] = name


def free_name(ledger: Ledger, name: str, deployment: str) -> str:
    """The sweep's own name, or one with the deployment's where this workspace used it for another sweep."""
    for candidate in (name, *(f"{name[:60]}-{deployment[:30]}{n}" for n in ("", *range(2, 1000)))):
        try:
            ledger.check_name(candidate)
        except SweepError:
            continue
        return candidate
    raise SweepError(f"{name}: this workspace has used all names for it; go to another folder")


def is_folder_of(place: Workspace, sweep: Sweep) -> bool:
    """Whether the sweep's folder is here: it was submitted from here, or files of it were pulled."""
    import json

    try:
        told = json.loads((place.run(sweep.name) / _PROVENANCE).read_text())
        return all(told.get(word) == sweep.provenance.get(word) for word in _BIRTH)
    except (OSError, ValueError, AttributeError):
        return False


def mark_folder(place: Workspace, sweep: Sweep) -> None:
    """Say whose the folder is, where nobody did. SweepError where it is another sweep's."""
    import json

    folder = place.run(sweep.name)
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}.part")  # a folder without the mark would be nobody's
        draft.mkdir(parents=True, exist_ok=True)
        (draft / _PROVENANCE).write_text(json.dumps(dict(sweep.provenance), indent=2) + "\n")
        crash.point("pull.marked")
        draft.rename(folder)
    elif not is_folder_of(place, sweep):
        raise SweepError(f"{folder}: is another sweep's; pull from another folder")


# -- files -----------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """What is to come from one volume. `size` in bytes."""

    volume: Volume
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


def load(volume: Volume, items: Iterable[Item], home: Callable[[Item], Path]) -> Load:
    """Those of a worker's items that are not at home yet."""
    return Load(volume, tuple(lacking(items, home)))


def load_from_head(volume: Volume, items: Iterable[Item], home: Callable[[Item], Path]) -> Load:
    """Those of the head's items that are not at home yet. Its output files are copies of a worker's."""
    records, copies = split(items)
    return Load(volume, (*lacking(records, home), *missing(copies, home)))


def split(items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """What attempts tell, and their output files."""
    parts: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        parts[item.place.output].append(item)
    return parts


def not_kept(items: Iterable[Item], kept: Iterable[Item]) -> list[Item]:
    """A worker's output files of which the head keeps no copy."""
    sizes = {item.path: item.size for item in kept}
    return [item for item in split(items)[1] if item.link or sizes.get(item.path) != item.size]


def outputs(
    items: Iterable[Item], wanted: Mapping[str, Collection[Key] | None], *, others: bool = False
) -> list[Item]:
    """The output files of the attempts that are wanted, by sweep (None: all of the sweep's). `others`: also
    of sweeps that nobody here knows."""
    return [
        item
        for item in items
        if (place := item.place).output
        and (place.sweep in wanted or others)
        and ((keys := wanted.get(place.sweep)) is None or key(place) in keys)
    ]


def check_room(folder: Path, loads: Iterable[Load]) -> None:
    """StoppedError where all that is to come has no room on the disk."""
    import shutil

    size, free = sum(load.size for load in loads), shutil.disk_usage(folder).free
    if size > free - _SPARE:
        raise StoppedError(
            f"{folder}: {size / 1e9:.2f} GB are to come home, and {free / 1e9:.2f} GB are free here; "
            "make room, or bring fewer files"
        )


def bring(load: Load, home: Callable[[Item], Path], root: Path, took: Took = lambda count: None) -> list[str]:
    """Bring the load home; the paths that did not come, each with the reason where there is one."""
    where = {item.path: home(item) for item in load.items}
    received = load.volume.fetch(where, root, took)
    missing = [path for path in where if path not in received.paths and path not in received.refused]
    return [f"{path}: not there any more" for path in missing] + [
        f"{path}: {why}" for path, why in received.refused.items()
    ]


def unpack_checkpoints(place: Workspace, names: Iterable[str]) -> None:
    """Make folders of the checkpoints that came as tars, for trials that go on here. One that is there
    already is younger."""
    for name in names:
        for packed in sorted(place.run(name).glob(f"trials/*/{CHECKPOINT}")):
            _unpack_checkpoint(packed)


def _unpack_checkpoint(packed: Path) -> None:
    from sweepfw.fleet.parcels import unpack_folder
    from sweepfw.trial.guard.removal import remove

    folder = packed.parent / "checkpoint"
    if not folder.exists():
        part = packed.parent / "checkpoint.part"
        remove(str(part))
        with packed.open("rb") as stream:
            unpack_folder(stream, part)
        crash.point("down.unpacked")
        part.rename(folder)
        crash.point("down.placed")
    packed.unlink()
