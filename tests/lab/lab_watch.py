"""Small projects, and how they are watched: in Flower, by polling, in a host's containers."""

from __future__ import annotations

import base64
import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab_host import Host
from lab_site import Site

from sweepfw.errors import UnreachableError


def project(site: Site, name: str, script: str, settings: str = "", **parameters: object) -> Path:
    """A project of one shell script, whose parameters it gets as variables."""
    folder = site.workspace / "projects" / name
    folder.mkdir(parents=True)
    (folder / "trial.sh").write_text('for word; do eval "${word#--}"; done\n' + script)
    (folder / "project.yml").write_text(
        f"command: bash trial.sh\nenvironment: inherit\ngrace: 2\n{settings}\n"
        f"parameters: {json.dumps(parameters)}\n"
    )
    return folder


def until(told: Callable[[], object], seconds: float = 60, what: object = "") -> float:
    """Wait for it, also where a head is asked that is just starting; how many seconds that took."""
    begun = time.monotonic()
    while True:
        with suppress(UnreachableError):
            if told():
                return time.monotonic() - begun
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.2)


def role(site: Site, host: Host, name: str) -> str:
    """The container of ours on a host."""
    found = f"sweepfw-t-{site.state.uid[:6]}-{name}"
    assert host.run(["docker", "inspect", "-f", "{{.State.Running}}", found]).stdout == "true\n"
    return found


@contextmanager
def flower(site: Site) -> Iterator[str]:
    """Flower's address, with its user and password. Ctrl-C ends the way there."""
    process = site.start("flower", "--url")
    try:
        assert process.stdout
        url = process.stdout.readline().strip().rstrip("/")
        assert re.fullmatch(r"http://\w+:\w+@127\.0\.0\.1:\d+", url), url
        yield url
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def look(url: str, path: str) -> dict[str, Any]:
    login, _, place = url.removeprefix("http://").partition("@")
    word = base64.b64encode(login.encode()).decode()
    asked = urllib.request.Request(f"http://{place}{path}", headers={"Authorization": f"Basic {word}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
