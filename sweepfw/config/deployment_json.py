"""A deployment as JSON, for the state folder; without the YAML reader, which costs a command its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweepfw.core.deployment import Build, Deployment, Host


def to_json(deployment: Deployment) -> dict[str, Any]:
    return asdict(deployment)


def from_json(data: Mapping[str, Any]) -> Deployment:
    return Deployment(
        **{
            **data,
            "hosts": tuple(host_from_json(each) for each in data["hosts"]),
            "workers": tuple(data["workers"]),
            "build": Build(**data["build"]),
        }
    )


def host_from_json(data: Mapping[str, Any]) -> Host:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
    }
    return Host(**fields)
