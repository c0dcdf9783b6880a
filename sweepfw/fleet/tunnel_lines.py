"""The ssh that holds a worker's line to the head: through the forced command to the container's sshd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sweepfw.core.command import shown
from sweepfw.core.deployment import BROKER_PORT, SERVICE_PORT, SETTINGS, TUNNEL_ACCOUNT

OUTER_KEY, INNER_KEY = f"{SETTINGS}/outer", f"{SETTINGS}/inner"
KNOWN_HOSTS = f"{SETTINGS}/known_hosts"

# Nothing of the account's or the system's configuration counts, nobody is asked, only the pinned keys pass.
_STRICT = (
    *("-F", "none", "-T", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *(
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "UpdateHostKeys=no",
        "-o",
        f"UserKnownHostsFile={KNOWN_HOSTS}",
    ),
    *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "PreferredAuthentications=publickey"),
    *("-o", "ClearAllForwardings=no", "-o", "LogLevel=ERROR"),
)

# Names may be known to the head's host (from /etc/hosts, a VPN, mDNS) and not to its containers.
_CALL = 'at=$1 ip=$2; shift 2; getent ahosts "$at" >/dev/null 2>&1 || at=$ip; exec "$@" -- "$at"'


class End(NamedTuple):
    """A worker host as its head's host reaches it. `keys`: its host keys, `ssh-ed25519 AAAA...`. `ip`: what
    the address, if it is a name, is known by on the head's host."""

    address: str
    port: int
    user: str
    keys: tuple[str, ...]
    ip: str = ""


def arguments(host: str, end: End) -> tuple[str, ...]:
    """What the tunnel's ssh to this worker host is called with."""
    outer = ["ssh", *_STRICT, "-i", OUTER_KEY, "-o", "ConnectTimeout=10", "-o", f"HostKeyAlias={host}"]
    outer += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"]
    outer += ["-p", str(end.port), "-l", end.user]
    outer = ["sh", "-c", _CALL, "sh", end.address, end.ip, *outer] if end.ip else [*outer, "--", end.address]
    forwards = (
        *("-R", f"127.0.0.1:{BROKER_PORT}:rabbitmq:{BROKER_PORT}"),
        *("-R", f"127.0.0.1:{SERVICE_PORT}:head:{SERVICE_PORT}"),
    )
    return (
        *("-N", *_STRICT, "-i", INNER_KEY, "-o", f"HostKeyAlias={inner(host)}"),
        *("-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"),
        *("-o", f"ProxyCommand={shown(outer).replace('%', '%%')}", *forwards),
        *("-l", TUNNEL_ACCOUNT, "--", "worker"),
    )


def known_hosts(keys: Sequence[tuple[str, str]]) -> str:
    """Lines for (alias, key)."""
    return "".join(f"{alias} {key}\n" for alias, key in keys)


def inner(host: str) -> str:
    """The alias by which the sshd in the container of this host's worker is known."""
    return f"worker.{host}"


SSHD = f"""\
# The sshd in a worker's container, started for one connection by the forced command of the head's key.
HostKey {SETTINGS}/host_key
AuthorizedKeysFile {SETTINGS}/authorized_keys
AllowUsers {TUNNEL_ACCOUNT}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
PermitTTY no
PermitTunnel no
PermitUserRC no
X11Forwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
AllowTcpForwarding remote
GatewayPorts no
PermitListen 127.0.0.1:{BROKER_PORT} 127.0.0.1:{SERVICE_PORT}
MaxSessions 0
ClientAliveInterval 5
ClientAliveCountMax 2
LogLevel ERROR
"""

AUTHORIZED = (
    f'restrict,port-forwarding,permitlisten="127.0.0.1:{BROKER_PORT}",'
    f'permitlisten="127.0.0.1:{SERVICE_PORT}",command="/bin/false" '
)
