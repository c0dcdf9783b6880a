"""A task's settings as plain JSON data and back, for the ledger and for people who read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from sweepfw.core.model import Environment, Needs, Objective, Spec


def to_json(spec: Spec) -> dict[str, Any]:
    """All settings as dicts, lists and scalars; `from_json` gives the same Spec back."""
    return {f.name: _plain(getattr(spec, f.name)) for f in fields(spec)}


def from_json(data: Mapping[str, Any]) -> Spec:
    """The Spec that `to_json` was given. Keys that it lacks get their defaults and unknown ones are left
    out, so that ledgers of older and newer versions can be read. KeyError without project, task or command.
    """
    known = {f.name for f in fields(Spec)}
    values = {key: _READ.get(key, _same)(value) for key, value in data.items() if key in known}
    for key in ("project", "task", "command"):
        values.setdefault(key, data[key])
    return Spec(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, (Needs, Objective, Environment)):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _same(value: Any) -> Any:
    return value


def _strings(value: Any) -> tuple[Any, ...]:
    return tuple(value)


def _pairs(value: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(pair) for pair in value)


def _secrets(value: Any) -> tuple[Any, ...]:
    if not value:
        return ()
    from sweepfw.core.secrets import Need

    return tuple(Need(**{key: item for key, item in need.items() if key in Need._fields}) for need in value)


def _record(kind: Callable[..., Any]) -> Callable[[Any], Any]:
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # it is a dataclass

    def read(value: Any) -> Any:
        if value is None:
            return None
        found = {key: item for key, item in value.items() if key in names}
        return kind(**{key: tuple(item) if isinstance(item, list) else item for key, item in found.items()})

    return read


_READ: Mapping[str, Callable[[Any], Any]] = {
    "command": _strings,
    "metrics": _pairs,
    "objective": _record(Objective),
    "outputs": _strings,
    "needs": _record(Needs),
    "environment": _record(Environment),
    "variables": _pairs,
    "secrets": _secrets,
    "retries": _pairs,
}
