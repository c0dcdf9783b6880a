"""What goes over the wires. Names for the type checker only: at run time these are plain values.

Client to guardian: ("hold", count) with that many descriptors; ("fork", 0) with the keeper's wire.
Client to keeper: ("setup", id, Setup), ("start", seq, Start), ("stop", seq, why, grace).
Keeper to client: ("grew", seq, total), ("ended", seq, Outcome), ("crashed", text).
"""

from __future__ import annotations

from typing import Any, TypedDict


class SetupMessage(TypedDict):
    env: dict[str, str]
    manifest: str | None
    objects: str | None
    shared: str | None
    timeout: float | None
    grace: float
    log_limit: int
    outputs: list[str]
    output_limit: int | None
    secrets: SecretsMessage | None


class SecretsMessage(TypedDict):
    variables: dict[str, bytes]
    files: dict[str, bytes]
    needles: list[bytes]


class StartMessage(TypedDict):
    setup: int
    folder: str
    checkpoint: str
    argv: list[str]
    env: dict[str, str]
    params: str
    label: str
    token: str


Outcome = dict[str, Any]
