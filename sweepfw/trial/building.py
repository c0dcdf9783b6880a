"""Virtual environments, one for each content of a requirements file, built once.

envs/<key>/              the environment; `ready.json` in it says that it is whole, and what is in it
envs/<key>.project/      the files of the project that were needed to build it
envs/<key>.log           what the builders printed
envs/<key>.lock          held by who builds it (alone) and by who uses it (shared)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path

from sweepfw import crash
from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.command import cmd
from sweepfw.errors import SweepError
from sweepfw.shell.local import LocalShell
from sweepfw.trial.builder import Builder, SetupFailed
from sweepfw.trial.guard.secret import Hidden
from sweepfw.trial.interpreter import Resolved, activated, inherit
from sweepfw.trial.requirements import Requirements, read_requirements
from sweepfw.trial.secrets import revealed

READY = "ready.json"
# Everything that decides which packages an interpreter can use.
_ASK = "import sys, platform as p; print(p.python_implementation(), p.python_version(), sys.abiflags)"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An environment to be: its requirements, the snapshot with the files, its lock if it had one."""

    requirements: Requirements
    store: Path
    snapshot: str
    python: str
    version: str
    lock: str | None

    def key(self, *, locked: bool) -> str:
        project = self.snapshot if self.requirements.local else ""
        parts = [
            self.requirements.texts,
            self.version,
            platform.platform(),
            project,
            self.lock if locked else "",
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def build(
    requirements: str,
    place: Workspace,
    snapshot: str,
    env: Mapping[str, str],
    *,
    lock: str | None,
    say: Callable[[str], None],
    cancelled: Callable[[], bool],
    secrets: Hidden | None = None,
) -> Resolved:
    """The environment of a requirements file; made now if no run made it before.

    Two runs that want it at once build it once. One that was left half-built is built again. Secrets are no
    part of its key: with others the same packages are expected.
    """
    python = inherit(env).python
    store = place.snapshots
    needed = read_requirements(requirements, lambda path: snapshots.read(store, snapshot, path))
    wanted = _Wanted(needed, store, snapshot, python, _version(python, env), lock)
    folder = _place(place.environments, wanted)
    place.environments.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _open_lock(folder) as descriptor:
        _wait(descriptor, folder, say, cancelled)
        ready = _ready(folder)
        if ready is None:
            with revealed(secrets, env) as ours:
                log, needles = _suffixed(folder, ".log"), secrets.needles if secrets else ()
                ready = _make(folder, wanted, Builder(ours, log, descriptor, say, cancelled, needles))
        os.utime(folder / READY)  # when it was last used
        flock(descriptor, LOCK_SH)
        held = os.dup(descriptor)
    told = f"{requirements} with {wanted.version.strip()}"
    return Resolved(f"{folder}/bin/python", activated(folder, env), ready["lock"], told, held)


def collect(
    environments: Path, *, age: float = 0, dry: bool = False, clock: Callable[[], float] = time.time
) -> int:
    """Remove the environments that nobody uses now and that were not used for `age` seconds; bytes freed.

    `dry`: remove nothing, only tell.
    """
    freed = 0
    for lock in sorted(environments.glob("*.lock")):
        folder = lock.with_suffix("")
        with _open_lock(folder) as descriptor:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                continue
            mark = folder / READY
            if mark.is_file() and mark.stat().st_mtime > clock() - age:
                continue
            freed += _size(folder) + _size(_suffixed(folder, ".project"))
            if dry:
                continue
            _clear(folder)
            _suffixed(folder, ".log").unlink(missing_ok=True)  # the lock stays: another may have it open
    return freed


def _place(environments: Path, wanted: _Wanted) -> Path:
    """Where it lies: shared by all who want this content, but for sweeps locked to other versions."""
    shared = environments / wanted.key(locked=False)
    if wanted.lock is None:
        return shared
    ready = _ready(shared)
    return shared if ready and ready["lock"] == wanted.lock else environments / wanted.key(locked=True)


def _make(folder: Path, wanted: _Wanted, builder: Builder) -> dict[str, str]:
    try:
        _clear(folder)
        project = _suffixed(folder, ".project")
        if wanted.requirements.local:
            snapshots.checkout(wanted.store, wanted.snapshot, project)
        else:
            _write_texts(project, wanted.requirements)
        constraints = None
        if wanted.lock:
            constraints = project / ".sweepfw-lock.txt"
            constraints.write_text(_constraints(wanted.lock))
        lock = builder.make(wanted.python, folder, project, wanted.requirements.path, constraints)
        ready = {"lock": lock, "python": wanted.version.strip()}
        crash.point("environment.built")
        (folder / f"{READY}.tmp").write_text(json.dumps(ready))
        (folder / f"{READY}.tmp").rename(folder / READY)
        crash.point("environment.ready")
        if not wanted.requirements.local:  # else packages may lie in there
            shutil.rmtree(project)
    except OSError as error:
        raise SetupFailed(f"{folder}: can't be built ({error.strerror})", builder.log) from None
    return ready


def _clear(folder: Path) -> None:
    for each in (folder, _suffixed(folder, ".project")):
        shutil.rmtree(each, ignore_errors=not each.exists())


def _write_texts(project: Path, requirements: Requirements) -> None:
    for path, text in requirements.texts:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, errors="surrogateescape")


def _constraints(lock: str) -> str:
    """The lock's versions; what was installed from a path or an address is named by the requirements."""
    return "\n".join(line for line in lock.splitlines() if "==" in line and not line.startswith("-")) + "\n"


def _ready(folder: Path) -> dict[str, str] | None:
    try:
        ready: dict[str, str] = json.loads((folder / READY).read_bytes())
    except (OSError, ValueError):
        return None
    return ready if os.access(folder / "bin/python", os.X_OK) else None  # its interpreter may be gone


def _version(python: str, env: Mapping[str, str]) -> str:
    result = LocalShell(env).run(cmd(python, "-I", "-S", "-c", _ASK), timeout=60)
    if result.code:
        raise SweepError(
            f"environment: {python} does not work: {result.err.decode(errors='replace').strip()[-200:]}"
        )
    return result.text


def _wait(descriptor: int, folder: Path, say: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
    """Have the environment for us, so that it can be built; wait for another run that builds it.

    Others that only use it are no reason to wait: then it is ready.
    """
    told = False
    while not cancelled():
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            return
        except BlockingIOError:
            pass
        with suppress(BlockingIOError):
            flock(descriptor, LOCK_SH | LOCK_NB)
            if _ready(folder):
                return
            flock(descriptor, LOCK_UN)
        if not told:
            say("waiting for another run that builds this environment")
        told = True
        time.sleep(0.1)
    raise SetupFailed("environment: cancelled while another run built it", _suffixed(folder, ".log"))


@contextmanager
def _open_lock(folder: Path) -> Iterator[int]:
    descriptor = os.open(_suffixed(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _suffixed(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
