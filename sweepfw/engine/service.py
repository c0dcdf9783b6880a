"""The services of a deployment: `python -m sweepfw.engine.service head|worker|tunnel|flower`.

Each reads its settings from /etc/sweepfw/settings.json; `--settings FILE` and `--state FOLDER` are for trying
one outside its container. `head --health` tells by its exit code whether the head answers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweepfw import crash
from sweepfw.core.deployment import (
    SERVICE_PORT,
    SETTINGS,
    STATE,
    FlowerSettings,
    HeadSettings,
    TunnelSettings,
    WorkerSettings,
)
from sweepfw.errors import SweepError
from sweepfw.trial.guard.reap import close_up

T = TypeVar("T", HeadSettings, WorkerSettings, TunnelSettings, FlowerSettings)

USAGE = (
    "usage: python -m sweepfw.engine.service head|worker|tunnel|flower "
    "[--settings FILE] [--state FOLDER] [--port N] [--health]"
)


class Options(NamedTuple):
    role: str
    settings: Path = Path(SETTINGS, "settings.json")
    state: Path = Path(STATE)
    port: int = SERVICE_PORT
    health: bool = False


def parse(arguments: list[str]) -> Options:
    """SweepError for anything but what USAGE says. (argparse would cost every health check its import.)"""
    found: dict[str, Any] = {}
    rest = list(arguments)
    takes: dict[str, Callable[[str], object]] = {"--settings": Path, "--state": Path, "--port": int}
    try:
        while rest:
            word = rest.pop(0)
            if word in takes:
                found[word[2:]] = takes[word](rest.pop(0))
            elif word == "--health":
                found["health"] = True
            elif word in SERVICES and "role" not in found:
                found["role"] = word
            else:
                raise SweepError(f"{word}: {USAGE}")
        return Options(**found)
    except (IndexError, ValueError, TypeError):
        raise SweepError(USAGE) from None


def read(path: Path, kind: type[T]) -> T:
    """The settings in the file. SweepError where it is not such a file."""
    try:
        told = json.loads(path.read_bytes())
        return kind(**{name: _frozen(value) for name, value in told.items()})
    except OSError as error:
        raise SweepError(f"{path}: can't be read ({error.strerror}); `sweepfw infra up` writes it") from None
    except (ValueError, TypeError, AttributeError):
        raise SweepError(f"{path}: holds no {kind.__name__}; `sweepfw infra up` writes it") from None


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that settings have."""
    if isinstance(value, list):
        return tuple(_frozen(each) for each in value)
    if isinstance(value, dict):
        return {name: _frozen(each) for name, each in value.items()}
    return value


def _head(options: Options) -> int:
    settings = read(options.settings, HeadSettings)
    if options.health:
        from sweepfw.engine.health import healthy

        return 0 if healthy(settings.certificate, options.port) else 1
    from sweepfw.engine import head

    os.umask(0o077)
    return head.main(settings, options.state, options.port)


def _worker(options: Options) -> int:
    from sweepfw.engine import worker

    worker.main(read(options.settings, WorkerSettings), options.state)


def _tunnel(options: Options) -> int:
    from sweepfw.engine import tunnel

    return tunnel.main(read(options.settings, TunnelSettings))


def _flower(options: Options) -> int:
    from sweepfw.engine import flower

    os.umask(0o077)
    return flower.main(read(options.settings, FlowerSettings), options.state)


SERVICES: Mapping[str, Callable[[Options], int]] = {
    "head": _head,
    "worker": _worker,
    "tunnel": _tunnel,
    "flower": _flower,
}


def main(arguments: list[str]) -> int:
    close_up()
    try:
        if crash.complaint:
            raise SweepError(crash.complaint)
        options = parse(arguments)
        return SERVICES[options.role](options)
    except SweepError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
