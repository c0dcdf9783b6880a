"""What attempts leave at the head: small files, checkpoints, and reading them. Packs come from hosts that are
not believed: nothing is written but regular files below the folder that they belong in."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sweepfw.errors import DiskFullError, SweepError

LIMIT = 64_000_000  # bytes of one attempt's small files
COUNT = 10_000  # files
LOG = "output.log"  # stored by offset, not in packs
PIECE = 256_000  # bytes
_FULL = ("No space left on device", "Disk quota exceeded")


def unpack(pack: IO[bytes], folder: Path) -> None:
    """Store the regular files of a tar below the folder, each whole or not at all; other kinds are left out.
    SweepError for a path that leads elsewhere, and for more than there may be."""
    size = count = 0
    try:
        with tarfile.open(fileobj=pack, mode="r|") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                size, count = size + member.size, count + 1
                if size > LIMIT or count > COUNT:
                    raise SweepError(f"{folder}: an attempt keeps at most {COUNT} files, {LIMIT} bytes here")
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                _store(content, _inside(folder, member.name))
    except (tarfile.TarError, EOFError) as error:
        raise SweepError(f"{folder}: the pack did not arrive whole ({error}); send it again") from None
    except OSError as error:
        raise _unwritable(folder, error) from None


def store(pack: IO[bytes], path: Path) -> Path:
    """Store the whole pack in a new file beside `path`, for the caller to rename; synced."""
    draft = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            while piece := pack.read(PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from None
        raise
    return draft


def listed(folder: Path) -> dict[str, int]:
    """The regular files below the folder, by their paths in it, with their sizes."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[str(path.relative_to(folder))] = status.st_size
    return dict(sorted(found.items()))


def pieces(path: Path) -> Iterator[bytes]:
    """The file's bytes. It is open when this returns, so that a newer one may take its place."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

    def read() -> Iterator[bytes]:
        with file:
            while piece := file.read(PIECE):
                yield piece

    return read()


def _inside(folder: Path, name: str) -> Path:
    parts = name.split("/")
    if not all(parts) or "." in parts or ".." in parts or "\0" in name or parts[0] == LOG:
        raise SweepError(f"{folder}: {name!r} can't be kept there; send paths below the attempt's folder")
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():  # nobody of ours makes one here
            raise SweepError(f"{path}: is a link; nothing is kept behind it")
        path.mkdir(parents=True, exist_ok=True)
    return path / parts[-1]


def _store(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.urandom(6).hex()}.part")
    try:
        with draft.open("xb") as file:
            while piece := content.read(PIECE):
                file.write(piece)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _unwritable(path: Path, error: OSError) -> SweepError:
    if error.strerror in _FULL:
        return DiskFullError(f"{path}: the disk is full; make room, then it goes on")
    return SweepError(f"{path}: can't be stored ({error.strerror or error})")
