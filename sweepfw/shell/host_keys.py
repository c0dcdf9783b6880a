"""Which keys hosts are known by: known_hosts files as OpenSSH reads them, and what a shown key means."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from sweepfw.errors import UnreachableError


class HostKey(NamedTuple):
    """A public key: `type` as in `ssh-ed25519`, `blob` its bytes."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it: `SHA256:…`."""
        raise NotImplementedError


class UnknownKeyError(UnreachableError):
    """A host showed a key that nobody vouched for. Nothing was sent. `accept` makes it known.

    `host` is the host (or jump host) as the user named it; `name` what known_hosts calls it.
    """

    def __init__(self, host: str, name: str, key: HostKey) -> None:
        self.host, self.name, self.key = host, name, key
        super().__init__(host)

    def accept(self, known_hosts: Path) -> None:
        """Add the key to the deployment's file: the person said yes."""
        raise NotImplementedError


class ChangedKeyError(UnreachableError):
    """A host showed another key than the known one. Nothing was sent, and nobody is asked."""


def judge(
    known: list[tuple[str, str]], name: str, key: HostKey
) -> Literal["known", "unknown", "changed", "revoked"]:
    raise NotImplementedError
