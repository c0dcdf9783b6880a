"""A deployment's hosts: as config.yml lists them, and as `-a` does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sweepfw.config.forms import placed
from sweepfw.config.node import Node
from sweepfw.config.quantities import items, refuse_unknown, shown, whole, word, words
from sweepfw.core.addresses import check_port, check_target, check_user, split_host
from sweepfw.core.deployment import SETTINGS, STATE, Host
from sweepfw.errors import SweepError

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_.=/-]{0,62}"
_GPU = r"GPU-[0-9a-fA-F-]{8,64}|MIG-[0-9A-Za-z/-]{8,80}"
_PATH = r"/[A-Za-z0-9_./+@ -]*"
_IMAGE = r"[A-Za-z0-9][A-Za-z0-9_./:@-]{0,250}"
_NEVER_MOUNTED = ("docker.sock", "containerd.sock", "podman.sock")  # who has one of these owns the host
_EXAMPLE = "{gpu1: {user: ada, port: 2222}}, or [gpu1, gpu2]"


def parse_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of `-a [user@]host[:port],…`."""
    if not text.strip():
        raise SweepError("-a: names no host; write such as -a gpu1,ada@gpu2:2222")
    found = [split_host(each) for each in text.split(",")]
    targets = [target for target, _, _ in found]
    hosts = [
        Host(_name(target, port, alone=targets.count(target) == 1), target, user, port)
        for target, user, port in found
    ]
    _refuse_twice([host.name for host in hosts], lambda name: SweepError(f"-a: names {name} twice"))
    return tuple(hosts)


def _name(target: str, port: int | None, *, alone: bool) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", target).lstrip("-.")[:63]
    return name if alone or port is None else f"{name}-{port}"


def read_hosts(node: Node) -> tuple[Host, ...]:
    """A list of `[user@]host[:port]`, or a mapping from name to what is special about it."""
    if isinstance(node.value, Mapping):
        return tuple(_host(name, each) for name, each in node.value.items())
    hosts = []
    for item in items(node):
        target, user, port = _address(item)
        hosts.append(_entered(_name(target, port, alone=True), item, target, user, port))
    _refuse_twice([host.name for host in hosts], lambda name: node.error(f"names {name} twice"))
    return tuple(hosts)


def _host(name: str, node: Node) -> Host:
    if node.value is None:
        return _entered(name, node, name)
    if not isinstance(node.value, Mapping):  # gpu1: ada@10.0.0.7:2222
        return _entered(name, node, *_address(node))
    refuse_unknown(node.value, [*HOST_READERS], f" of the host {name!r}")
    given = {key: HOST_READERS[key](each) for key, each in node.value.items() if each.value is not None}
    address = given.pop("address", None)
    return replace(_entered(name, node, *(address or (name,))), **given)


def _entered(name: str, node: Node, target: str, user: str | None = None, port: int | None = None) -> Host:
    if not re.fullmatch(_NAME, name):
        raise node.error(f"{name[:60]!r} can't be a host's name; use letters, digits, '.', '-' and '_'")
    with placed(node):
        check_target(target)
    return Host(name, target, user, port)


def _refuse_twice(names: list[str], error: Callable[[str], SweepError]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise error(name)


# -- what stands in a host's mapping ---------------------------------------------------------------------


def _address(node: Node) -> tuple[str, str | None, int | None]:
    text = word(node)
    with placed(node):
        return split_host(text)


def _plain_address(node: Node) -> str:
    """An address as the head sees it, without a user; a port may follow."""
    if _address(node)[1] is not None:
        raise node.error("takes no user: the head logs in as the same one; write host or host:port")
    return word(node)


def _user(node: Node) -> str:
    user = word(node)
    with placed(node):
        check_user(user)
    return user


def _port(node: Node) -> int:
    port = whole(node)
    with placed(node):
        check_port("port", port)
    return port


def _mounts(node: Node) -> tuple[str, ...]:
    return tuple(_mount(item) for item in items(node))


def _mount(node: Node) -> str:
    """`/data:/data:ro` as docker takes it; one path alone stands for both."""
    here, *rest = word(node).split(":")
    there, rights = [*rest, "", ""][:2] if rest else (here, "")
    fit = all(re.fullmatch(_PATH, path) and "/../" not in path + "/" for path in (here, there))
    if not fit or len(rest) > 2 or (rights or "rw") not in {"ro", "rw"}:
        raise node.error(f"{shown(node)} is no mount; write /path, /path:/path/there or /path:/path/there:ro")
    if here.rstrip("/").endswith(_NEVER_MOUNTED):
        raise node.error(f"{here} is never given to trials: it rules over the whole machine")
    if not there.strip("/") or f"{there}/".startswith((SETTINGS + "/", STATE + "/", "/opt/sweepfw/")):
        raise node.error(f"{there} is taken in the container; mount it elsewhere, such as at /data")
    return ":".join([here, there, *([rights] if rights == "ro" else [])])


def _gpus(node: Node) -> tuple[str, ...] | None:
    if isinstance(node.value, str) and node.value in {"all", "none"}:
        return None if node.value == "all" else ()
    for item in items(node):
        if not re.fullmatch(_GPU, word(item)):
            raise item.error(f"{shown(item)} is no GPU's UUID (see `nvidia-smi -L`); or write all or none")
    return words(node)


def _labels(node: Node) -> tuple[str, ...]:
    for item in items(node):
        if not re.fullmatch(_LABEL, word(item)):
            raise item.error(f"{shown(item)} can't be a label; use letters, digits, '.', '-' and '_'")
    return words(node)


def image(node: Node) -> str:
    if not re.fullmatch(_IMAGE, word(node)):
        raise node.error(f"{shown(node)} is no image's name; write such as python:3.13-slim")
    return word(node)


HOST_READERS: dict[str, Callable[[Node], Any]] = {
    "address": _address,
    "user": _user,
    "port": _port,
    "address_from_head": _plain_address,
    "mounts": _mounts,
    "gpus": _gpus,
    "slots": lambda node: whole(node, 1),
    "labels": _labels,
    "image": image,
}
