"""The way to a host as OpenSSH would take it: `ssh -G` knows aliases, ports, users, keys and jump hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sweepfw.core.addresses import check_host, check_target, check_user, split_host
from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError
from sweepfw.shell.access import Access
from sweepfw.shell.host_keys import lookup_name
from sweepfw.shell.shell import Shell

_MOST_JUMPS = 8
_PATIENCE = 60.0  # seconds for `ssh -G`, which connects to nobody

Options: TypeAlias = Mapping[str, Sequence[str]]  # what `ssh -G` says: a key may stand several times


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH server on the way. `name` is what the user calls it, `key_name` what known_hosts does.

    `target` is what ssh is asked for when it shall go there; `command` the user's own ProxyCommand, which is
    there on a first hop only.
    """

    name: str
    target: str
    address: str
    port: int
    user: str
    key_name: str
    identities: tuple[str, ...] = ()
    only_identities: bool = False  # of an agent's keys none but those of these files
    agent: str | None = None  # its socket, where it is another one than the environment's
    known_files: tuple[Path, ...] = ()  # the user's and the system's
    command: str | None = None
    asked: tuple[str, ...] = field(default=(), compare=False)  # the options it was resolved with


def resolve(host: Host, access: Access, shell: Shell) -> tuple[Hop, ...]:
    """The hops to the host, jump hosts first. SweepError for what is unfit to be used."""
    check_host(host)
    if access.identity is not None and not _expand(access.identity, {}).is_file():
        raise SweepError(f"{access.identity}: there is no such key file; name one, or leave -i out")
    options = ["-l", host.user] if host.user else []
    options += ["-p", str(host.port)] if host.port else []
    return _way(host.name, host.target, tuple(options), access, shell)


def _way(
    name: str, target: str, options: tuple[str, ...], access: Access, shell: Shell, depth: int = 0
) -> tuple[Hop, ...]:
    """The hops to a target, with those that its own configuration names before it."""
    if depth > _MOST_JUMPS:
        raise SweepError(f"{name}: more than {_MOST_JUMPS} jump hosts; look for a circle in ~/.ssh/config")
    told = _ask(name, target, options, access, shell, jump=depth > 0)
    hop = read_hop(name, target, told, options)
    if depth and access.identity:  # after its own keys, which `ssh -i` would leave out
        hop = replace(hop, identities=(*hop.identities, str(_expand(access.identity, {}))))
    before: tuple[Hop, ...] = ()
    for jump in _jumps(told):
        jump_target, jump_options = split_jump(jump)
        way = _way(jump_target, jump_target, jump_options, access, shell, depth + 1)
        # The first jump host is reached as its own configuration says, the others through those before.
        before = (*before, way[-1]) if before else way
        if len(before) > _MOST_JUMPS:
            raise SweepError(f"{name}: more than {_MOST_JUMPS} jump hosts")
    return (*before, hop)


def ask_command(target: str, options: Sequence[str], access: Access, *, jump: bool = False) -> Cmd:
    """The question what OpenSSH would do."""
    config = ["-F", access.config] if access.config else []
    identity = ["-i", access.identity] if access.identity and not jump else []
    return cmd("ssh", *config, *identity, *options, "-G", "--", target)


def _ask(
    name: str, target: str, options: Sequence[str], access: Access, shell: Shell, *, jump: bool
) -> Options:
    result = shell.run(ask_command(target, options, access, jump=jump), timeout=_PATIENCE)
    if result.code:
        said = result.err.decode(errors="replace").strip().splitlines() or ["no reason was given"]
        raise SweepError(f"{name}: ssh does not accept its configuration: {said[-1]}")
    return read_options(result.text)


def read_options(text: str) -> Options:
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        options.setdefault(key.lower(), []).append(value)
    return options


def read_hop(name: str, target: str, told: Options, asked: tuple[str, ...] = ()) -> Hop:
    """A hop from what `ssh -G` says of it. Everything that will be used is checked again."""
    address, user, port = _one(told, "hostname", target), _one(told, "user"), _one(told, "port", "22")
    check_target(address)
    check_user(user)
    alias = _one(told, "hostkeyalias") or None
    tokens = {"h": address, "p": port, "r": user, "n": target, "%": "%", "d": str(Path.home())}
    command = _one(told, "proxycommand")
    agent = _one(told, "identityagent")
    return Hop(
        name=name,
        target=target,
        address=address,
        port=int(port),
        user=user,
        key_name=lookup_name(address, int(port), alias),
        identities=tuple(str(_expand(file, tokens)) for file in told.get("identityfile", ())),
        only_identities=_one(told, "identitiesonly") == "yes",
        agent=None if agent in {"", "SSH_AUTH_SOCK"} else agent,
        known_files=tuple(_known_files(told, tokens)),
        command=_fill(command, tokens) if command not in {"", "none"} else None,
        asked=asked,
    )


def _known_files(told: Options, tokens: Mapping[str, str]) -> list[Path]:
    names = [*_one(told, "userknownhostsfile").split(), *_one(told, "globalknownhostsfile").split()]
    return [_expand(name.strip('"'), tokens) for name in names if name not in {"none", "/dev/null"}]


def _jumps(told: Options) -> list[str]:
    jumps = _one(told, "proxyjump")
    return [] if jumps in {"", "none"} else jumps.split(",")


def split_jump(jump: str) -> tuple[str, tuple[str, ...]]:
    """`[user@]host[:port]` as the target and the options that say the rest; `ssh://` may stand before it."""
    target, user, port = split_host(jump.strip().removeprefix("ssh://").rstrip("/"))
    return target, (*(("-l", user) if user else ()), *(("-p", str(port)) if port else ()))


def _one(told: Options, key: str, default: str = "") -> str:
    return (told.get(key) or [default])[0].strip()


def _fill(text: str, tokens: Mapping[str, str]) -> str:
    """The text with OpenSSH's tokens in it replaced; those that are not known stay."""
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _expand(file: str, tokens: Mapping[str, str]) -> Path:
    return Path(_fill(file, tokens)).expanduser()
