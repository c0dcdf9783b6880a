"""The user's deployments: what this machine remembers of each, in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweepfw import crash
from sweepfw.config.private import read_private, write_private
from sweepfw.config.workspace import Workspace, state_home
from sweepfw.core.deployment import Deployment, Host
from sweepfw.errors import BusyError, SweepError

_FILE = "deployment.json"
_GONE = ".gone-"  # begins the name of a folder that is being deleted
_DRAFT = ".draft-"  # that of one of `drafting`
_FORM = 1  # of deployment.json


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What was learned of a host, for when it is not asked. `folder` is the deployment's, there, absolute."""

    machine_id: str
    architecture: str
    user: str
    uid: int
    gid: int
    home: str
    folder: str
    host_keys: Sequence[str] = ()  # of its sshd, "ssh-ed25519 AAAA..."


@dataclass(slots=True)
class DeploymentState:
    """A deployment in the user's state folder; change the fields and `save`.

    `deployment` is what the last `up` worked towards; `complete` whether it got there. `former` are hosts
    that may still hold something of ours though the deployment has them no longer. `head_addresses` are the
    containers' addresses on the head's docker network (`head`, `flower`), as last seen.
    """

    folder: Path
    uid: str
    deployment: Deployment
    complete: bool = False
    former: tuple[Host, ...] = ()
    records: dict[str, HostRecord] = field(default_factory=dict)  # host's name -> record
    head_addresses: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.deployment.name

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials.json"

    @classmethod
    def load(cls, name: str) -> DeploymentState:
        """SweepError where there is none of this name, or where others can read or write its files."""
        folder = _root() / name
        if name not in names():
            raise SweepError(f"no deployment {name[:60]!r} is known here; {_listed(names())}")
        path = folder / _FILE
        try:
            return _from_json(folder, json.loads(read_private(path)))
        except (ValueError, KeyError, TypeError) as error:
            raise SweepError(
                f"{path}: is not as sweepfw wrote it ({error}); restore it, or remove the folder once the "
                "hosts are cleaned"
            ) from None

    @classmethod
    def create(cls, deployment: Deployment) -> DeploymentState:
        """A new one, with a fresh uid, saved. SweepError where there is one of this name."""
        from secrets import token_hex

        if deployment.name in names():
            raise SweepError(f"there is a deployment {deployment.name!r} already; choose another --name")
        state = cls(_root() / deployment.name, token_hex(16), deployment)
        state.save()
        return state

    def save(self) -> None:
        """As a whole or not at all."""
        data = json.dumps(_to_json(self), indent=1) + "\n"
        write_private(self.folder / _FILE, data.encode())

    def remove(self) -> None:
        """Forget it, keys and all. Killed meanwhile, the next look at deployments does the rest."""
        from shutil import rmtree

        gone = self.folder.with_name(f"{_GONE}{self.name}")
        rmtree(gone, ignore_errors=True)
        self.folder.rename(gone)  # half a deployment is none
        crash.point("down.forgotten")
        rmtree(gone, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by `up` and `down`. BusyError where another holds it."""
        try:
            fd = _hold(self.folder)
        except BlockingIOError:
            raise BusyError(
                f"another `sweepfw infra` changes the deployment {self.name!r} just now; try again later"
            ) from None
        try:
            yield
        finally:
            os.close(fd)


@contextmanager
def drafting() -> Iterator[Path]:
    """A folder for keys and all of a deployment that there is not yet; it goes without a trace. What somebody
    left who was killed goes now."""
    from shutil import rmtree
    from tempfile import mkdtemp

    root = _root()
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    alone = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)  # so that none goes before it is held
        for left in root.glob(f"{_DRAFT}*"):
            with suppress(BlockingIOError):
                os.close(_hold(left))
                rmtree(left, ignore_errors=True)
        folder = Path(mkdtemp(prefix=_DRAFT, dir=root))
        held = _hold(folder)
    finally:
        os.close(alone)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        os.close(held)
        with suppress(OSError):  # a deployment came, or another draft is there
            for folder in made:
                folder.rmdir()


def _hold(folder: Path) -> int:
    """BlockingIOError where another process holds it."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def names() -> list[str]:
    """Names of the user's deployments, sorted. Costs next to nothing."""
    try:
        with os.scandir(_root()) as entries:
            found = [entry.name for entry in entries]
    except OSError:  # none was ever made
        return []
    if gone := [name for name in found if name.startswith(_GONE)]:
        from shutil import rmtree

        for name in gone:
            found.remove(name)
            rmtree(_root() / name, ignore_errors=True)
    return sorted(name for name in found if os.path.isfile(_root() / name / _FILE))  # noqa: PTH113  # never raises


def choose(on: str | None, here: bool, workspace: Workspace) -> DeploymentState | None:
    """The deployment that a command means: `on`, else the one that the workspace's config.yml names, else
    the user's only one; None where there is none, or where `here` says this machine. SweepError where there
    are several, with their names."""
    if here:
        if on is not None:
            raise SweepError("--here and --on exclude each other: this machine, or a deployment")
        return None
    known = names()
    if on is not None:
        return DeploymentState.load(on)
    if not known:
        return None
    named = _named(workspace)
    if named is None and len(known) > 1:
        raise SweepError(
            f"several deployments are up: {', '.join(known)}; choose with --on, or --here for none"
        )
    if named is not None and named not in known:
        raise SweepError(
            f"config.yml names the deployment {named!r}, which is not up; `sweepfw infra up` brings it up, "
            f"--here runs on this machine; {_listed(known)}"
        )
    return DeploymentState.load(named or known[0])


def _named(workspace: Workspace) -> str | None:
    if not os.path.lexists(workspace.root / "config.yml"):
        return None
    from sweepfw.config.deployment import FILE, named_in

    return named_in(workspace.root / FILE)


def _root() -> Path:
    return state_home() / "deployments"


def _listed(known: list[str]) -> str:
    return f"known: {', '.join(known)}" if known else "`sweepfw infra up` makes one"


def _to_json(state: DeploymentState) -> dict[str, Any]:
    from dataclasses import asdict

    whole = asdict(state)
    del whole["folder"]
    return {"form": _FORM, **whole}


def _from_json(folder: Path, data: dict[str, Any]) -> DeploymentState:
    from sweepfw.config.deployment_json import from_json, host_from_json

    if data["form"] != _FORM:
        raise ValueError(f"form {data['form']}, not {_FORM}: another version's")
    return DeploymentState(
        folder=folder,
        uid=data["uid"],
        deployment=from_json(data["deployment"]),
        complete=data["complete"],
        former=tuple(host_from_json(each) for each in data["former"]),
        records={name: HostRecord(**_tuples(each)) for name, each in data["records"].items()},
        head_addresses=data["head_addresses"],
    )


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
