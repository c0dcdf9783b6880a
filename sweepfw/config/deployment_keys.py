"""The keys of config.yml, each with what reads its value, from the file or from an option."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sweepfw.config.hosts import image, read_hosts
from sweepfw.config.node import Node
from sweepfw.config.quantities import duration, entries, refuse_unknown, shown, word, words

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,30}"  # it begins the names of containers and folders
_REMOTE = r"(~|/[A-Za-z0-9_.+-]+|~/[A-Za-z0-9_.+-]+)(/[A-Za-z0-9_.+-]+)*/?"


def name(node: Node) -> str:
    if not re.fullmatch(NAME_PATTERN, word(node)):
        raise node.error(
            f"{shown(node)} can't be a deployment's name; use up to 31 of a-z, 0-9 and '-', such as lab"
        )
    return word(node)


def _remote_dir(node: Node) -> str:
    if not re.fullmatch(_REMOTE, word(node)) or ".." in word(node).split("/"):
        raise node.error(
            f"{shown(node)} is no folder for the hosts; write such as ~/.sweepfw or /data/sweepfw"
        )
    return word(node).rstrip("/")


def _build(node: Node) -> Mapping[str, str]:
    given = entries(node, "{base: python:3.13-slim}")
    refuse_unknown(given, [*BUILD_READERS], " of build")
    return {key: BUILD_READERS[key](each) for key, each in given.items() if each.value is not None}


READERS: dict[str, Callable[[Node], Any]] = {
    "name": name,
    "hosts": read_hosts,
    "head": word,
    "workers": words,
    "identity": word,
    "remote_dir": _remote_dir,
    "build": _build,
    "lease": duration,
    "renew": duration,
}
BUILD_READERS: dict[str, Callable[[Node], str]] = {
    "base": image,
    "rabbitmq": image,
    "ca_bundle": word,
    "pip_conf": word,
}
