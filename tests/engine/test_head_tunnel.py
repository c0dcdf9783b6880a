"""The tunnel's lines: real processes stand for ssh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sweepfw.core.deployment import TunnelSettings
from sweepfw.engine.tunnel import Tunnel

WaitUntil = Callable[..., None]

# Writes its pid beside the others of its host, starts a child as ProxyCommand is one, and does as it is told.
SSH = """#!/bin/sh
echo $$ >>"$2/$1.pids"
case $1 in
  bad*) echo 'Warning: something' >&2; echo "$1: Permission denied (publickey)." >&2; exit 255 ;;
esac
sleep 600 &
echo $! >>"$2/proxies"
wait
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Path]:
    script = tmp_path / "ssh"
    script.write_text(SSH)
    script.chmod(0o755)
    yield script
    for file in tmp_path.glob("*.pids"):
        for pid in file.read_text().split():
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)


def pids(folder: Path, name: str) -> list[int]:
    file = folder / name
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Running:
    def __init__(self, ssh: Path, *hosts: str) -> None:
        self.lines: list[str] = []
        self.folder = ssh.parent
        arguments = {host: (host, str(self.folder)) for host in hosts}
        self.tunnel = Tunnel(arguments, self.lines.append, ssh=(str(ssh),))
        self.thread = threading.Thread(target=self.tunnel.run)
        self.thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.tunnel.end()
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_a_line_that_ends_is_made_anew_and_its_neighbours_stay(ssh: Path, wait_until: WaitUntil) -> None:
    with Running(ssh, "a", "b") as running:
        wait_until(lambda: len(pids(running.folder, "proxies")) == 2)
        [a], [b] = pids(running.folder, "a.pids"), pids(running.folder, "b.pids")
        begun = time.monotonic()
        os.kill(a, signal.SIGKILL)
        wait_until(lambda: len(pids(running.folder, "a.pids")) == 2)
        assert time.monotonic() - begun > 0.5  # not at once: a far side that refuses is not to be stormed
        wait_until(lambda: len(pids(running.folder, "proxies")) == 3)
        assert pids(running.folder, "b.pids") == [b] and alive(b)
        assert "a: down (ssh ended, exit -9); again in 1 s" in running.lines
        wait_until(lambda: running.lines.count("a: up") and running.lines.count("b: up"))
    wait_until(lambda: not any(alive(pid) for pid in pids(ssh.parent, "proxies")))  # what ssh started


def test_a_line_that_can_not_be_made_says_why_and_rests_longer_each_time(
    ssh: Path, wait_until: WaitUntil
) -> None:
    with Running(ssh, "bad") as running:
        wait_until(lambda: len(running.lines) >= 3)
    assert running.lines[:3] == [
        f"bad: down (bad: Permission denied (publickey).); again in {pause} s" for pause in (1, 2, 3)
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_ssh_outlives_the_tunnel(ssh: Path, wait_until: WaitUntil, number: int) -> None:
    folder = ssh.parent
    settings = folder / "settings.json"
    settings.write_text(json.dumps(TunnelSettings("d", "u", {h: (h, str(folder)) for h in "ab"})._asdict()))
    process = subprocess.Popen(
        [sys.executable, "-m", "sweepfw.engine.service", "tunnel", "--settings", str(settings)],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    try:
        wait_until(lambda: len(pids(folder, "proxies")) == 2)
        process.send_signal(number)
        assert process.wait(60) == (0 if number == signal.SIGTERM else -9)
        lines = pids(folder, "a.pids") + pids(folder, "b.pids")
        wait_until(lambda: not any(alive(pid) for pid in lines))
    finally:
        process.kill()
        process.wait()
