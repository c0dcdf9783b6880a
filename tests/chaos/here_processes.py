"""Our own processes on this machine: found by what they inherited from us, ended by pid and start time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """`born`: clock ticks after boot. A pid is used again; with its birth it is one process for ever."""

    pid: int
    born: int
    parent: int
    name: str
    state: str

    def send(self, number: signal.Signals) -> bool:
        """Signal it, if it still is itself; whether it was."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            now = look(self.pid)
            if now is None or now.born != self.born or now.state == "Z":
                return False
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def stands_still(self) -> bool:
        """Whether none of its threads does anything: all are stopped, or it is gone."""
        try:
            threads = os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            return True
        return all(_state(f"{self.pid}/task/{thread}") in "tTZX" for thread in threads)

    def told(self, name: str) -> str:
        """A variable of its environment as it was at its start; empty where there is none."""
        for entry in _read(self.pid, "environ").split(b"\0"):
            key, _, value = entry.partition(b"=")
            if key == name.encode():
                return value.decode(errors="replace")
        return ""


def look(pid: int) -> Process | None:
    text = _read(pid, "stat").decode(errors="replace")
    if not text:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    words = text.rpartition(")")[2].split()
    return Process(pid, int(words[19]), int(words[1]), name, words[0])


def everybody() -> list[Process]:
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def ours(told: Path | str) -> list[Process]:
    """Processes whose environment or command has it (a folder of ours, or a mark that we gave),
    whoever their parents are now. Zombies have neither, and are none."""
    mark, me = os.fsencode(told), os.getpid()
    return [
        process
        for process in everybody()
        if process.pid != me
        and (mark in _read(process.pid, "environ") or mark in _read(process.pid, "cmdline"))
    ]


def family(pid: int) -> dict[str, list[Process]]:
    """Guardian, keepers and trials below a command line that runs."""
    everyone = everybody()
    guards = [each for each in everyone if each.parent == pid and each.name == "sweepfw-guard"]
    above = {guard.pid for guard in guards}
    keepers = [each for each in everyone if each.parent in above and each.name == "sweepfw-keeper"]
    above = {keeper.pid for keeper in keepers}
    trials = [each for each in everyone if each.parent in above and each.state != "Z"]
    return {"guard": guards, "keeper": keepers, "trial": trials}


def _state(place: str) -> str:
    """`X`, dead, where nobody is there any more."""
    return _read(place, "stat").rpartition(b")")[2].decode()[1:2] or "X"


def _read(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
