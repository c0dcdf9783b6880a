"""A trial's own copy of the snapshot, and what a trial changed in it.

A copy that a trial left is put right and used for the next trial: in the common case, where the trial
changed nothing, that costs a rename instead of a new copy. It is exactly as a new copy would be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable

from sweepfw.trial.guard.files import copy_file, is_folder, walk
from sweepfw.trial.guard.removal import remove

_DIR, _FILE, _LINK = 0o040000, 0o100000, 0o120000
_KIND = 0o170000
# A file changed twice within the same tick of the kernel's clock keeps its times. Ticks are 1 to 10 ms.
_TICK_NS = 20_000_000

Row = tuple[str, int, str, int]  # kind ("file", "link", "dir"), mode, hash or the link's target, size
Stamp = tuple[int, ...]


class Entry:
    """What there is of a file or folder now: there may be very many."""

    __slots__ = ("mode", "size")

    def __init__(self, stat: os.stat_result) -> None:
        self.mode, self.size = stat.st_mode, stat.st_size


class Changes:
    """What a trial did to its working copy, by paths relative to it."""

    def __init__(self, new: dict[str, Entry], changed: dict[str, Entry], missing: list[str]) -> None:
        self.new = new  # not in the snapshot
        self.changed = changed
        self.missing = missing

    def forget(self, moved: Iterable[str]) -> None:
        """These were taken away since."""
        for name in moved:
            if self.new.pop(name, None) is None:
                del self.changed[name]
                self.missing.append(name)


def read_manifest(path: str) -> dict[str, Row]:
    """The snapshot's entries by path, every folder named, a folder before its content."""
    with open(path, "rb") as file:
        listed = json.load(file)["files"]
    rows: dict[str, Row] = {name: (kind, mode, target, size) for name, kind, mode, target, size in listed}
    for name in list(rows):
        parent = name.rpartition("/")[0]
        while parent and parent not in rows:
            rows[parent] = ("dir", 0o755, "", 0)
            parent = parent.rpartition("/")[0]
    return dict(sorted(rows.items()))


class WorkCopy:
    """Makes copies of one snapshot, and knows the state of the last one that it made or put right."""

    def __init__(self, rows: dict[str, Row], objects: str) -> None:
        self._rows = rows
        self._objects = objects
        self._stamps: dict[str, Stamp] = {}
        self._ino = 0
        self._top: Stamp = ()

    def make(self, folder: str, check: Callable[[], object] = lambda: None) -> None:
        """Copy the snapshot to a folder that is not there yet. `check` is called between files, to break off.

        Raises OSError, as for a full disk or an object that is missing; then the folder is not whole.
        """
        os.mkdir(folder)
        self._stamps = {}
        self._copy(folder, self._rows, check)
        top = os.lstat(folder)
        self._ino, self._top = top.st_ino, _stamp(top)

    def _copy(self, folder: str, names: Iterable[str], check: Callable[[], object] = lambda: None) -> None:
        for name in names:
            check()
            kind, mode, target, size = self._rows[name]
            path = f"{folder}/{name}"
            if kind == "dir":
                os.mkdir(path, mode)
            elif kind == "link":
                os.symlink(target, path)
            else:
                copy_file(self._object(target), path, mode, size)
            self._stamps[name] = _stamp(os.lstat(path))

    def _object(self, digest: str) -> str:
        return f"{self._objects}/{digest[:2]}/{digest[2:]}"

    def compare(self, folder: str, since_ns: int) -> Changes:
        """What was changed in the folder since `since_ns`, the wall clock when the trial started."""
        if not self._is_ours(folder):
            return Changes({}, {}, list(self._rows))
        racy = since_ns - _TICK_NS
        found = set()
        new: dict[str, Entry] = {}
        changed: dict[str, Entry] = {}
        for name, stat in walk(folder):
            known = self._stamps.get(name)
            if known is None:
                new[name] = Entry(stat)
                continue
            found.add(name)
            if known != _stamp(stat) or (stat.st_ctime_ns >= racy and not self._holds(folder, name)):
                changed[name] = Entry(stat)
        missing = [name for name in self._stamps if name not in found]
        return Changes(new, changed, missing)

    def _is_ours(self, folder: str) -> bool:
        """Whether the folder is the one that we made, not something that the trial put in its place."""
        return is_folder(folder) and os.lstat(folder).st_ino == self._ino

    def _holds(self, folder: str, name: str) -> bool:
        """Whether a file's content is the snapshot's, read byte by byte."""
        kind, _, target, _ = self._rows[name]
        if kind == "dir":
            return True
        if kind == "link":
            return os.readlink(f"{folder}/{name}") == target
        with open(f"{folder}/{name}", "rb") as ours, open(self._object(target), "rb") as true:
            while (piece := ours.read(1 << 18)) == true.read(1 << 18):
                if not piece:
                    return True
        return False

    def restore(self, folder: str, changes: Changes) -> None:
        """Make the folder what `make` would make it. Raises OSError; then it is not to be used again."""
        if not self._is_ours(folder):
            remove(folder)
            return self.make(folder)
        if _stamp(os.lstat(folder)) != self._top:
            os.chown(folder, *self._top[1:])
            os.chmod(folder, self._top[0] & 0o7777)
        again = self._mend_folders(folder, changes.changed)
        for name in sorted(changes.new, reverse=True):
            remove(f"{folder}/{name}")
        for name in reversed(again):
            remove(f"{folder}/{name}")
        lost = {*again, *changes.missing}
        self._copy(folder, [name for name in self._rows if name in lost or self._under(name, lost)])

    def _mend_folders(self, folder: str, changed: Iterable[str]) -> list[str]:
        """Give folders their modes back, so that we can work in them; what is to be copied again."""
        again = []
        for name in sorted(changed):
            path, known = f"{folder}/{name}", self._stamps[name]
            stat = os.lstat(path)
            if known[0] & _KIND == _DIR == stat.st_mode & _KIND:
                if known[1:] != (stat.st_uid, stat.st_gid):
                    os.chown(path, *known[1:])
                os.chmod(path, known[0] & 0o7777)
            else:
                again.append(name)
        return again

    def _under(self, name: str, lost: set[str]) -> bool:
        parent = name.rpartition("/")[0]
        if parent and (parent in lost or self._under(parent, lost)):
            lost.add(name)
            return True
        return False


def _stamp(stat: os.stat_result) -> Stamp:
    """Equal while nothing happened to the entry. A folder's own times say nothing: its content counts."""
    if stat.st_mode & _KIND == _DIR:
        return (stat.st_mode, stat.st_uid, stat.st_gid)
    return (stat.st_mode, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
