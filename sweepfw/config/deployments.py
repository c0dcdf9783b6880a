"""The user's deployments: what this machine remembers of each, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import Deployment, Host


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
        raise NotImplementedError

    @classmethod
    def create(cls, deployment: Deployment) -> DeploymentState:
        """A new one, with a fresh uid, saved. SweepError where there is one of this name."""
        raise NotImplementedError

    def save(self) -> None:
        """As a whole or not at all."""
        raise NotImplementedError

    def remove(self) -> None:
        """Forget it, keys and all."""
        raise NotImplementedError

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by `up` and `down`. BusyError where another holds it."""
        raise NotImplementedError
        yield


def names() -> list[str]:
    """Names of the user's deployments, sorted. Costs next to nothing."""
    raise NotImplementedError


def choose(on: str | None, here: bool, workspace: Workspace) -> DeploymentState | None:
    """The deployment that a command means: `on`, else the one that the workspace's config.yml names, else
    the user's only one; None where there is none, or where `here` says this machine. SweepError where there
    are several, with their names."""
    raise NotImplementedError
