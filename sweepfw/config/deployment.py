"""config.yml: the hosts of a deployment and what runs on them, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepfw.core.deployment import Deployment

FILE = "config.yml"
NAME = "main"  # the deployment's name where none is given


def load_deployment(path: Path) -> Deployment:
    """Read a configuration. SweepError with file and line for what is wrong with it."""
    raise NotImplementedError


def named_in(path: Path) -> str | None:
    """The deployment's name in a configuration; None where there is no such file."""
    raise NotImplementedError


def from_options(
    hosts: str | None,
    *,
    identity: str | None = None,
    remote_dir: str | None = None,
    head: str | None = None,
    workers: str | None = None,
    name: str | None = None,
    base: Deployment | None = None,
) -> Deployment:
    """The deployment that `-a [user@]host[:port],… -i KEY -r DIR -m local|N -w local,1,2 --name D` describe.

    `base` is the configuration that there was: what no option speaks of stays as it is there (build, lease,
    a host's mounts, gpus, slots, labels). With `hosts` its list of hosts is replaced by those.
    """
    raise NotImplementedError


def local_deployment(name: str | None = None, base: Deployment | None = None) -> Deployment:
    """`infra up --local`: head and worker on this machine."""
    raise NotImplementedError


def differences(old: Deployment, new: Deployment) -> list[str]:
    """What a change would drop or move, a line each, for a question: "drops host gpu2 and its worker"."""
    raise NotImplementedError


def write_deployment(deployment: Deployment, path: Path) -> None:
    """Write a configuration that reads back equal, with a sentence for what is not plain."""
    raise NotImplementedError


def to_json(deployment: Deployment) -> dict[str, Any]:
    raise NotImplementedError


def from_json(data: Mapping[str, Any]) -> Deployment:
    raise NotImplementedError
