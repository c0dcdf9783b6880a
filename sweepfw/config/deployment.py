"""config.yml: the hosts of a deployment and what runs on them, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweepfw import modes
from sweepfw.config.deployment_json import from_json, to_json
from sweepfw.config.deployment_keys import READERS, name
from sweepfw.config.deployment_options import NAME, differences, from_options, local_deployment
from sweepfw.config.hosts import HOST_READERS
from sweepfw.config.node import Node
from sweepfw.config.quantities import entries, refuse_unknown, suggest
from sweepfw.config.yaml_reader import read_file
from sweepfw.core.deployment import LOCAL, Build, Deployment, Host
from sweepfw.errors import SweepError

__all__ = [
    "FILE",
    "NAME",
    "differences",
    "from_json",
    "from_options",
    "load_deployment",
    "local_deployment",
    "named_in",
    "to_json",
    "write_deployment",
]

FILE = "config.yml"


def load_deployment(path: Path) -> Deployment:
    """Read a configuration. SweepError with file and line for what is wrong with it."""
    return _read(read_file(path), path.absolute().parent)


def named_in(path: Path) -> str | None:
    """The deployment's name in a configuration; None where there is no such file."""
    try:
        node = read_file(path)
    except SweepError:
        if not path.exists():
            return None
        raise
    given = entries(node, _EXAMPLE) if node.value is not None else {}
    return name(given["name"]) if "name" in given and given["name"].value is not None else NAME


_EXAMPLE = "hosts: [gpu1, gpu2]"


def _read(node: Node, folder: Path) -> Deployment:
    if node.value is None:
        raise node.error(f"is empty; it needs at least a line such as {_EXAMPLE}")
    keys = entries(node, _EXAMPLE)
    refuse_unknown(keys, [*READERS])
    given = {key: READERS[key](each) for key, each in keys.items() if each.value is not None}
    if not given.get("hosts"):
        raise keys.get("hosts", node).error(f"no host is named; write such as {_EXAMPLE}")
    for key in given.keys() & {"identity"}:
        given[key] = _located(given[key], folder)
    if "build" in given:
        given["build"] = Build(
            **{key: _build_value(key, each, folder) for key, each in given["build"].items()}
        )
    _place_services(keys, given)
    deployment = Deployment(**{"name": NAME, **given})
    if deployment.lease < 3 * deployment.renew:
        raise keys.get("renew", keys.get("lease", node)).error("renew must be a third of lease or less")
    return deployment


def _place_services(keys: Mapping[str, Node], given: dict[str, Any]) -> None:
    """Head and workers, each one of the hosts; `local` is one without being listed."""
    hosts: tuple[Host, ...] = given["hosts"]
    known = [host.name for host in hosts]
    head, workers = given.setdefault("head", known[0]), given.setdefault("workers", tuple(known))
    for key, names in (("head", (head,)), ("workers", workers)):
        for each in names:
            if each not in {*known, LOCAL}:
                raise keys[key].error(
                    f"{each[:60]!r} is not among the hosts; {suggest(each, [*known, LOCAL])}"
                )
    if not workers or len(set(workers)) < len(workers):
        raise keys["workers"].error("names a host twice, or none; leave it out for all of them")
    if LOCAL in {head, *workers} and LOCAL not in known:
        given["hosts"] = (*hosts, Host(LOCAL, LOCAL))


def _build_value(key: str, value: str, folder: Path) -> str:
    return _located(value, folder) if key in {"ca_bundle", "pip_conf"} else value


def _located(file: str, folder: Path) -> str:
    """A path as all others take it: relative ones begin at the configuration's folder."""
    return str(folder / Path(file).expanduser())


# -- writing ---------------------------------------------------------------------------------------------

_HEADING = """\
# The deployment that `sweepfw infra up` makes, and changes when this file changes.
# config.example.yml shows every key. Comments are lost where `up` writes this file anew.
"""


def write_deployment(deployment: Deployment, path: Path) -> None:
    """Write a configuration that reads back equal. As a whole or not at all."""
    new = path.with_name(path.name + ".new")
    try:
        with modes.loosened():
            new.write_text(_HEADING + "\n".join(_lines(deployment)) + "\n")
        new.replace(path)
    except OSError as error:
        raise SweepError(f"{path}: can't be written ({error.strerror})") from None


def _lines(deployment: Deployment) -> list[str]:
    lines = [f"name: {_text(deployment.name)}", "hosts:"]
    for host in deployment.hosts:
        own = [f"    {key}: {value}" for key, value in _host_items(host)]
        lines += [f"  {_text(host.name)}:{'' if own else ' {}'}", *own]
    lines += [f"head: {_text(deployment.head)}", f"workers: {_list(deployment.workers)}"]
    if deployment.identity is not None:
        lines.append(f"identity: {_text(_homely(deployment.identity))}")
    lines.append(f"remote_dir: {_text(deployment.remote_dir)}")
    build = {key: value for key, value in asdict(deployment.build).items() if value != asdict(Build())[key]}
    if build:
        lines += ["build:", *(f"  {key}: {_text(_homely(value))}" for key, value in build.items())]
    lines += [f"{key}: {getattr(deployment, key):g}" for key in ("lease", "renew")]
    return lines


def _host_items(host: Host) -> list[tuple[str, str]]:
    items = [("address", _text(_bracketed(host.target)))] if host.target != host.name else []
    for key in HOST_READERS:
        value = getattr(host, key, None)
        if key == "gpus" and value == ():
            items.append((key, "none"))
        elif isinstance(value, tuple):
            items += [(key, _list(value))] if value else []
        elif value is not None:
            items.append((key, _text(str(value))))
    return items


def _bracketed(target: str) -> str:
    return f"[{target}]" if ":" in target else target


def _list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _text(value: str) -> str:
    """A scalar, in quotes where it would be more than its letters."""
    plain = re.fullmatch(r"[A-Za-z0-9_/~](?:[A-Za-z0-9_./+@=~-]|:(?=[^\s,]))*", value)
    if plain and value.lower() not in {"null", "true", "false", "~"}:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _homely(file: str) -> str:
    """A path below the home, so that a file which is shared names everybody's own."""
    home = str(Path.home())
    return f"~{file[len(home) :]}" if file.startswith(home + "/") else file
