"""Getting into a host: its key is checked, then keys of ours are tried; and what failed, in a line."""

from __future__ import annotations

import logging
import os
import re
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paramiko import MissingHostKeyPolicy, PKey, SSHConfig, Transport
from paramiko.agent import AgentSSH
from paramiko.auth_strategy import AuthStrategy, InMemoryPrivateKey
from paramiko.ssh_exception import (
    AuthenticationException,
    BadAuthenticationType,
    ChannelException,
    NoValidConnectionsError,
    PasswordRequiredException,
    SSHException,
)

from sweepfw.errors import UnreachableError
from sweepfw.shell import faults
from sweepfw.shell.access import Access
from sweepfw.shell.host_keys import Entry, HostKey, UnknownKeyError, add_key, changed, judge
from sweepfw.shell.route import Hop

# It writes what goes wrong to standard error, tracebacks and all, unless somebody else takes it.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# What a key of this type is called where the two sides agree on one.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


class KeyCheck(MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    """Asked for every key that a host shows, before anything is sent to it."""

    def __init__(self, hop: Hop, access: Access, entries: Sequence[Entry]) -> None:
        self._hop, self._access, self._entries = hop, access, entries

    def missing_host_key(self, client: object, hostname: str, key: Any) -> None:
        shown = HostKey(key.get_name(), key.asbytes())
        verdict = judge(self._entries, shown)
        if verdict == "known":
            return
        hop = self._hop
        if verdict != "unknown":
            raise changed(hop.name, self._entries, shown, verdict)
        trust = self._access.trust
        if not any(shown.fingerprint in trust.get(name, ()) for name in (hop.name, hop.target, hop.address)):
            raise UnknownKeyError(hop.name, hop.key_name, shown)
        add_key(self._access.known_hosts, hop.key_name, shown)


def transport_for(types: Sequence[str]) -> Callable[..., Any]:
    """Makes connections that ask the host for a key of these types first, so that a known one is shown."""
    wanted = [name for type in types for name in _ALGORITHMS.get(type, (type,))]

    def make(sock: Any, **options: Any) -> Any:
        transport = Transport(sock, **options)
        security = transport.get_security_options()
        usual = list(security.key_types)
        first = [name for name in wanted if name in usual]
        security.key_types = [*first, *(name for name in usual if name not in first)]
        return transport

    return make


class Login(AuthStrategy):  # type: ignore[misc]  # paramiko has no types
    """Tries keys in OpenSSH's order: an agent's that the configuration names, its others, then files."""

    def __init__(self, hop: Hop) -> None:
        super().__init__(ssh_config=SSHConfig())
        self._hop = hop
        self.tried = 0
        self.locked: list[str] = []  # files with a passphrase, whose key no agent holds
        self.methods: list[str] = []  # what the host takes, where it said so

    def get_sources(self) -> Iterator[Any]:
        files = [Path(file) for file in self._hop.identities if Path(file).is_file()]
        named = [blob for file in files if (blob := _public(file)) is not None]
        held = {key.asbytes(): key for key in _agent_keys(self._hop.agent)}
        order = [blob for blob in named if blob in held]
        if not self._hop.only_identities:
            order += [blob for blob in held if blob not in order]
        for blob in order:
            yield self._source(held[blob])
        for file in files:
            if _public(file) not in order and (key := self._load(file)) is not None:
                yield self._source(key)

    def _source(self, key: Any) -> Any:
        self.tried += 1
        return InMemoryPrivateKey(self._hop.user, key)

    def _load(self, file: Path) -> Any:
        try:
            return PKey.from_path(file)
        except (PasswordRequiredException, TypeError):  # which cryptography raises for a passphrase
            self.locked.append(str(file))
        except (SSHException, OSError, ValueError):
            pass  # a public key, or no key at all: ssh passes over it, too
        return None

    def authenticate(self, transport: Any) -> Any:
        try:
            return super().authenticate(transport)
        except AuthenticationException as error:
            for _, result in getattr(error, "result", ()):
                if isinstance(result, BadAuthenticationType):
                    self.methods = list(result.allowed_types)
            raise

    def check(self, transport: Any) -> None:
        """A host may want a second factor after the key."""
        if not transport.is_authenticated():
            raise UnreachableError(
                f"{self._hop.name}: wants more than a key for user {self._hop.user}; hosts of a deployment "
                "must let a key in alone"
            )


class _Agent(AgentSSH):  # type: ignore[misc]  # paramiko has no types
    """The agent at a socket. paramiko's own knows only the environment's."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(60)  # a person may have to touch a key
        connection.connect(path)
        self._connect(connection)


def _agent_keys(path: str | None) -> Sequence[Any]:
    """The keys of the agent, none where there is no agent."""
    path = path or os.environ.get("SSH_AUTH_SOCK") or "none"
    if path == "none":
        return ()
    try:
        keys: Sequence[Any] = _Agent(path).get_keys()
    except (OSError, SSHException):
        return ()
    return keys


def _public(file: Path) -> bytes | None:
    """The public half of a key file, as far as it lies beside it or is it."""
    for path in (file.with_name(file.name + ".pub"), file):
        try:
            words = path.read_text().split()
            if len(words) >= 2 and words[0].startswith(("ssh-", "ecdsa-", "sk-")):
                return b64decode(words[1], validate=True)
        except (OSError, ValueError):
            pass
    return None


def fault(hop: Hop, error: BaseException, jump: str | None, login: Login, seconds: float) -> UnreachableError:
    """Why this hop was not reached."""
    if isinstance(error, AuthenticationException):
        return faults.login_refused(hop.name, hop.user, login.tried, login.locked, login.methods)
    if isinstance(error, ChannelException):
        return faults.jump_refused(hop.name, jump or "before it", error.text)
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        return faults.unknown_name(hop.name, hop.address)
    if isinstance(error, ConnectionRefusedError):
        return faults.refused(hop.name, hop.address, hop.port)
    # "No existing session" is how paramiko says that the greeting took too long.
    if isinstance(error, TimeoutError) or re.search("banner|Timeout|No existing session", str(error)):
        return faults.no_answer(hop.name, hop.address, hop.port, seconds)
    if isinstance(error, OSError) and error.strerror:
        return faults.no_way(hop.name, hop.address, error.strerror)
    return faults.other(hop.name, str(error) or type(error).__name__)
