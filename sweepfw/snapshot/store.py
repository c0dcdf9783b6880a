"""Freeze a project into a store, look at what is in there, and collect what nobody names any more."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sweepfw import crash
from sweepfw.errors import SweepError
from sweepfw.snapshot.listing import Entry, Listing, walk
from sweepfw.snapshot.objects import PRIVATE, Cache, Objects, is_private_key

_HEAD = 1024  # bytes


class Snapshot(NamedTuple):
    """A frozen project. The id is made of what it holds: equal projects, equal ids."""

    id: str
    listing: Listing
    fresh: tuple[Path, ...] = ()  # what this freeze wrote; `settle` puts it on the disk


class Freed(NamedTuple):
    bytes: int
    files: int


class Differences(NamedTuple):
    """Paths in which a second snapshot differs from a first."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def manifest(store: Path, id: str) -> Path:
    """The file that lists the snapshot."""
    return store / f"{id}.json"


def objects(store: Path) -> Path:
    """The folder of the contents."""
    return store / "objects"


def scan(root: Path) -> Listing:
    """What `freeze` would take and leave out, without storing anything."""
    listing = walk(root)
    keys = {
        entry.path for entry in listing.files if not entry.asked and _looks_private(root / entry.path, entry)
    }
    return _without(listing, dict.fromkeys(keys, PRIVATE))


def survey(root: Path, limit: int) -> Listing:
    """What is to be frozen, before anything is read or written. SweepError, with the largest files named,
    where it is more than `limit` bytes."""
    listing = walk(root)
    _check_size(root, listing, limit)
    return listing


def freeze(root: Path, store: Path, limit: int, listing: Listing | None = None) -> Snapshot:
    """Store the project's files and name the snapshot. The same files again write nothing.

    `listing` is what `survey` found, if that was called before; it raises the same. A file that changes
    meanwhile is stored as it was read, under the digest of what was stored.
    """
    listing = listing or survey(root, limit)
    try:
        with _locked(store, exclusive=False):
            return _freeze(root, store, listing)
    except OSError as error:
        raise SweepError(
            f"{store}: the snapshot can't be stored ({error.strerror}); make room there, or make it writable"
        ) from None


def settle(store: Path, snapshot: Snapshot) -> None:
    """Put what the freeze wrote on the disk, so that a power cut does not take it. May take a while."""
    if not snapshot.fresh:
        return
    if len(snapshot.fresh) > 100:
        return os.sync()  # one wait instead of hundreds
    for path in (*snapshot.fresh, *{path.parent for path in snapshot.fresh}, store):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def checkout(store: Path, id: str, folder: Path) -> None:
    """Copy the snapshot into `folder`, which is made; files are the copy's own, never links to the store."""
    from sweepfw.trial.guard.workcopy import WorkCopy, read_manifest

    rows_of(store, id)  # says it well where it is gone
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        WorkCopy(read_manifest(str(manifest(store, id))), str(objects(store))).make(str(folder))
    except OSError as error:
        raise SweepError(f"{folder}: can't be made from the snapshot ({error.strerror})") from None


def read(store: Path, id: str, path: str) -> bytes | None:
    """The content of one file of the snapshot; None where it has no such file."""
    row = next((row for row in rows_of(store, id) if row[0] == path and row[1] == "file"), None)
    return Objects(objects(store)).path(row[3]).read_bytes() if row else None


def differences(store: Path, first: str, second: str) -> Differences:
    """What changed from one snapshot to another: contents, kinds, modes and links."""
    before, after = ({row[0]: row[1:] for row in rows_of(store, id)} for id in (first, second))
    return Differences(
        added=tuple(path for path in after if path not in before),
        removed=tuple(path for path in before if path not in after),
        changed=tuple(path for path in after if path in before and before[path] != after[path]),
    )


def collect(
    store: Path,
    keep: Collection[str],
    *,
    age: float = 3600,
    dry: bool = False,
    clock: Callable[[], float] = time.time,
) -> Freed:
    """Remove the snapshots that are not in `keep`, and the contents that no snapshot left has.

    `dry`: remove nothing, only tell.

    Snapshots frozen within the last `age` seconds stay: their sweep may not be in the ledger yet. Safe beside
    a freeze: one waits for the other.
    """
    if not store.is_dir():
        return Freed(0, 0)
    with _locked(store, exclusive=True):
        listed = [path for path in store.glob("*.json") if path.is_file()]
        doomed = [p for p in listed if p.stem not in keep and p.stat().st_mtime < clock() - age]
        wanted = {
            row[3] for p in listed if p not in doomed for row in rows_of(store, p.stem) if row[1] == "file"
        }
        doomed += [
            path
            for path in objects(store).glob("**/*")
            if path.is_file() and path.parent.name + path.name not in wanted
        ]
        doomed += store.glob("*.tmp")  # nobody freezes now: left by a freeze that was killed
        size = sum(path.stat().st_size for path in doomed)
        for path in () if dry else doomed:
            path.unlink()
            crash.point("gc.unlinked")
    return Freed(size, len(doomed))


def _freeze(root: Path, store: Path, listing: Listing) -> Snapshot:
    contents, cache = Objects(objects(store)), Cache.load(store, root.resolve())
    stored: dict[str, tuple[str, int]] = {}
    refused: dict[str, str] = {}
    for entry in listing.files:
        digest = cache.digest(entry)
        if digest is not None and contents.has(digest, entry.size):
            stored[entry.path] = (digest, entry.size)
        elif isinstance(result := contents.store(root / entry.path, entry), str):
            refused[entry.path] = result
        else:
            stored[entry.path] = result
            cache.remember(entry, result[0])
    listing = _without(listing, refused)
    text = _manifest(listing, stored)
    id = hashlib.sha256(text).hexdigest()[:24]
    crash.point("snapshot.contents")
    made = write_manifest(manifest(store, id), text)
    crash.point("snapshot.frozen")
    cache.save()
    return Snapshot(id, listing, (*contents.fresh, manifest(store, id)) if made else tuple(contents.fresh))


def _without(listing: Listing, refused: dict[str, str]) -> Listing:
    if not refused:
        return listing
    taken = tuple(entry for entry in listing.taken if entry.path not in refused)
    return Listing(taken, tuple(sorted({*listing.left_out, *refused.items()})))


def _manifest(listing: Listing, stored: dict[str, tuple[str, int]]) -> bytes:
    rows: list[list[object]] = []
    for entry in listing.taken:
        content, size = stored[entry.path] if entry.kind == "file" else (entry.target, 0)
        rows.append([entry.path, entry.kind, entry.mode, content, size])
    return json.dumps({"files": rows}, separators=(",", ":")).encode()


def write_manifest(path: Path, text: bytes) -> bool:
    """Whether it was new. One that is there becomes young again, which keeps `collect` from it."""
    try:
        if path.stat().st_size == len(text):
            os.utime(path)
            return False
    except FileNotFoundError:
        pass
    temporary = path.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}.tmp")
    temporary.write_bytes(text)
    crash.point("snapshot.manifest")
    temporary.rename(path)
    return True


def rows_of(store: Path, id: str) -> list[list[Any]]:
    """The snapshot's list. SweepError where it is gone."""
    try:
        rows: list[list[Any]] = json.loads(manifest(store, id).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        raise SweepError(f"{manifest(store, id)}: this snapshot is gone; submit the sweep again") from None
    return rows


def _looks_private(path: Path, entry: Entry) -> bool:
    try:
        with path.open("rb") as file:
            return is_private_key(file.read(_HEAD)) if entry.size <= 1 << 16 else False
    except OSError:
        return False  # freeze will say so


def _check_size(root: Path, listing: Listing, limit: int) -> None:
    if listing.size <= limit:
        return
    largest = sorted(listing.files, key=lambda entry: -entry.size)[:5]
    named = ", ".join(f"{entry.path} ({_size(entry.size)})" for entry in largest)
    raise SweepError(
        f"{root}: its files are {_size(listing.size)}, over the snapshot_limit of {_size(limit)}; "
        f"the largest: {named}; name what trials don't need in .sweepfwignore, or raise the limit"
    )


def _size(count: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count} bytes"


@contextmanager
def _locked(store: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the store: many may freeze at once, nobody while something is collected."""
    from fcntl import LOCK_EX, LOCK_SH, flock

    objects(store).mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(descriptor, LOCK_EX if exclusive else LOCK_SH)
        yield
    finally:
        os.close(descriptor)
