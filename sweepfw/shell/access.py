"""What may be used to reach hosts over SSH."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweepfw.core.addresses import check_target
from sweepfw.errors import SweepError

_FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}=?"


@dataclass(frozen=True, slots=True)
class Access:
    """How a deployment's hosts are reached.

    `known_hosts` is the deployment's own file of host keys, read beside the user's; what `trust` allows (a
    host's name -> fingerprints, `SHA256:…`) is added to it. `identity` is a key file, tried first. `config`
    is another file than the user's `~/.ssh/config`, as `ssh -F` takes it; $SWEEPFW_SSH_CONFIG names it.
    """

    known_hosts: Path
    identity: str | None = None
    config: str | None = field(default_factory=lambda: os.environ.get("SWEEPFW_SSH_CONFIG") or None)
    trust: Mapping[str, frozenset[str]] = field(default_factory=dict)
    timeout: float = 10  # for each step of connecting, in seconds


def parse_trust(options: Iterable[str]) -> dict[str, frozenset[str]]:
    """`HOST=SHA256:…`, given any number of times, as Access takes it."""
    trust: dict[str, frozenset[str]] = {}
    for option in options:
        host, _, fingerprint = option.partition("=")
        if not re.fullmatch(_FINGERPRINT, fingerprint):
            raise SweepError(
                f"--trust {option[:60]}: write HOST=SHA256:…, the fingerprint that `ssh-keygen -lf` prints"
            )
        check_target(host)
        trust[host] = trust.get(host, frozenset()) | {fingerprint.rstrip("=")}
    return trust
