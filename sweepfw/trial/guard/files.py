"""Files and folders, with few system calls and without the weight of shutil. Symlinks are never followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from errno import EBADF, EINVAL, ENOSYS, ENOTDIR, ENOTTY, EOPNOTSUPP, EPERM, EXDEV

from sweepfw import crash

_CHUNK = 1 << 20
_KIND, _FILE, _FOLDER = 0o170000, 0o100000, 0o040000  # of a mode
_FICLONE, _GETFLAGS, _SETFLAGS = 0x40049409, 0x80086601, 0x40086602
_TOPDIR = 0x20000
_NOT_HERE = {
    EXDEV,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EBADF,
    ENOTTY,
    EPERM,
}  # this file system can't; another way can
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_clones = True  # until a file system here said that it can't


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def open_plain(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. OSError for what else a trial may have put in its place: a link leads
    elsewhere, a pipe is waited for, a device has no end."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if os.fstat(fd).st_mode & _KIND != _FILE:
        os.close(fd)
        raise OSError(EINVAL, "no regular file", path)
    return fd


def write_file(path: str, data: bytes) -> None:
    """Write a file whole, by way of a neighbour and a rename: it is there complete or not at all."""
    part = path + ".part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)
    crash.point("keeper.draft")
    os.rename(part, path)


def copy_range(source: int, target: int, start: int, count: int) -> None:
    """Append `count` bytes from `start` on to what is written to `target`; fewer where the source ends."""
    try:
        while count and (copied := os.copy_file_range(source, target, min(count, 1 << 30), start)):
            start, count = start + copied, count - copied
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_HERE:
            raise
        while count and (data := os.pread(source, min(count, _CHUNK), start)):
            write_all(target, data)
            start, count = start + len(data), count - len(data)


def copy_file(source: str, target: str, mode: int, size: int) -> None:
    """Make `target` a new file with the same bytes, shared on disk where the file system can, but never
    the same file. Raises FileExistsError, and OSError where `source` is not `size` bytes long."""
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write = os.open(target, _NEW, mode)
        try:
            if not (_clones and size and _clone(read, write)):
                copy_range(read, write, 0, size + 1)
            if os.lseek(write, 0, os.SEEK_END) != size:
                raise OSError(EINVAL, "the stored file is not as long as it was", source)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _clone(read: int, write: int) -> bool:
    global _clones  # noqa: PLW0603  # what the kernel said once holds for this process
    try:
        from fcntl import ioctl

        ioctl(write, _FICLONE, read)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        _clones = False
    return _clones


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that is below a folder: path relative to it, and its lstat; a folder comes before its content.

    A folder that can't be read is made readable: it is our own copy. Raises OSError, also where the root is
    a symlink or something is mounted below it: that is not the trial's own.
    """
    device = _own_device(root)
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for entry in _entries(f"{root}/{prefix}"):
            path, stat = prefix + entry.name, entry.stat(follow_symlinks=False)
            yield path, stat
            if entry.is_dir(follow_symlinks=False):
                if stat.st_dev != device:
                    raise OSError(EXDEV, "something is mounted there", entry.path)
                waiting.append(path + "/")


def is_folder(path: str) -> bool:
    """Whether it is a folder itself, not a symlink to one."""
    try:
        return os.lstat(path).st_mode & _KIND == _FOLDER
    except OSError:
        return False


def _own_device(root: str) -> int:
    stat = os.lstat(root)
    if stat.st_mode & _KIND != _FOLDER:
        raise NotADirectoryError(ENOTDIR, "no folder", root)
    return stat.st_dev


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        permit(folder)
        with os.scandir(folder) as entries:
            return list(entries)


def permit(path: str, at: int | None = None) -> None:
    """Let us into a folder of ours. OSError where it is none, or a link."""
    if not hasattr(os, "O_PATH"):
        return os.chmod(path, 0o700, dir_fd=at, follow_symlinks=False)
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)  # what was opened so takes no fchmod
    finally:
        os.close(fd)


def spread(folder: str) -> None:
    """Ask ext4 to put the folders in this one far from one another, as it does at the top of a disk.

    Near one another, they share inodes that it searches one by one after deletes: creating a file then takes
    a millisecond instead of 30 microseconds. Other file systems refuse, and need it not.
    """
    try:
        from fcntl import ioctl

        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = int.from_bytes(ioctl(fd, _GETFLAGS, bytes(8)), sys.byteorder)
            ioctl(fd, _SETFLAGS, (flags | _TOPDIR).to_bytes(8, sys.byteorder))
        finally:
            os.close(fd)
    except OSError:
        pass


def measure(root: str, *, lenient: bool = False) -> tuple[int, int]:
    """How many files are below a folder, and their bytes; nothing where it is not there. `lenient`: as far
    as they can be seen."""
    count = size = 0
    try:
        for _, stat in walk(root):
            if stat.st_mode & _KIND != _FOLDER:
                count += 1
                size += stat.st_size
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        if not lenient:
            raise
    return count, size
