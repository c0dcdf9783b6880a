"""Removing what trials left. Nothing outside goes with it, whatever lies there and whoever still works in it.

Every step is taken from an open folder, never by a path: a folder that becomes a link to another one while
we are in it is left as the folder that it was, and of the link only itself is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from errno import ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV
from itertools import islice

from sweepfw.trial.guard.files import is_folder, permit

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH = 1000  # entries in memory at a time
_DEEPEST = 50  # folders open at a time; what lies deeper is moved up first
_ROUNDS = 20  # times that a folder is looked through, for one that still gets new files


def remove(path: str) -> None:
    """Remove a file, a symlink, or a folder with all that is in it. Gone already is well.

    Raises OSError where something is mounted below: that is not ours, and stays.
    """
    try:
        if is_folder(path):
            _remove_folder(path)
        else:
            _permitted(lambda: os.unlink(path), lambda: permit(os.path.dirname(path)))
    except FileNotFoundError:
        pass


def _remove_folder(path: str) -> None:
    top = _open(path)
    try:
        _Removal(top).empty(top, 0)
    finally:
        os.close(top)
    _permitted(lambda: os.rmdir(path), lambda: permit(os.path.dirname(path)))


class _Removal:
    def __init__(self, top: int) -> None:
        self._top, self._device = top, os.fstat(top).st_dev
        self._moved = 0

    def empty(self, folder: int, depth: int) -> None:
        """Remove all that is in an open folder."""
        rounds = 0
        while rounds < _ROUNDS:
            before = self._moved
            for name, is_dir in _entries(folder):
                if is_dir:
                    self._take(folder, name, depth)
                else:
                    _unlink(folder, name)
            if next(_entries(folder), None) is None:
                return
            # What was moved up lies in the first folder, which is looked through until nothing comes.
            rounds += before == self._moved

    def _take(self, folder: int, name: str, depth: int) -> None:
        """Remove a folder in an open one."""
        try:
            below = _open(name, folder)
        except OSError as error:
            if error.errno not in (ELOOP, ENOTDIR, ENOENT):
                raise
            return _unlink(folder, name)  # it became something else meanwhile
        try:
            if os.fstat(below).st_dev != self._device:
                raise OSError(EXDEV, "something is mounted there", name)
            if depth == _DEEPEST:
                return self._move_up(folder, name, below)
            self.empty(below, depth + 1)
        finally:
            os.close(below)
        _rmdir(folder, name)

    def _move_up(self, folder: int, name: str, below: int) -> None:
        self._moved += 1
        higher = f".removed-{os.getpid()}-{self._moved}"

        def move() -> None:
            os.rename(name, higher, src_dir_fd=folder, dst_dir_fd=self._top)

        def permitted() -> None:
            for each in (folder, below, self._top):
                os.fchmod(each, 0o700)

        _permitted(move, permitted)


def _open(path: str, at: int | None = None) -> int:
    return _permitted(lambda: os.open(path, _FOLDER, dir_fd=at), lambda: permit(path, at))


def _entries(folder: int) -> Iterator[tuple[str, bool]]:
    """Names in an open folder, and whether each is a folder itself."""
    with os.scandir(folder) as entries:
        while batch := [(e.name, e.is_dir(follow_symlinks=False)) for e in islice(entries, _BATCH)]:
            yield from batch


def _unlink(folder: int, name: str) -> None:
    try:
        _permitted(lambda: os.unlink(name, dir_fd=folder), lambda: os.fchmod(folder, 0o700))
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        pass  # it became one just now: the next round sees it


def _rmdir(folder: int, name: str) -> None:
    try:
        _permitted(lambda: os.rmdir(name, dir_fd=folder), lambda: os.fchmod(folder, 0o700))
    except OSError as error:
        if error.errno not in (ENOENT, ENOTDIR, ENOTEMPTY):  # else somebody is at work there: the next round
            raise


def _permitted(act: Callable[[], T], permit: Callable[[], object]) -> T:
    """Do it, where need be after a permission is given that the trial took away."""
    try:
        return act()
    except PermissionError:
        permit()
        return act()
