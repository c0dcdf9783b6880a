"""What attempts leave at the head: small files, checkpoints, and reading them. Packs come from hosts that are
not believed: nothing is written but regular files below the folder that they belong in."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from sweepfw import crash
from sweepfw.errors import DiskFullError, SweepError

LIMIT = 64_000_000  # bytes of one attempt's small files
COUNT = 10_000  # files
LOG = "output.log"  # stored by offset, not in packs
PIECE = 256_000  # bytes
RESERVE = 500_000_000  # bytes, or 2 % of the disk if that is less: not for checkpoints
_FULL = ("No space left on device", "Disk quota exceeded")


def emptied(drafts: Path) -> Path:
    """The folder, made, without what a killed head had begun to write in it."""
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir(parents=True, exist_ok=True)
    return drafts


def unpack(pack: IO[bytes], folder: Path, drafts: Path) -> None:
    """Store the regular files of a tar below the folder, each whole or not at all; other kinds are left out.
    SweepError for a path that leads elsewhere, and for more than there may be.

    `drafts`: a folder on the same disk, for what is not whole yet. It lies elsewhere, so that a head killed
    just then leaves nothing among the attempt's files.
    """
    size = count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=pack, mode="r|") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                size, count = size + member.size, count + 1
                _check(folder, size, count)
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                _store(iter(partial(content.read, PIECE), b""), _inside(str(folder), member.name), drafts)
    except (tarfile.TarError, EOFError) as error:
        raise SweepError(f"{folder}: the pack did not arrive whole ({error}); send it again") from None
    except OSError as error:
        raise _unwritable(folder, error) from None


def write(files: Mapping[str, bytes], folder: Path, drafts: Path) -> None:
    """Store these below the folder, as `unpack` does."""
    _check(folder, sum(map(len, files.values())), len(files))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _store((content,), _inside(str(folder), name), drafts)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _check(folder: Path, size: int, count: int) -> None:
    if size > LIMIT or count > COUNT:
        raise SweepError(f"{folder}: an attempt keeps at most {COUNT} files, {LIMIT} bytes here")


def store(pack: IO[bytes], path: Path, drafts: Path) -> Path:
    """Store the whole pack in a new file of `drafts`, for the caller to move to `path`; synced. SweepError
    before it takes the last of the disk: a pack has no end but its sender's, and ends come first."""
    draft = drafts / os.urandom(6).hex()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            while piece := pack.read(PIECE):
                _check_room(path, drafts)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from None
        raise
    return draft


def _check_room(path: Path, drafts: Path) -> None:
    disk = os.statvfs(drafts)
    if disk.f_bavail * disk.f_frsize < min(RESERVE, disk.f_blocks * disk.f_frsize // 50):
        raise SweepError(f"{path}: not stored, the head's disk is nearly full; make room there")


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


def _inside(folder: str, name: str) -> str:
    """The path for a name, in folders that are made. Texts, since this is done for every trial: paths would
    take as long as all the rest."""
    *folders, last = name.split("/")
    if not last or {"", ".", ".."} & {*folders, last} or "\0" in name or name.partition("/")[0] == LOG:
        raise SweepError(f"{folder}: {name!r} can't be kept there; send paths below the attempt's folder")
    path = folder
    for part in folders:
        path = f"{path}/{part}"
        if os.path.islink(path):  # noqa: PTH114  # nobody of ours makes one here
            raise SweepError(f"{path}: is a link; nothing is kept behind it")
        os.makedirs(path, exist_ok=True)  # noqa: PTH103  # as above
    return f"{path}/{last}"


def _store(pieces: Iterable[bytes], path: str, drafts: Path) -> None:
    draft = f"{drafts}/{os.urandom(6).hex()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.writelines(pieces)
        crash.point("head.keep")
        os.replace(draft, path)  # noqa: PTH105  # as above
    except BaseException:
        os.unlink(draft)  # noqa: PTH108
        raise


def _unwritable(path: Path, error: OSError) -> SweepError:
    if error.strerror in _FULL:
        return DiskFullError(f"{path}: the disk is full; make room, then it goes on")
    return SweepError(f"{path}: can't be stored ({error.strerror or error})")
