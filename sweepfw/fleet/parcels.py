"""Files of a sweep on another machine: lists of them, and tar streams of them, which nobody here believes.

A host may be anybody's by the time that its files come home. So only what was asked for is taken, only files
and links are made, and nothing is written outside the folder that it belongs in.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from sweepfw import crash
from sweepfw.errors import StoppedError

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

_FIELDS = 5
# Below runs/: SWEEP/rest, SWEEP/trials/N/rest, SWEEP/trials/N/K/rest. Trials make names of any kind.
_PLACE = re.compile(
    r"(?P<sweep>[A-Za-z0-9][A-Za-z0-9_.-]{0,99})/"
    r"(?:trials/(?P<trial>[1-9]\d{0,8})/(?:(?P<attempt>[1-9]\d{0,8})/)?)?(?P<rest>.+)",
    re.DOTALL | re.ASCII,
)
_PART = ".sweepfw.part"  # what a file is called until it is whole
_CHUNK = 1 << 20
_LATEST = 1 << 40  # seconds: no file system knows of later

# Prints kind, size, time of change, path and link's target of all below the folders that are named before it,
# without working copies, and without checkpoints as folders, which are a running trial's.
FIND = (
    *("-regextype", "posix-extended"),
    *("-regex", r"\./[^/]+/trials/[0-9]+/(checkpoint|debug|[0-9]+/work)", "-prune", "-o"),
    *("(", "-type", "f", "-o", "-type", "l", ")", "-printf", r"%y\0%s\0%T@\0%p\0%l\0"),
)


class Place(NamedTuple):
    """What a path below `runs/` belongs to. `trial` 0: the sweep; `attempt` 0: the trial."""

    sweep: str
    trial: int
    attempt: int
    rest: str

    @property
    def output(self) -> bool:
        """Whether it is one of the attempt's output files."""
        return bool(self.attempt) and self.rest.startswith("files/")


class Item(NamedTuple):
    """A file or link below `runs/`. `changed` in whole seconds; `link`: what it leads to, "" for a file."""

    path: str
    size: int
    changed: int
    link: str = ""

    @property
    def place(self) -> Place:
        found = place(self.path)
        assert found is not None  # read_listing saw to it
        return found


def place(path: str) -> Place | None:
    """What the path belongs to; None for one that is none of ours, or leads elsewhere."""
    match = _PLACE.fullmatch(path)
    if match is None or any(part in ("", ".", "..") for part in path.split("/")):
        return None
    return Place(match["sweep"], int(match["trial"] or 0), int(match["attempt"] or 0), match["rest"])


def read_listing(data: bytes) -> list[Item]:
    """The items in what `find` printed. What is not ours, or a link that leads out of its folder, is left
    out; so is a last item that was cut off."""
    fields = data.decode("utf-8", "surrogateescape").split("\0")
    rows = zip(*(fields[at:-1:_FIELDS] for at in range(_FIELDS)), strict=False)
    return [item for row in rows if (item := _item(*row)) is not None]


def _item(kind: str, size: str, changed: str, path: str, link: str) -> Item | None:
    path = path.removeprefix("./")
    found = place(path)
    if found is None or not size.isdecimal() or not re.fullmatch(r"-?\d+(\.\d*)?", changed):
        return None
    if kind == "f":
        return Item(path, int(size), int(float(changed)))
    if kind == "l" and found.output and _stays(found.rest, link):
        return Item(path, 0, int(float(changed)), link)
    return None


def _stays(rest: str, link: str) -> bool:
    """Whether a link at `files/...` leads to something in the same `files/`."""
    leads = os.path.normpath(f"{os.path.dirname(rest)}/{link}")  # noqa: PTH120  # a text, no place of ours
    return bool(link) and not link.startswith("/") and leads.startswith("files/")


def _stays_output(name: str, link: str) -> bool:
    """The same of a path below `runs/`."""
    found = place(name)
    return found is not None and found.output and _stays(found.rest, link)


def lacking(items: Iterable[Item], home: Callable[[Item], Path]) -> list[Item]:
    """Those that are not at home as they are there: by size and time of change, or by what a link says."""
    return [item for item in items if not _same(item, home(item), timed=True)]


def missing(items: Iterable[Item], home: Callable[[Item], Path]) -> list[Item]:
    """The same for copies that a second host keeps, whose times are their own: by size alone."""
    return [item for item in items if not _same(item, home(item), timed=False)]


def _same(item: Item, path: Path, *, timed: bool) -> bool:
    try:
        found = path.lstat()
        if item.link:
            return stat.S_ISLNK(found.st_mode) and os.readlink(path) == item.link  # noqa: PTH115  # as it is
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != item.size:
        return False
    return not timed or int(found.st_mtime) == item.changed


class Received(NamedTuple):
    """What came of what was asked for. `refused`: why a file could not be put in its place."""

    paths: frozenset[str]
    refused: Mapping[str, str]


def unpack(
    stream: IO[bytes],
    wanted: Callable[[str], Path | None],
    root: Path,
    *,
    mode: int = 0o644,
    stays: Callable[[str, str], bool] = _stays_output,
    took: Callable[[int], object] = lambda count: None,
) -> Received:
    """Put the members that are wanted to where they belong, below `root`; leave out all others.

    A link is made where `stays` says of its name and its target that it leads to nowhere else. Each is there
    whole or not at all, with the time of change that it had. `took` hears of bytes as they come. StoppedError
    where the disk is full, or the stream is no tar or ends too early.
    """
    import tarfile

    unpacking = _Unpacking(root, mode, stays, took)
    try:
        source = cast("IO[bytes]", _Ending(stream))
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                # A sparse file of a few bytes could fill this disk; ours are written out in full.
                plain = member.isreg() and not member.issparse()
                if (plain or member.issym()) and (target := wanted(member.name)) is not None:
                    unpacking.take(tar, member, target)
    except (tarfile.TarError, EOFError) as error:
        raise StoppedError(f"files from a host ended too early ({error}); the same command goes on") from None
    return Received(frozenset(unpacking.paths), unpacking.refused)


def unpack_folder(stream: IO[bytes], folder: Path) -> Received:
    """The same for a whole folder, of which nobody knows what is in it: what stays inside it is taken."""

    def inside(name: str) -> Path | None:
        name = name.removeprefix("./")
        odd = name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/"))
        return None if odd else folder / name

    def stays(name: str, link: str) -> bool:
        leads = os.path.normpath(f"./{os.path.dirname(name)}/{link}")  # noqa: PTH120  # texts, no places of ours
        return bool(link) and not link.startswith("/") and leads.split("/")[0] != ".."

    folder.mkdir(parents=True, exist_ok=True)
    return unpack(stream, inside, folder, stays=stays)


class _Ending:
    """A stream that fails after its end: tarfile would skip there for as long as a header says."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._empty = stream, 0

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._empty += not data
        if self._empty > 2:
            raise EOFError("a file is shorter than it should be")
        return data


class _Unpacking:
    def __init__(
        self, root: Path, mode: int, stays: Callable[[str, str], bool], took: Callable[[int], object]
    ) -> None:
        self._root, self._mode, self._stays, self._took = root, mode, stays, took
        self.paths: set[str] = set()
        self.refused: dict[str, str] = {}

    def take(self, tar: TarFile, member: TarInfo, target: Path) -> None:
        try:
            self._put(tar, member, target)
            self.paths.add(member.name)
        except OSError as error:
            _stop_if_full(error, target)
            self.refused[member.name] = error.strerror or str(error)

    def _put(self, tar: TarFile, member: TarInfo, target: Path) -> None:
        make_folders(target.parent, self._root)
        part = target.with_name(_PART)
        part.unlink(missing_ok=True)
        if not member.issym():
            _write(tar, member, part, self._mode, self._took)
        elif self._stays(member.name, member.linkname):
            part.symlink_to(member.linkname)
        else:
            raise OSError(0, f"a link that leads out of its folder, to {member.linkname}")
        crash.point("down.received")
        part.rename(target)


def _write(tar: TarFile, member: TarInfo, part: Path, mode: int, took: Callable[[int], object]) -> None:
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, mode | member.mode & 0o100), "wb") as file:
            while data := source.read(_CHUNK):
                file.write(data)
                took(len(data))
        changed = min(max(member.mtime, 0), _LATEST)
        os.utime(part, (changed, changed))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folders(folder: Path, root: Path) -> None:
    """Make `folder`, which is `root` or below it; OSError where a part of the way is a link or a file."""
    way = root
    way.mkdir(parents=True, exist_ok=True)
    for name in folder.relative_to(root).parts:
        way /= name
        try:
            way.mkdir()
        except FileExistsError:
            if not stat.S_ISDIR(way.lstat().st_mode):
                raise OSError(0, f"{way} is no folder") from None


def _stop_if_full(error: OSError, target: Path) -> None:
    from errno import EDQUOT, ENOSPC

    if error.errno in (ENOSPC, EDQUOT):
        raise StoppedError(f"{target}: no room on this disk; make some, and type the same again") from None
