"""Where a sweep's results come from: the code's state, the machine, the versions. Written once per sweep."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweepfw import __version__
from sweepfw.core.command import Cmd, cmd
from sweepfw.errors import SweepError
from sweepfw.shell.shell import Shell
from sweepfw.snapshot.listing import git_folder, repository
from sweepfw.trial.slots import cpus, memory

DIFF_LIMIT = 1_000_000  # bytes of the uncommitted diff that are kept
UNTRACKED_LIMIT = 1000  # names
_PATIENCE = 30.0  # seconds
# What a snapshot never takes does not belong into a diff that people pass on, either.
_SECRETS = [f":(exclude,glob)**/{name}" for name in (".env*", "*.pem", "*.key", "*.ppk", "id_*")]
_GPUS = cmd(
    "nvidia-smi", "--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"
)


def describe(root: Path, shell: Shell, *, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """All that is known of the project's state and this machine, as JSON-able values; null is not known.

    Takes as long as git and nvidia-smi do, which run side by side: call it in a thread of its own, so that
    no trial waits for it. Never fails.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as side_by_side:
        graphics = side_by_side.submit(_gpus, shell)
        git = _git(root, shell)
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock())),
            "git": git,
            "machine": _machine() | {"gpus": graphics.result()},
            "python": sys.version.split()[0],
            "sweepfw": __version__,
        }


def _git(root: Path, shell: Shell) -> dict[str, Any] | None:
    """The repository's state, as far as it concerns the project's folder; None where there is none."""
    from concurrent.futures import ThreadPoolExecutor

    top = repository(root.resolve())
    if top is None or not shell.has("git"):
        return None
    git = ("git", "--no-optional-locks", "-C", str(root))
    status = cmd(*git, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "-z", "--", ".")
    diff = cmd(*git, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", ".", *_SECRETS)
    with ThreadPoolExecutor(2) as side_by_side:
        told, changes = side_by_side.map(lambda command: _output(shell, command), (status, diff))
    if told is None:
        return None
    return read_status(told) | {"remote": _remote(top), **_bounded(changes)}


def read_status(told: bytes) -> dict[str, Any]:
    """What `git status --porcelain=v2 --branch -z` printed: commit, branch, and what is not in git."""
    rows = told.decode(errors="replace").split("\0")
    heads = dict(row[2:].split(" ", 1) for row in rows if row.startswith("# "))
    commit, branch = heads.get("branch.oid"), heads.get("branch.head")
    untracked = [row[2:] for row in rows if row.startswith("? ")]
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": bool(untracked) or any(row[:2] in {"1 ", "2 ", "u "} for row in rows),
        "untracked": untracked[:UNTRACKED_LIMIT],
    }


def without_credentials(url: str) -> str:
    """A remote's address without user and password; `git@host:` is no secret."""
    return re.sub(r"^(https?://)[^/@]*@", r"\1", re.sub(r"^(\w[\w+.-]*://[^/:@]*):[^/@]*@", r"\1@", url))


def _bounded(changes: bytes | None) -> dict[str, Any]:
    if changes is None:
        return {"diff": None, "diff_left_out": 0}
    left_out = max(0, len(changes) - DIFF_LIMIT)
    return {"diff": changes[:DIFF_LIMIT].decode(errors="replace"), "diff_left_out": left_out}


def _remote(top: Path) -> str | None:
    # Read as a file: one process less, and the trial's neighbours have the CPUs.
    settings = _text(git_folder(top) / "config")
    found = re.search(r'^\[remote "origin"\]$(?:\n[^\[].*?)*?\n\s*url\s*=\s*(\S+)', settings, re.MULTILINE)
    return without_credentials(found[1]) if found else None


def _machine() -> dict[str, Any]:
    system = os.uname()
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(Path("/etc/os-release")), re.MULTILINE)
    model = re.search(r"^model name\s*:\s*(.*)", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return {
        "host": system.nodename,
        "user": _user(),
        "platform": f"{name[1] if name else system.sysname} {system.machine}",
        "kernel": system.release,
        "cpu": model[1].strip() if model else None,
        "cpus": os.cpu_count(),
        "cpus_usable": cpus(),
        "memory": memory(),
    }


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # a container may run as a number without a name
        return str(os.getuid())


def _gpus(shell: Shell) -> list[dict[str, Any]]:
    if not shell.has("nvidia-smi"):
        return []
    rows = [row.split(", ") for row in (_output(shell, _GPUS) or b"").decode(errors="replace").splitlines()]
    return [
        {
            "index": int(index),
            "uuid": uuid,
            "name": name,
            "memory": int(size) << 20 if size.isdecimal() else None,
            "driver": driver,
        }
        for index, uuid, name, size, driver in (row for row in rows if len(row) == 5 and row[0].isdecimal())
    ]


def _output(shell: Shell, command: Cmd) -> bytes | None:
    try:
        result = shell.run(command, timeout=_PATIENCE, env={"LC_ALL": "C"})
    except SweepError:
        return None
    return result.out if result.code == 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
