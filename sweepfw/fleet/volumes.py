"""Our state on a host, read from beside: also when the container that it belongs to stands still."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from sweepfw import crash
from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import DEPLOYMENT_LABEL, ROLE_LABEL
from sweepfw.errors import SweepError
from sweepfw.fleet.hosts import Beside
from sweepfw.fleet.parcels import FIND, Item, Received, read_listing, unpack
from sweepfw.trial.guard.files import write_all

if TYPE_CHECKING:
    from sweepfw.fleet.remains import Remains
    from sweepfw.shell.shell import Result, Shell

T = TypeVar("T")
_PLACE = "/state"
_REST = 1 << 20  # bytes after a tar's end that are waited for: tar fills its last record
_TAR = ("tar", "--null", "--hard-dereference", "--no-recursion", "--ignore-failed-read")
_TRIES = 3
_END = b"whole\0"
# find fails for what went away meanwhile, and lists the rest.
_LISTING = 'if [ -d runs ]; then cd runs || exit 3; find "$@"; fi; printf "whole\\0"'
_LEDGER = ("ledger.db", "ledger.db-wal")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of head or worker. `user` is its owner, as docker takes it; `image` has find and tar."""

    host: str
    shell: Shell
    name: str
    image: str
    user: str
    deployment: str  # uid

    def listing(self, sweeps: Collection[str] | None = None) -> list[Item]:
        """What lies below `runs/`, or of these sweeps; nothing of those that are not there. SweepError where
        the list is not whole: what is not on it would be taken for gone."""
        folders = ["."] if sweeps is None else [f"./{name}" for name in sorted(sweeps)]
        command = self.reader("sh", "-c", _LISTING, "sh", *folders, *FIND)
        for _ in range(_TRIES):
            found = io.BytesIO()
            done = self.shell.stream(command, None, found)
            # Seldom, docker ends well and hands on nothing of what the container printed.
            if done.code == 0 and found.getvalue().endswith(_END):
                return read_listing(found.getvalue().removesuffix(_END))
        raise self._failed("its files can't be listed", done)

    def fetch(
        self, wanted: Mapping[str, Path], root: Path, took: Callable[[int], object] = lambda count: None
    ) -> Received:
        """Bring these of `runs/` home: path there -> path here, below `root`. What is missing in the answer
        was not there any more."""
        if not wanted:
            return Received(frozenset(), {})
        return self._tar(
            ("-C", "runs"),
            "".join(f"{path}\0" for path in wanted),
            lambda s: unpack(s, wanted.get, root, took=took),
        )

    def fetch_ledger(self, folder: Path) -> Path:
        """A copy of the ledger in `folder`; only while nobody writes it. SweepError where there is none."""
        wanted = {name: folder / name for name in _LEDGER}
        received = self._tar(
            ("-C", ".sweepfw"), "\0".join([*_LEDGER, ""]), lambda s: unpack(s, wanted.get, folder, mode=0o600)
        )
        if "ledger.db" not in received.paths:
            raise SweepError(f"{self.host}: the volume {self.name} holds no ledger")
        return folder / "ledger.db"

    def fetch_snapshot(self, id: str, store: Path) -> None:
        """Bring a snapshot into the store, as far as it is not there. SweepError where the host lacks it."""
        from sweepfw.snapshot import manifest, transfer

        if manifest(store, id).exists():
            return
        done = self.shell.run(self.reader("cat", f".sweepfw/snapshots/{id}.json"))
        if done.code != 0:
            raise self._failed(f"snapshot {id} can't be read", done)
        if lacking := transfer.lacking(store, digests(done.out)):
            names = "".join(f"{digest[:2]}/{digest[2:]}\0" for digest in sorted(lacking))
            where = ("-C", ".sweepfw/snapshots/objects", "--transform=s,/,,")
            self._tar(where, names, lambda stream: transfer.unpack(store, stream))
        crash.point("down.snapshot")
        transfer.accept(store, id, done.out)

    def reader(self, *argv: str) -> Cmd:
        """A command in a container of its own that sees the volume, and can change nothing."""
        return cmd(
            *("docker", "run", "--rm", "-i", "--network", "none", "--read-only", "--pull", "never"),
            *(
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
                "--userns",
                "host",
                "--user",
                self.user,
            ),
            *("--label", f"{DEPLOYMENT_LABEL}={self.deployment}", "--label", f"{ROLE_LABEL}=reader"),
            *("-v", f"{self.name}:{_PLACE}:ro", "-w", _PLACE, "--entrypoint", argv[0]),
            *(self.image, *argv[1:]),
        )

    def _tar(self, options: tuple[str, ...], names: str, take: Callable[[IO[bytes]], T]) -> T:
        command = self.reader(*_TAR, *options, "-cf", "-", "--verbatim-files-from", "-T", "-")
        stdin = io.BytesIO(names.encode("utf-8", "surrogateescape"))
        done, taken = receive(self.shell, command, stdin, take)
        # 1: a file changed while it was read. 2: one was not there; who asked looks at what came.
        if done.code not in (0, 1, 2):
            raise self._failed("its files can't be read", done)
        return taken

    def _failed(self, what: str, done: Result) -> SweepError:
        said = done.err.decode(errors="replace").strip().splitlines()
        return SweepError(f"{self.host}: {what} ({said[-1] if said else f'exit code {done.code}'})")


def state_volume(uid: str, host: str, shell: Shell, remains: Remains, role: str) -> Volume | None:
    """The state of head or worker on a host, where there is one. SweepError where nothing can read it."""
    name, image = remains.state_volume(role), remains.image(role)
    if name is None:
        return None
    if image is None:
        raise SweepError(f"{host}: no image is left to read {name} with; `sweepfw infra up` makes one")
    return Volume(host, shell, name, image, remains.user, uid)


def digests(text: bytes) -> set[str]:
    """The contents that a snapshot's list names. SweepError where it is none."""
    import json

    try:
        return {str(row[3]) for row in json.loads(text)["files"] if row[1] == "file"}
    except (ValueError, KeyError, TypeError, IndexError):
        raise SweepError("a snapshot's list on the head is damaged") from None


def receive(
    shell: Shell, command: Cmd, stdin: IO[bytes] | None, take: Callable[[IO[bytes]], T]
) -> tuple[Result, T]:
    """Run the command and let `take` read what it prints, as it comes. The connection's failure counts
    before what `take` made of half a stream; else what `take` raises is raised."""
    reading, writing = os.pipe()
    enough = False

    def give(data: bytes) -> None:
        nonlocal enough
        try:
            write_all(writing, data)
        except BrokenPipeError:
            enough = True  # `take` reads no more, and tells why
            raise

    # A thread of its own, so that neither end of the pipe waits for the other for ever.
    taken = Beside(lambda: _take(take, reading))
    try:
        done = shell.stream(command, stdin, give)
    except Exception:
        if not enough:
            raise
        done = None
    finally:
        os.close(writing)
    found = taken.result()
    if done is None:
        raise SweepError("a host sent more than a tar; what came is there, and the rest is not wanted")
    return done, found


def _take(take: Callable[[IO[bytes]], T], reading: int) -> T:
    with os.fdopen(reading, "rb") as stream:
        taken = take(stream)
        stream.read(_REST)
        return taken
