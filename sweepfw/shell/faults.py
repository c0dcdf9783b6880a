"""Why a host can't be reached, each in one line with what to do; for what Python says and what ssh says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sweepfw.errors import UnreachableError
from sweepfw.shell.host_keys import ChangedKeyError


def unknown_name(host: str, address: str) -> UnreachableError:
    return UnreachableError(
        f"{host}: no machine is known by the name {address}; check spelling, ~/.ssh/config and network"
    )


def refused(host: str, address: str, port: int) -> UnreachableError:
    return UnreachableError(
        f"{host}: {address} refuses connections at port {port}; is sshd running there, and at this port?"
    )


def no_way(host: str, address: str, why: str) -> UnreachableError:
    return UnreachableError(
        f"{host}: there is no way to {address} ({why}); check your network, a VPN, or whether it is on"
    )


def no_answer(host: str, address: str, port: int, seconds: float) -> UnreachableError:
    return UnreachableError(
        f"{host}: no answer from {address}, port {port}, within {seconds:g} s; is it on, and does a firewall "
        "let you through?"
    )


def login_refused(
    host: str, user: str, tried: int = 0, locked: Sequence[str] = (), methods: Sequence[str] = ()
) -> UnreachableError:
    """`locked`: key files that have a passphrase and that no agent holds; `methods`: what the host takes."""
    if locked:
        return UnreachableError(
            f"{host}: the key {locked[0]} has a passphrase, and no agent holds it; `ssh-add {locked[0]}` and "
            "try again"
        )
    if methods and "publickey" not in methods:
        return UnreachableError(
            f"{host}: takes no keys for user {user} (but {', '.join(methods)}); allow keys in its sshd_config"
        )
    keys = f"none of {tried} keys" if tried else "no key at hand"
    return UnreachableError(
        f"{host}: login as {user} was refused, {keys} opens it; `ssh-copy-id {user}@{host}`, or name a key "
        "with -i or a user with user@host"
    )


def lost(host: str) -> UnreachableError:
    return UnreachableError(f"{host}: the connection is lost; check the network and try again")


def jump_refused(host: str, jump: str, why: str) -> UnreachableError:
    return UnreachableError(
        f"{host}: the jump host {jump} does not lead there ({why}); can it reach it, and may it forward?"
    )


def other(host: str, why: str) -> UnreachableError:
    said = " ".join(why.split())[:300] or "no reason was given"
    return UnreachableError(f"{host}: no SSH connection: {said}; try `ssh {host}`")


# -- what OpenSSH's client says --------------------------------------------------------------------------

_CHANGED = r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed"
_OFFENDING = r"(?:Offending|Offending \S+) key in (\S+)"
_NOISE = (
    r"^(@+|Authenticated |Transferred: |Bytes per second|debug\d|Warning: Permanently|kex_exchange_id"
    r"|Connection closed by (UNKNOWN|\S+ port)|banner exchange)"
)


def from_ssh(host: str, said: str) -> UnreachableError:
    """What the standard error of an `ssh` that failed means."""
    if re.search(_CHANGED, said):
        where = re.search(_OFFENDING, said)
        place = f", another stands in {where[1]}" if where else ""
        return ChangedKeyError(
            f"{host}: ITS KEY HAS CHANGED{place}; somebody may sit between, so nothing was sent; if the "
            "machine was set up anew, delete that line"
        )
    if re.search("is marked as revoked|REVOKED", said):
        return ChangedKeyError(f"{host}: its key is marked as revoked; nothing was sent to it")
    if re.search(r"host key is known for|Host key verification failed", said):
        return UnreachableError(
            f"{host}: its key, or a jump host's, is not known any more; `sweepfw infra up` shows it and asks"
        )
    return _from_line(host, said)


def _from_line(host: str, said: str) -> UnreachableError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((each for each in reversed(lines) if not re.match(_NOISE, each)), lines[-1] if lines else "")
    patterns: tuple[tuple[str, Callable[[re.Match[str]], UnreachableError]], ...] = (
        (
            r"(\S+?)@(\S+): Permission denied \((.*)\)",
            lambda m: login_refused(host, m[1], 0, (), m[3].split(",")),
        ),
        (r"Could not resolve hostname (\S+?):", lambda m: unknown_name(host, m[1])),
        (r"connect to host (\S+) port (\d+): Connection refused", lambda m: refused(host, m[1], int(m[2]))),
        (r"connect to host (\S+) port (\d+): .*timed out", lambda m: no_answer(host, m[1], int(m[2]), 10)),
        (r"connect to host (\S+) port \d+: (.*)", lambda m: no_way(host, m[1], m[2])),
        (r"Connection timed out|Timeout, server", lambda m: lost(host)),
    )
    for pattern, fault in patterns:
        if (match := re.search(pattern, said)) is not None:
            return fault(match)
    return other(host, line)
