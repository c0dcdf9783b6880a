"""Snapshots on their way to another machine: lists of contents, and tar streams of them.

Whoever receives believes nothing: a content is stored under what it hashes to, or not at all, and a list is
taken only when all that it names is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sweepfw import crash
from sweepfw.errors import SweepError
from sweepfw.snapshot.objects import Objects
from sweepfw.snapshot.store import manifest, objects, rows_of, write_manifest

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
_CHUNK = 1 << 20


def listed(store: Path, id: str) -> dict[str, int]:
    """The contents of a snapshot: SHA-256 -> size. SweepError where the snapshot is gone."""
    return {row[3]: row[4] for row in rows_of(store, id) if row[1] == "file"}


def lacking(store: Path, digests: Collection[str]) -> set[str]:
    """Those that are not in the store. SweepError for a word that is no digest."""
    folder = objects(store)
    for digest in digests:
        _check(digest)
    return {digest for digest in digests if not (folder / digest[:2] / digest[2:]).is_file()}


def pack(store: Path, digests: Iterable[str]) -> Iterator[bytes]:
    """A tar of these contents, in pieces; members are named by digests. SweepError for a missing one."""
    folder = Objects(objects(store))
    for digest in digests:
        _check(digest)
        try:
            with folder.path(digest).open("rb") as file:
                info = tarfile.TarInfo(digest)
                info.size = os.fstat(file.fileno()).st_size
                yield info.tobuf(tarfile.GNU_FORMAT)
                while piece := file.read(_CHUNK):
                    yield piece
        except FileNotFoundError:
            raise SweepError(f"{folder.path(digest)}: this content is gone; submit the sweep again") from None
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(store: Path, stream: IO[bytes]) -> int:
    """Store the contents of such a tar; how many were new. Each is whole or not there, also after a power
    cut: they are on the disk when this returns. SweepError for what is no such tar, or not what its name
    says; what came before it stays."""
    folder = Objects(objects(store))
    folder.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise SweepError(f"{member.name!r}: is no content of a snapshot")
                _receive(folder, member.name, content)
    except (tarfile.TarError, EOFError) as error:
        raise SweepError(
            f"the contents of a snapshot did not arrive whole ({error}); send them again"
        ) from None
    if folder.fresh:
        os.sync()
    return len(folder.fresh)


def accept(store: Path, id: str, text: bytes) -> None:
    """Store a snapshot's list. SweepError where it is none, is not the one of this name, or names contents
    that are not there."""
    if not _ID.fullmatch(id) or hashlib.sha256(text).hexdigest()[:24] != id:
        raise SweepError(f"{id!r}: is not the name of this snapshot")
    try:
        rows = json.loads(text)["files"]
        contents = {row[3]: row[4] for row in rows if row[1] == "file"}
        sane = all(map(_sane, rows)) and _below_folders(rows)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        sane, contents = False, {}
    if not sane:
        raise SweepError(f"{id}: is no list of a snapshot's files")
    if missing := lacking(store, contents):
        raise SweepError(f"{id}: {len(missing)} of its contents are not here; send them first")
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_manifest(manifest(store, id), text)


def contents_of(text: bytes) -> dict[str, int]:
    """The contents that a list names: SHA-256 -> size. SweepError where it is none."""
    try:
        return {row[3]: row[4] for row in json.loads(text)["files"] if row[1] == "file"}
    except (ValueError, KeyError, TypeError, IndexError):
        raise SweepError("a snapshot's list makes no sense; submit the sweep again") from None


def reader(pieces: Iterator[bytes]) -> IO[bytes]:
    """The pieces as a file that can be read once."""
    return io.BufferedReader(_Pieces(pieces), _CHUNK)  # type: ignore[type-var]  # it reads, which is enough


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # any writable buffer will do
        while not self._rest:
            try:
                self._rest = memoryview(next(self._pieces))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _receive(folder: Objects, digest: str, content: IO[bytes]) -> None:
    _check(digest)
    found, temporary = hashlib.sha256(), folder.folder / f"tmp-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
            while piece := content.read(_CHUNK):
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != digest:
            raise SweepError(f"{digest}: this content is not what its name says; send it again")
        place = folder.path(digest)
        if not place.is_file():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            crash.point("snapshot.object")
            temporary.rename(place)
            folder.fresh.append(place)
    finally:
        temporary.unlink(missing_ok=True)


def _check(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise SweepError(f"{digest[:80]!r}: is no SHA-256 of a content")


def _sane(row: list[Any]) -> bool:
    """Whether a line of a list is of the kind that `freeze` writes."""
    path, kind, mode, content, size = row
    if type(mode) is not int or type(size) is not int or not isinstance(content, str) or "\0" in content:
        return False
    what = {"file": True, "link": content != "", "dir": content == ""}
    return _inside(path) and what.get(kind, False) and 0 <= mode <= 0o777 and size >= 0


def _inside(path: object) -> bool:
    """Whether a path stays inside the project's folder."""
    return isinstance(path, str) and "\0" not in path and not {"", ".", ".."} & {*path.split("/")}


def _below_folders(rows: list[list[Any]]) -> bool:
    """Whether every path stands there once, and none lies below a link or a file: it would be written to
    where that leads."""
    kinds = {row[0]: row[1] for row in rows}
    above = {path.rpartition("/")[0] for path in kinds if "/" in path}
    while further := {path.rpartition("/")[0] for path in above if "/" in path} - above:
        above |= further
    return len(kinds) == len(rows) and all(kinds.get(path, "dir") == "dir" for path in above)
