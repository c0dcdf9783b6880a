"""Folders of trials as tars: files, folders and links; what a tar from elsewhere may do to a folder."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from sweepfw.errors import SweepError
from sweepfw.snapshot.transfer import reader
from sweepfw.trial.guard.files import walk

Survey: TypeAlias = Mapping[str, tuple[int, int, int]]  # path -> mode, size, time of change in ns

_TRIES = 3
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
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
def packed(folder: str, names: Iterable[str], scratch: Path) -> Iterator[IO[bytes]]:
    """A file, open at its start, with the tar of these entries of the folder. What is gone is left out.

    `scratch` is a folder on a disk with room. Raises OSError.
    """
    names = list(names)
    with tempfile.SpooledTemporaryFile(_MEMORY, "w+b", dir=str(scratch)) as file:
        for last in (False, False, True):
            try:
                _pack(Path(folder), names, file)
                break
            except _Changed:
                if last:
                    raise OSError(f"{folder}: its files change all the time") from None
                file.seek(0)
                file.truncate()
        file.seek(0)
        yield file


def _pack(folder: Path, names: Iterable[str], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            try:
                _add(tar, folder / name, name)
            except FileNotFoundError:
                continue


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    found = path.lstat()
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(found.st_mode), found.st_mtime
    if stat.S_ISREG(found.st_mode):
        with os.fdopen(os.open(path, _READ), "rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            try:
                return tar.addfile(member, file)
            except OSError as error:
                raise error if error.errno else _Changed from None
    if stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
    else:
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
    tar.addfile(member)


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
