"""`flower`: the live view of the deployment's tasks, in the browser, through SSH."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from sweepfw.cli import chosen
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState

FIRST = 5555
TRIES = 20


@click.command()
@click.option("--url", is_flag=True, help="Print the address only, user and password in it.")
@click.option("--no-browser", is_flag=True, help="Don't open the browser.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="A port here. [default: from 5555]")
@chosen.on
def flower(url: bool, no_browser: bool, port: int | None, on: str | None) -> int:
    """Open Flower, the live view of the deployment's tasks; stay until Ctrl-C.

    It is reached through SSH, and listens on this machine alone for as long as this command runs.
    """
    state = chosen.chosen(on)
    try:
        _stay(state, port, url=url, browse=not (url or no_browser) and _has_display())
    except KeyboardInterrupt:
        return 0
    return 0


def _stay(state: DeploymentState, port: int | None, *, url: bool, browse: bool) -> None:
    from sweepfw.fleet.credentials import FLOWER_USER, load_credentials
    from sweepfw.fleet.reach import forward

    password = load_credentials(state.credentials).flower_password.reveal()
    with forward(state, _port(port)) as there:
        if url:
            click.echo(f"http://{FLOWER_USER}:{password}@127.0.0.1:{there}")
        else:
            click.echo(f"http://127.0.0.1:{there}  user {FLOWER_USER}  password {password}")
            click.echo("Ctrl-C closes it; the sweeps go on", err=True)
        sys.stdout.flush()
        if browse:
            _browse(f"http://127.0.0.1:{there}")  # others see what a browser is called with
        _wait()


def _port(port: int | None) -> int:
    """The one that was asked for, or the first that is free."""
    if port is not None and not _free(port):
        raise SweepError(f"--port {port}: something on this machine uses it; name another, or none")
    return port or next((each for each in range(FIRST, FIRST + TRIES) if _free(each)), 0)


def _free(port: int) -> bool:
    import socket

    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _has_display() -> bool:
    """Whether a browser would show on this machine's own screen."""
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _browse(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def _wait() -> None:
    """Until Ctrl-C, or until we are told to end."""
    import signal

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        signal.pause()
