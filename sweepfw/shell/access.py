"""What may be used to reach hosts over SSH, and which hosts' names are fit to be used at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError

# A name or an alias, or an IPv6 address. Never an option, never anything that a shell would act on.
_TARGET = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,32})?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,62}[$]?"
_FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}=?"


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
    """SweepError where target, user or port could be anything but that: an option, a command, two lines."""
    check_target(host.target)
    if host.user is not None:
        check_user(host.user)
    if host.port is not None and not 1 <= host.port <= 65535:
        raise SweepError(f"{host.target}: {host.port} is not a port; ports go from 1 to 65535")


def check_target(target: str) -> None:
    if not re.fullmatch(_TARGET, target):
        raise SweepError(
            f"{_shown(target)}: is not a host's name; write an address, or an alias of ~/.ssh/config, with "
            "letters, digits, '.', '-' and '_'"
        )


def check_user(user: str) -> None:
    if not re.fullmatch(_USER, user):
        raise SweepError(
            f"{_shown(user)}: is not a user's name; write one with letters, digits, '.', '-' and '_'"
        )


def parse_trust(options: Iterable[str]) -> dict[str, frozenset[str]]:
    """`HOST=SHA256:…`, given any number of times, as Access takes it."""
    trust: dict[str, frozenset[str]] = {}
    for option in options:
        host, _, fingerprint = option.partition("=")
        if not re.fullmatch(_FINGERPRINT, fingerprint):
            raise SweepError(
                f"--trust {_shown(option)}: write HOST=SHA256:…, the fingerprint that `ssh-keygen -lf` prints"
            )
        check_target(host)
        trust[host] = trust.get(host, frozenset()) | {fingerprint.rstrip("=")}
    return trust


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
