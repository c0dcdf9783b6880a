"""Where file contents are kept, each once, under the SHA-256 of what was stored."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw import crash
from sweepfw.errors import SweepError
from sweepfw.snapshot.listing import Entry

PRIVATE = "holds a private key"  # why a file is left out
_GONE = "deleted while it was read"
_CLONE = 0x40049409  # ioctl FICLONE: share the blocks until one side writes
_CHUNK = 1 << 20
_KEY_LIMIT = 1 << 16  # no private key is larger
_KEY = re.compile(rb"^-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----\s*$", re.MULTILINE)
_SETTLED = 2_000_000_000  # ns; file systems tell times as coarsely as 2 s


@dataclass(slots=True)
class Objects:
    """The contents in `<store>/objects`. `fresh`: the paths that this object made."""

    folder: Path
    fresh: list[Path] = field(default_factory=list)

    def path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest[2:]

    def has(self, digest: str, size: int) -> bool:
        """Whether the content is there, whole: after a power cut an object may be shorter than it was."""
        try:
            return os.stat(f"{self.folder}/{digest[:2]}/{digest[2:]}").st_size == size  # noqa: PTH116  # hot
        except FileNotFoundError:
            return False

    def store(self, source: Path, entry: Entry) -> tuple[str, int] | str:
        """Store the file's content; the digest and size of what was stored, or why it is left out.

        A file that grows meanwhile is taken as long as it was when the project was listed.
        """
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return _GONE
        except OSError as error:
            raise _unreadable(source, error) from None
        try:
            if entry.size > _CHUNK:
                return self._store_large(descriptor, source, entry.size)
            data = _read_up_to(descriptor, source, entry.size)
        finally:
            os.close(descriptor)
        if not entry.asked and is_private_key(data):
            return PRIVATE
        return self._store_small(data), len(data)

    def _store_small(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if not self.has(digest, len(data)):
            temporary = self._temporary()
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as copy:
                copy.write(data)
            crash.point("snapshot.object")
            self._keep(temporary, digest)
        return digest

    def _store_large(self, descriptor: int, source: Path, limit: int) -> tuple[str, int]:
        """Copy, then name the copy by what it holds: the source may change while it is read."""
        temporary = self._temporary()
        try:
            with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444), "w+b") as copy:
                digest, size = _copy(descriptor, copy.fileno(), source, limit)
            if self.has(digest, size):
                temporary.unlink()
            else:
                self._keep(temporary, digest)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return digest, size

    def _temporary(self) -> Path:
        return self.folder / f"tmp-{os.getpid()}-{os.urandom(6).hex()}"

    def _keep(self, temporary: Path, digest: str) -> None:
        place = self.path(digest)
        try:
            temporary.rename(place)
        except FileNotFoundError:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.rename(place)
        self.fresh.append(place)


def is_private_key(data: bytes) -> bool:
    """Whether a small file holds a private key, as its first lines say."""
    return len(data) <= _KEY_LIMIT and b"PRIVATE KEY" in data[:1024] and bool(_KEY.search(data[:1024]))


def _read_up_to(descriptor: int, source: Path, limit: int) -> bytes:
    try:
        data = os.read(descriptor, limit)
        while data and len(data) < limit and (more := os.read(descriptor, limit - len(data))):
            data += more
    except OSError as error:
        raise _unreadable(source, error) from None
    return data


def _copy(source: int, copy: int, name: Path, limit: int) -> tuple[str, int]:
    """Digest and size of the copy: cloned where the file system can, else copied up to `limit` bytes."""
    if _clone(source, copy):
        os.ftruncate(copy, min(os.fstat(copy).st_size, limit))
        source = copy
    digest, size = hashlib.sha256(), 0
    while size < limit and (chunk := _read_up_to(source, name, min(_CHUNK, limit - size))):
        digest.update(chunk)
        size += len(chunk)
        if source != copy:
            _write(copy, chunk)
    return digest.hexdigest(), size


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _clone(source: int, copy: int) -> bool:
    from fcntl import ioctl  # here: only large files need it

    try:
        ioctl(copy, _CLONE, source)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True


def _unreadable(path: Path, error: OSError) -> SweepError:
    return SweepError(
        f"{path}: can't be read ({error.strerror}); make it readable, or name it in .sweepfwignore"
    )


@dataclass(slots=True)
class Cache:
    """What the files of one project hashed to when they were last read, and their stamps then.

    A file whose times were so young that a later change could have left them equal is not remembered:
    git calls such entries racy.
    """

    path: Path
    known: Mapping[str, list[object]]  # path -> [*stamp, digest]
    now: dict[str, list[object]] = field(default_factory=dict)
    read: int = 0  # files that were read in this freeze

    @classmethod
    def load(cls, store: Path, root: Path) -> Cache:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        path = store / "cache" / f"{name}.json"
        try:
            known = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            known = {}
        return cls(path, known if isinstance(known, dict) else {})

    def digest(self, entry: Entry) -> str | None:
        """The digest of the file's content if it has not changed since it was read."""
        found = self.known.get(entry.path)
        if not found or found[:4] != [*entry.stamp] or entry.asked:
            return None
        self.now[entry.path] = found
        return str(found[4])

    def remember(self, entry: Entry, digest: str) -> None:
        self.read += 1
        if not entry.asked and max(entry.stamp[2:]) + _SETTLED < time.time_ns():
            self.now[entry.path] = [*entry.stamp, digest]

    def save(self) -> None:
        """Write what is known now, where that spares the next freeze more than it costs."""
        if self.read < 50 and len(self.known) <= len(self.now):
            return
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.now, separators=(",", ":")))
        temporary.rename(self.path)
