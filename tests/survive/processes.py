"""What the tests of survival see of the machine: processes by their mark, their names and their parents."""

from __future__ import annotations

import os
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Processes with the mark in their command line. Zombies have none, so they don't count."""
    return [pid for pid in _pids() if mark.encode() in _read(pid, "cmdline")]


def family(root: int) -> dict[str, list[int]]:
    """The guardian and keepers below a command line, by their names; ended ones left out."""
    found: dict[str, list[int]] = {"sweepfw-guard": [], "sweepfw-keeper": []}
    parents = {pid: _parent(pid) for pid in _pids()}
    for pid, parent in parents.items():
        name = _read(pid, "comm").decode().strip()
        if name in found and root in (parent, parents.get(parent)) and _state(pid) != "Z":
            found[name].append(pid)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split() or ["Z", "0"]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _state(pid: int) -> str:
    return _stat(pid)[0]
