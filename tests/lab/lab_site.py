"""A person beside the lab: a workspace, a state folder, the lab's hosts as aliases, and the real command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lab import Lab
from lab_host import Host

from sweepfw.config.deployments import DeploymentState, _from_json

ROOT = Path(__file__).parents[2]
# How the commands begin that run in a worker's container where no trial does. Since OpenSSH 10 sshd begins as
# a program of its own for every login, which takes its name only after a moment.
OURS = (
    *("/sbin/docker-init", "/opt/sweepfw/bin/python", "sweepfw-"),
    *("sshd", "/usr/sbin/sshd", "/usr/lib/openssh/sshd-"),
)
# What runs on each host of a deployment on both hosts of a lab.
ROLES = {"host1": {"rabbitmq", "head", "flower", "tunnel", "worker"}, "host2": {"worker"}}


@dataclass
class Site:
    """`folder` is the test's own. Names of deployments are per site: its state folder is its own."""

    lab: Lab
    folder: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # OpenSSH looks for its configuration in the account's home, whatever HOME says.
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.lab.ssh_config} "$@"\n')
        wrapper.chmod(0o755)
        # A copy: whoever works on the tree meanwhile would change the image.
        shutil.copytree(
            ROOT / "sweepfw", self.folder / "code" / "sweepfw", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.workspace.mkdir()
        (self.folder / "state").mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "PYTHONPATH": str(self.folder / "code"),
        }

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def config(self) -> Path:
        return self.workspace / "config.yml"

    def configure(self, hosts: str = "[host1, host2]", more: str = "") -> None:
        self.config.write_text(
            f"name: t\nhosts: {hosts}\nbuild: {{base: {Lab.base}, rabbitmq: {Lab.rabbitmq}}}\n{more}\n"
        )

    def start(self, *words: str, output: IO[bytes] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """The command, running; both its streams go to `output`."""
        return subprocess.Popen(
            [sys.executable, "-m", "sweepfw", *words],
            cwd=self.workspace,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sweepfw(self, *words: str, code: int | None = 0, seconds: float = 400) -> str:
        """What the command printed, on both streams. `code` None: whatever it exits with."""
        process = self.start(*words)
        try:
            printed, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        if code is not None and process.returncode != code:
            raise AssertionError(f"sweepfw {' '.join(words)}: exit {process.returncode}\n{printed}")
        return printed

    @property
    def state(self) -> DeploymentState:
        """Read by its path: tests ask from several threads, which share one environment."""
        folder = self.folder / "state" / "sweepfw" / "deployments" / "t"
        return _from_json(folder, json.loads((folder / "deployment.json").read_text()))


def containers(host: Host) -> dict[str, tuple[str, str]]:
    """Role -> (id, status) of what is ours on the host."""
    shape = '{{.Label "sweepfw.role"}}|{{.ID}}|{{.Status}}'
    rows = host.run(["docker", "ps", "-a", "--filter", "label=sweepfw.deployment", "--format", shape]).stdout
    return {role: (id, status) for role, id, status in (row.split("|") for row in rows.splitlines())}


def listeners(host: Host) -> set[int]:
    """TCP ports at which the host's own network answers from outside."""
    rows = host.run(["ss", "-Hltn"]).stdout.splitlines()
    places = [row.split()[3] for row in rows]
    return {int(place.rpartition(":")[2]) for place in places if not place.startswith("127.")}
