"""Folders of trials as tars: files, folders and links; what a tar from elsewhere may do to a folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias

from sweepfw.errors import SweepError
from sweepfw.snapshot.transfer import reader
from sweepfw.trial.guard.files import open_plain, walk

Survey: TypeAlias = Mapping[str, tuple[int, int, int]]  # path -> mode, size, time of change in ns

_TRIES = 3
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MEMORY = 1 << 20  # bytes; larger packs go through the disk


class _Changed(Exception):  # noqa: N818  # it says what happened
    """A file became shorter while it was packed."""


def survey(folder: str) -> Survey:
    """What is in the folder that can be packed: no sockets, pipes or devices. Empty where it is not there.

    Raises OSError where it can't be read.
    """
    for _ in range(_TRIES - 1):
        try:
            return _survey(folder)
        except FileNotFoundError:
            continue  # its owner is at work in it
    return _survey(folder)


def _survey(folder: str) -> Survey:
    if not os.path.isdir(folder):  # noqa: PTH112  # for every trial: a path takes longer
        return {}
    return {
        name: (found.st_mode, 0 if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns)
        for name, found in walk(folder)
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)
    }


@contextmanager
def packed(folder: str, names: Iterable[str], scratch: Path, size: int) -> Iterator[IO[bytes]]:
    """A file, open at its start, with the tar of these entries of the folder. What is gone is left out.

    `size` is about how many bytes they are, `scratch` a folder on a disk with room. Raises OSError.
    """
    names = list(names)
    with io.BytesIO() if size < _MEMORY else tempfile.TemporaryFile(dir=str(scratch)) as file:
        for last in (False, False, True):
            try:
                _pack(folder, names, file)
                break
            except _Changed:
                if last:
                    raise OSError(f"{folder}: its files change all the time") from None
                file.seek(0)
                file.truncate()
        file.seek(0)
        yield file


def contents(folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """These files of the folder, for few small ones. What is gone is left out. Raises OSError."""
    found = {}
    for name in names:
        with suppress(FileNotFoundError), os.fdopen(open_plain(f"{folder}/{name}"), "rb") as file:
            found[name] = file.read()
    return found


def _pack(folder: str, names: Iterable[str], file: IO[bytes]) -> None:
    for name in names:
        try:
            _add(file, f"{folder}/{name}", name)
        except FileNotFoundError:
            continue
    file.write(bytes(2 * tarfile.BLOCKSIZE))


def _add(file: IO[bytes], path: str, name: str) -> None:
    found = os.lstat(path)
    mode, changed = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    if stat.S_ISREG(found.st_mode):
        with os.fdopen(open_plain(path), "rb", buffering=0) as source:
            size = os.fstat(source.fileno()).st_size
            file.write(_header(name, mode, size, changed))
            _copy(source, file, size)
            file.write(bytes(-size % tarfile.BLOCKSIZE))
    else:
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = mode, changed
        member.type = tarfile.DIRTYPE if stat.S_ISDIR(found.st_mode) else tarfile.SYMTYPE
        member.linkname = "" if member.isdir() else str(Path(path).readlink())
        file.write(member.tobuf(tarfile.PAX_FORMAT))


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    while size:
        data = source.read(min(size, _MEMORY))
        if not data:
            raise _Changed
        file.write(data)
        size -= len(data)


def _header(name: str, mode: int, size: int, changed: int) -> bytes:
    """The head of a regular file. For the few small files of every attempt tarfile's own takes ten times as
    long; names and sizes that do not fit the old form are left to it."""
    if len(name) > 100 or not name.isascii() or size >= 1 << 33 or changed < 0:
        member = tarfile.TarInfo(name)
        member.mode, member.size, member.mtime = mode, size, changed
        return member.tobuf(tarfile.PAX_FORMAT)
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, changed)
    head = name.encode().ljust(100, b"\0") + numbers
    tail = b"0".ljust(101, b"\0") + b"ustar\x0000"
    total = sum(head) + sum(tail) + 8 * 32  # the sum's own field counts as blanks
    return (head + b"%06o\0 " % total + tail).ljust(tarfile.BLOCKSIZE, b"\0")


def unpack(pieces: Iterable[bytes], folder: Path) -> None:
    """Make what the tar holds below `folder`, which is made. Raises SweepError for a tar that is torn or
    would write elsewhere, OSError where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder.resolve()
    times: list[tuple[Path, float]] = []
    try:
        with tarfile.open(fileobj=reader(iter(pieces)), mode="r|") as tar:
            times.extend((path, member.mtime) for member in tar if (path := _take(tar, member, home)))
    except tarfile.TarError as error:
        raise SweepError(f"{folder}: the pack that came is torn ({error}); it comes again") from None
    for path, time in reversed(times):
        os.utime(path, (time, time), follow_symlinks=False)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> Path | None:
    """Make one entry; its path. None for kinds that hold nothing."""
    path = home / member.name
    if path == home or ".." in path.parts or not path.parent.resolve().is_relative_to(home):
        raise SweepError(f"{home}: the pack that came names {member.name!r}, which lies elsewhere; refused")
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
        path.chmod((member.mode & 0o777) | 0o700)
    elif member.issym():
        if not (path.parent / member.linkname).resolve().is_relative_to(home):
            return None  # it meant something on the host that it comes from
        path.symlink_to(member.linkname)
    elif member.isreg():
        _write(tar, member, path)
    else:
        return None
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # it is a file
    with os.fdopen(os.open(path, _NEW, member.mode & 0o777), "wb") as file:
        while data := source.read(1 << 20):
            file.write(data)
