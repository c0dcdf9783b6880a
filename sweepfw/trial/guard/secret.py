"""What a trial is given and nobody is to see: variables, files in memory, and what is masked in its output.

Files lie 0400 in a folder of their own, 0700, where memory is the storage, made by who runs the attempt (a
keeper, or whoever builds an environment) and gone with it. The folder's name tells its maker: its process id
with its start time, and the namespace in which they mean something. So whatever was killed, the next one to
`sweep` knows whose folders are nobody's any more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from errno import ENODEV

from sweepfw.trial.guard.files import write_all
from sweepfw.trial.guard.removal import remove

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import Any, NoReturn

FOLDER = "SWEEPFW_SECRETS"
PIP_CONF, PIP_VARIABLE = "pip.conf", "PIP_CONFIG_FILE"
_PREFIX = "sweepfw-"
_IN_MEMORY = (b"tmpfs", b"ramfs")


class Hidden:
    """A task's secrets, ready for who starts its commands. `needles`: what is masked."""

    __slots__ = ("files", "needles", "variables")

    def __init__(
        self, variables: Mapping[str, bytes], files: Mapping[str, bytes], needles: Sequence[bytes]
    ) -> None:
        self.variables, self.files, self.needles = dict(variables), dict(files), list(needles)

    def message(self) -> dict[str, Any]:
        return {"variables": self.variables, "files": self.files, "needles": self.needles}

    def over(self, env: Mapping[str, str], folder: str) -> dict[str, str]:
        """The environment with these over it. `folder` holds the files."""
        found = {**env, **{name: os.fsdecode(value) for name, value in self.variables.items()}}
        if self.files:
            found[FOLDER] = folder
        if PIP_CONF in self.files:
            found.setdefault(PIP_VARIABLE, f"{folder}/{PIP_CONF}")
        return found

    def __repr__(self) -> str:
        return "Hidden(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")


class SecretFolder:
    """The files of one attempt, while it lasts."""

    def __init__(self) -> None:
        self.path = ""

    def make(self, files: Mapping[str, bytes]) -> str:
        """Its path; empty without files. OSError where no memory is to be had as a folder."""
        if files:
            self.path = f"{memory()}/{_PREFIX}{_maker()}-{os.urandom(8).hex()}"
            os.mkdir(self.path, 0o700)
            for name, value in files.items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(f"{self.path}/{name}", flags, 0o400)
                try:
                    write_all(fd, value)
                finally:
                    os.close(fd)
        return self.path

    def drop(self) -> None:
        """Remove them, with whatever the trial put beside them."""
        path, self.path = self.path, ""
        if path:
            _remove(path)


def memory() -> str:
    """The folder in which folders in memory can be made. OSError where there is none."""
    try:
        with open("/proc/self/mounts", "rb") as file:
            mounts = [line.split(b" ")[1:3] for line in file]
    except OSError:
        mounts = []
    for place in _places():
        path, best = os.fsencode(os.path.realpath(place)), (b"", b"")
        for point, kind in mounts:  # the longest that holds the folder; of two at one place, the later
            inside = path == point or path.startswith(point.rstrip(b"/") + b"/")
            if inside and len(point) >= len(best[0]):
                best = (point, kind)
        if best[1] in _IN_MEMORY and os.access(place, os.W_OK | os.X_OK):
            return place
    raise OSError(ENODEV, "no folder in memory for secrets (/dev/shm or $XDG_RUNTIME_DIR); give them as env")


def _places() -> list[str]:
    return [place for place in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")) if place.startswith("/")]  # noqa: S108  # meant


def sweep() -> None:
    """Remove this user's folders whose makers are gone."""
    for place in _places():
        try:
            names = [name for name in os.listdir(place) if name.startswith(_PREFIX)]
        except OSError:
            continue
        for name in names:
            if _is_left(f"{place}/{name}", name.split("-")):
                _remove(f"{place}/{name}")


def _is_left(path: str, parts: list[str]) -> bool:
    if len(parts) != 5 or parts[1] != _namespace() or not parts[2].isdecimal():
        return False
    try:
        stat = os.lstat(path)
    except OSError:
        return False
    ours = stat.st_uid == os.geteuid() and stat.st_mode & 0o170000 == 0o040000
    return ours and _started(parts[2]) != parts[3]


def _maker() -> str:
    return f"{_namespace()}-{os.getpid()}-{_started('self')}"


def _namespace() -> str:
    """Of process ids: other containers may share this storage, where our ids are somebody else's."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "0"


def _started(pid: str) -> str:
    """The start time of a process that lives, in the kernel's ticks; empty for others."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            told = os.fsdecode(file.read()).rpartition(")")[2].split()
        return "" if told[0] in "ZX" else told[19]
    except (OSError, IndexError):
        return ""


def _remove(path: str) -> None:
    try:
        remove(path)
    except OSError:
        pass  # of another user by now, or mounted on: nothing that we may do
