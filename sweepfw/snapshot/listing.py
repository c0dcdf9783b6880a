"""What a snapshot of a project takes and what it leaves out, with the reason. Reads no file's content
but that of ignore files."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from errno import EINVAL, ENOENT, ENXIO
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from sweepfw.core.ignore import Rules, read_rules
from sweepfw.errors import SweepError

Kind: TypeAlias = Literal["file", "link", "dir"]

_BUILT_IN = read_rules("\n".join([".git", ".hg", ".svn", ".sweepfw", "__pycache__/", "/runs", ".env*"]))
_MOST_RULES = 1_000_000  # bytes of an ignore file
_KEYS = read_rules("\n".join(["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.ppk"]))


class Entry(NamedTuple):
    """One path of the project that the snapshot takes. Sizes in bytes; times in nanoseconds."""

    path: str  # relative to the project, with slashes; bytes that are no UTF-8 as surrogates
    kind: Kind
    mode: int = 0o644
    size: int = 0
    target: str = ""  # of a link
    stamp: tuple[int, int, int, int] = (0, 0, 0, 0)  # inode, size, mtime, ctime: equal means unchanged
    asked: bool = False  # a `!pattern` names it, so a private key is taken as well


class Listing(NamedTuple):
    """The paths taken, sorted, and those left out with the reason. A folder left out stands for all in it."""

    taken: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def files(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.taken if entry.kind == "file")

    @property
    def size(self) -> int:
        """Bytes of all files taken."""
        return sum(entry.size for entry in self.taken)


class _Layer(NamedTuple):
    """An ignore file that applies: to a path, held against it as `prefix + path[strip:]`."""

    source: str
    rules: Rules
    prefix: str = ""
    strip: int = 0

    def path(self, path: str) -> str:
        return self.prefix + path[self.strip :]


class _Folder(NamedTuple):
    """A folder that is to be walked, and what applies in it."""

    path: str  # "" or with a slash at the end
    git: tuple[_Layer, ...]  # outermost first
    ours: tuple[_Layer, ...]
    brought: bool = False  # a `!pattern` names it or a folder above: what .gitignore says does not count
    hidden: bool = False  # left out, but a `!pattern` may name something in it


@dataclass(slots=True)
class _Walk:
    root: Path
    taken: dict[str, Entry] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)

    def run(self) -> Listing:
        self.folders.append(_Folder("", _layers_above(self.root), ()))
        while self.folders:
            self.visit(self.folders.pop())
        taken = tuple(self.taken[path] for path in sorted(self.taken))
        return Listing(taken, tuple(sorted(self.left_out)))

    def visit(self, folder: _Folder) -> None:
        try:
            with os.scandir(self.root / folder.path) as entries:
                found = list(entries)
        except FileNotFoundError:
            return  # deleted while we looked
        except OSError as error:
            raise _unreadable(self.root, folder.path, error) from None
        names = {entry.name for entry in found}
        if folder.path and not folder.hidden and not folder.brought and names & {"pyvenv.cfg", "conda-meta"}:
            return self.leave(folder.path.rstrip("/"), "a virtual environment", folder, is_folder=True)
        if not folder.hidden:
            if folder.path:
                self.take(Entry(folder.path.rstrip("/"), "dir", 0o755))
            folder = _with_own_rules(folder, self.root, names)
        for entry in found:
            self.look(entry, folder)

    def look(self, entry: os.DirEntry[str], folder: _Folder) -> None:
        """Take one entry of a folder or leave it out."""
        path = folder.path + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        why, asked = _decide(path, is_folder, folder)
        if folder.hidden and not asked:
            if is_folder and _reached(path, folder):
                self.folders.append(_Folder(path + "/", folder.git, folder.ours, hidden=True))
        elif why:
            self.leave(path, why, folder, is_folder=is_folder)
        elif is_folder:
            brought = asked or folder.brought
            self.folders.append(_Folder(path + "/", folder.git, folder.ours, brought))
        elif not asked and entry.is_symlink() and (self.root / path / "pyvenv.cfg").exists():
            self.left_out.append((path, "a virtual environment"))
        else:
            self.look_closer(entry, path, asked)

    def look_closer(self, entry: os.DirEntry[str], path: str, asked: bool) -> None:
        target = ""
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = _target(self.root, path, asked)
        except OSError as error:
            if error.errno in (ENOENT, EINVAL):  # it went away meanwhile, or is no link any more
                return
            raise
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if stat.S_ISREG(status.st_mode):
            mode = 0o755 if status.st_mode & 0o100 else 0o644
            self.take(Entry(path, "file", mode, status.st_size, "", stamp, asked))
        elif stat.S_ISLNK(status.st_mode):
            self.take(Entry(path, "link", 0o777, 0, target, stamp, asked))
        else:
            self.left_out.append((path, "neither file, folder nor link"))

    def take(self, entry: Entry) -> None:
        self.taken[entry.path] = entry
        parent = entry.path.rpartition("/")[0]
        if parent and parent not in self.taken:  # brought back from a folder that is left out
            self.take(Entry(parent, "dir", 0o755))

    def leave(self, path: str, why: str, folder: _Folder, *, is_folder: bool) -> None:
        self.left_out.append((path, why))
        if is_folder and _reached(path, folder):
            self.folders.append(_Folder(path + "/", folder.git, folder.ours, hidden=True))


def walk(root: Path) -> Listing:
    """What a snapshot of `root` takes, before any content is looked at.

    Raises SweepError for a root that is no folder, an unreadable folder, or a link that leads out.
    """
    if not root.is_dir():
        raise SweepError(f"{root}: no such folder; a project is a folder with a project.yml")
    return _Walk(root.resolve()).run()


def _decide(path: str, is_folder: bool, folder: _Folder) -> tuple[str, bool]:
    """Why the path is left out ("": it is taken), and whether a `!pattern` names it."""
    for layer in reversed(folder.ours):
        if (rule := layer.rules.decide(layer.path(path), is_folder)) is not None:
            return ("", True) if rule.negated else (f"{layer.source}: {rule.text}", False)
    if _BUILT_IN.decide(path, is_folder):
        return "never taken", False
    if not is_folder and _KEYS.decide(path, False):
        return "may be a private key", False
    if not folder.brought:
        for layer in reversed(folder.git):
            if (rule := layer.rules.decide(layer.path(path), is_folder)) is not None:
                return ("" if rule.negated else f"{layer.source}: {rule.text}"), False
    return "", False


def _reached(path: str, folder: _Folder) -> bool:
    return any(layer.rules.reaches(layer.path(path)) for layer in folder.ours)


def _with_own_rules(folder: _Folder, root: Path, names: set[str]) -> _Folder:
    """The folder with the ignore files that lie in it."""
    git, ours = folder.git, folder.ours
    strip = len(folder.path)
    if ".gitignore" in names and (rules := _read(root / folder.path / ".gitignore")):
        git = (*git, _Layer(folder.path + ".gitignore", rules, strip=strip))
    if ".sweepfwignore" in names and (rules := _read(root / folder.path / ".sweepfwignore")):
        ours = (*ours, _Layer(folder.path + ".sweepfwignore", rules, strip=strip))
    return _Folder(folder.path, git, ours, folder.brought, folder.hidden)


def _layers_above(root: Path) -> tuple[_Layer, ...]:
    """The ignore files of the git repository that the project lies in, from its top down to the project."""
    top = repository(root)
    if top is None:
        return ()
    above = [folder for folder in reversed(root.parents) if folder.is_relative_to(top)]
    files = [
        (git_folder(top) / "info" / "exclude", top),
        *((folder / ".gitignore", folder) for folder in above),
    ]
    return tuple(
        _Layer(str(file), rules, _inside(root, folder))
        for file, folder in files
        if (rules := _read(file)) is not None
    )


def repository(root: Path) -> Path | None:
    """The top folder of the git repository that `root` lies in."""
    return next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)


def _inside(root: Path, folder: Path) -> str:
    return "" if root == folder else root.relative_to(folder).as_posix() + "/"


def git_folder(top: Path) -> Path:
    """The repository's `.git`; in a worktree or submodule that is a file which names the folder."""
    git = top / ".git"
    try:
        if git.is_file():
            git = top / git.read_text().removeprefix("gitdir:").strip()
            if (git / "commondir").is_file():
                git = git / (git / "commondir").read_text().strip()
    except (OSError, ValueError):
        pass
    return git


def _read(path: Path) -> Rules | None:
    try:
        # Somebody else's project may have a pipe or a device there.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            text = file.read(_MOST_RULES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == ENXIO:
            return None  # a socket
        raise SweepError(f"{path}: can't be read ({error.strerror}); make it readable or remove it") from None
    if len(text) > _MOST_RULES:
        raise SweepError(f"{path}: is larger than 1 MB, too large for a list of patterns; shorten it")
    return read_rules(text.decode(errors="surrogateescape"))


def _target(root: Path, path: str, asked: bool) -> str:
    """Where the copy of a link leads: inside the project relative to it, so that a copy stays in itself."""
    target = os.readlink(root / path)  # noqa: PTH115  # Path would drop a `./` or a slash at the end
    place = root / path
    leads = os.path.normpath(place.parent / target)  # not resolved: what it leads to need not be there
    if target.startswith("/") and not Path(leads).is_relative_to(root):
        leads = os.path.realpath(leads)  # the project may be known by a second path
    if Path(leads).is_relative_to(root):
        return os.path.relpath(leads, place.parent) if target.startswith("/") else target
    if asked:
        return leads
    raise SweepError(
        f"{root / path}: this link leads out of the project, to {leads}, which can't be frozen; "
        f"write {path} into .sweepfwignore to leave it out, or !{path} to keep it as a link"
    )


def _unreadable(root: Path, path: str, error: OSError) -> SweepError:
    return SweepError(
        f"{root / path}: can't be read ({error.strerror}); make it readable, or name it in .sweepfwignore"
    )
