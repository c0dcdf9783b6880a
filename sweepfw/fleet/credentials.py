"""A deployment's secrets: made once on the user's machine, kept there for their owner only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweepfw.core.command import Secret


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An SSH key in OpenSSH's own forms. `public` is `ssh-ed25519 AAAA…`, without a comment."""

    private: Secret
    public: str


@dataclass(frozen=True, slots=True)
class WorkerCredentials:
    """One worker host's: its token at the service, and the host key of the sshd in its container."""

    token: Secret
    host_key: KeyPair


@dataclass(frozen=True, slots=True)
class Credentials:
    """All of a deployment's. `outer` opens the forced command on worker hosts, `inner` the sshd behind it.

    `broker_salt` (8 hex digits) keeps the hashes of its passwords the same from one `up` to the next.
    """

    people: Secret  # the command line's token at the service
    broker_head: Secret
    broker_worker: Secret
    broker_flower: Secret
    broker_salt: str
    flower_password: Secret
    certificate: str  # the service's, PEM
    certificate_key: Secret  # PEM
    outer: KeyPair
    inner: KeyPair
    workers: Mapping[str, WorkerCredentials]  # by host


FLOWER_USER = "sweepfw"


def ensure_credentials(path: Path, workers: Collection[str]) -> Credentials:
    """Those in the file; made and saved where they are missing. A new host adds only its own; a host that
    is no longer named keeps its own in the file, and is left out of what is returned."""
    raise NotImplementedError


def load_credentials(path: Path) -> Credentials:
    """Those in the file. SweepError where there are none, or where others can read them."""
    raise NotImplementedError


def head_reader(path: Path) -> tuple[str, Secret]:
    """The service's certificate and the command line's token alone: all that `reach` needs."""
    raise NotImplementedError
