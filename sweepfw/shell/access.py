"""What may be used to reach hosts over SSH, and which hosts' names are fit to be used at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError

_TARGET = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?|\[?[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+\]?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,62}[$]?"


@dataclass(frozen=True, slots=True)
class Access:
    """How a deployment's hosts are reached.

    `known_hosts` is the deployment's own file of host keys, read beside the user's; what `trust` allows (a
    host's name -> fingerprints, `SHA256:…`) is added to it. `identity` is a key file, tried first. `config`
    is another file than the user's `~/.ssh/config`, as `ssh -F` takes it.
    """

    known_hosts: Path
    identity: str | None = None
    config: str | None = None
    trust: Mapping[str, frozenset[str]] = field(default_factory=dict)
    timeout: float = 10  # for each step of connecting, in seconds


def check_host(host: Host) -> None:
    """SweepError where name, user or port could be anything but that: an option, a command, two lines."""
    raise NotImplementedError


def parse_trust(options: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """`HOST=SHA256:…`, given any number of times, as Access takes it."""
    raise NotImplementedError


_ = (re, SweepError)
