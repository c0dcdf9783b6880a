"""The Docker engine of this machine, by its command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class LabError(Exception):
    """The lab can't run here; the text says why, and what would help."""


def docker(*arguments: str, check: bool = True, stdin: str | None = None, seconds: float = 300) -> str:
    """What `docker ARGUMENTS...` prints. LabError with its own words where it fails."""
    # The old builder is in every engine, and needs no plugin.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    try:
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
        )
    except FileNotFoundError:
        raise LabError("docker is not installed: scripts/test --lab installs it") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"docker {arguments[0]} did not end within {seconds:.0f} s") from None
    if check and done.returncode != 0:
        raise LabError(f"docker {' '.join(arguments[:6])}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def labelled(kind: str, label: str) -> list[str]:
    """The names or ids of the containers, networks or volumes with this label."""
    listing = {
        "container": ["ps", "-aq"],
        "network": ["network", "ls", "-q"],
        "volume": ["volume", "ls", "-q"],
    }
    return docker(*listing[kind], "--filter", f"label={label}").split()


def nameservers() -> list[str]:
    """Name servers that containers can ask too: none on this machine's loopback."""
    for file in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        rows = [row.split() for row in file.read_text().splitlines()] if file.is_file() else []
        found = [row[1] for row in rows if row[:1] == ["nameserver"] and len(row) > 1]
        if reachable := [address for address in found if not address.startswith("127.")]:
            return reachable
    return []


def mtu() -> int:
    """How large a packet may be that leaves this machine; larger ones may vanish on the way."""
    rows = [row.split() for row in Path("/proc/net/route").read_text().splitlines()[1:]]
    ways = [row[0] for row in rows if row[1] == "00000000"]
    return min((int(Path(f"/sys/class/net/{way}/mtu").read_text()) for way in ways), default=1500)
