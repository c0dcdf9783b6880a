"""Names of hosts and users that are fit for a command line. What is not could be an option, or a command."""

from __future__ import annotations

import re

from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError

# A name or an alias, or an IPv6 address.
_TARGET = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,32})?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,62}[$]?"


def check_host(host: Host) -> None:
    """SweepError where target, user or port could be anything but that: an option, a command, two lines."""
    check_target(host.target)
    if host.user is not None:
        check_user(host.user)
    if host.port is not None:
        check_port(host.target, host.port)


def check_target(target: str) -> None:
    if not re.fullmatch(_TARGET, target):
        raise SweepError(
            f"{_shown(target)} is no host's name; write an address, or an alias of ~/.ssh/config, with "
            "letters, digits, '.', '-' and '_'"
        )


def check_user(user: str) -> None:
    if not re.fullmatch(_USER, user):
        raise SweepError(
            f"{_shown(user)} is no user's name; write one with letters, digits, '.', '-' and '_'"
        )


def check_port(target: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise SweepError(f"{target}: {port} is not a port; ports go from 1 to 65535")


def split_host(text: str) -> tuple[str, str | None, int | None]:
    """`[user@]host[:port]` as host, user and port, each checked. IPv6 has brackets before a port."""
    user, at, rest = text.strip().rpartition("@")
    match = re.fullmatch(r"\[([^\]]*)\](?::([0-9]{1,7}))?", rest)
    if match is None and rest.count(":") == 1:
        match = re.fullmatch(r"([^:]*):([0-9]{1,7})", rest)
        if match is None:
            raise SweepError(f"{_shown(text)} is no host; write [user@]host[:port]")
    target, port = (match[1], match[2]) if match else (rest, None)
    check_target(target)
    if at:
        check_user(user)
    if port is not None:
        check_port(target, int(port))
    return target, user or None, int(port) if port else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
