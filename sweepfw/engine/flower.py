"""Flower: the live view in a browser. Read-only, with a password; its history is kept over a restart.

Without the password it answers /healthcheck with `OK`, and gives its own scripts and styles, nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from sweepfw.core.deployment import FLOWER_PORT, STATE, FlowerSettings

TASKS = 10_000  # kept in memory: some 140 MB
SAVE_EVERY = 60_000  # milliseconds
COLUMNS = "name,args,kwargs,state,received,runtime,worker"  # sweep, trial, its parameters, ...


def arguments(address: str, port: int, db: Path) -> list[str]:
    """Flower's own options. The password is none of them: it is given by the environment of this process,
    which no `ps` and no `docker inspect` shows."""
    return [
        "flower",
        f"--address={address}",
        f"--port={port}",
        "--read_only",
        f"--max_tasks={TASKS}",
        "--persistent=True",
        f"--db={db}",
        f"--state_save_interval={SAVE_EVERY}",
        "--purge_offline_workers=86400",
        "--xheaders=False",
        "--enable_events=True",
        "--inspect_timeout=2000",
        f"--tasks_columns={COLUMNS}",
        "--logging=warning",
    ]


def own_address() -> str:
    """The container's address on the deployment's network; there is no other."""
    return socket.gethostbyname(socket.gethostname())


def main(
    settings: FlowerSettings, root: Path = Path(STATE), address: str | None = None, port: int = FLOWER_PORT
) -> int:
    """Run Flower in this process until SIGTERM."""
    os.environ["FLOWER_BASIC_AUTH"] = f"{settings.user}:{settings.password}"
    from sweepfw.engine.celery_app import make_app

    _close_metrics()
    root.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING)
    make_app(settings.broker).start(arguments(address or own_address(), port, root / "flower.db"))
    return 0


def _close_metrics() -> None:
    """Take away /metrics, which would tell the names of sweeps and hosts to whoever asks: other users of the
    head's host reach the addresses of its containers."""
    from flower import urls  # type: ignore[import-untyped]  # it has no types

    urls.handlers[:] = [handler for handler in urls.handlers if _pattern(handler) != "/metrics"]
    assert len({_pattern(handler) for handler in urls.handlers}) > 1  # Flower still keeps its pages there


def _pattern(handler: Any) -> str:
    return str(handler[0] if isinstance(handler, tuple) else handler.regex.pattern)
