"""A guardian with its keepers for a test, and eyes for what is left of trials."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweepfw.trial.guard.client import Ended, Guardian, Keeper, LogGrew, Setup, Snapshot, Start


def mark() -> str:
    """A word that no other process has in its command line."""
    return f"mark-{uuid.uuid4().hex}"


def alive(word: str) -> list[int]:
    """The processes, zombies aside, that have this word in their command line, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def gone(word: str, seconds: float = 60) -> None:
    """Wait until nothing with this word is alive; fail after that time."""
    deadline = time.monotonic() + seconds
    while left := alive(word):
        assert time.monotonic() < deadline, f"still alive after {seconds} s: {left}"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def freeze(
    folder: Path, files: Mapping[str, str | bytes | None], modes: Mapping[str, int] | None = None
) -> Snapshot:
    """A snapshot of these files: text, bytes, `-> target` for a link, None for a folder."""
    rows = []
    for name, content in sorted(files.items()):
        if content is None:
            rows.append([name, "dir", 0o755, "", 0])
        elif isinstance(content, str) and content.startswith("-> "):
            rows.append([name, "link", 0o777, content[3:], 0])
        else:
            data = content if isinstance(content, bytes) else content.encode()
            digest = hashlib.sha256(data).hexdigest()
            place = folder / "objects" / digest[:2] / digest[2:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            rows.append([name, "file", (modes or {}).get(name, 0o644), digest, len(data)])
    folder.mkdir(exist_ok=True)
    (folder / "m.json").write_text(json.dumps({"files": rows}))
    return Snapshot(str(folder / "m.json"), str(folder / "objects"))


class Lab:
    """Trials on real keepers; trial number n lies in `trials/n`."""

    def __init__(self, root: Path, slots: int = 1, hold: tuple[int, ...] = ()) -> None:
        self.root = root
        self.guardian = Guardian.start()
        self.keepers = self.guardian.keepers(slots, hold)
        self.keeper = self.keepers[0]
        self._trials = 0
        self._setup = 0

    def setup(self, **settings: Any) -> None:
        """What the trials from now on share."""
        self._setup += 1
        env = {"PATH": os.environ["PATH"], **settings.pop("env", {})}
        self._settings = Setup(env=env, **settings)

    def start(self, *argv: str, keeper: Keeper | None = None, **order: Any) -> Path:
        """Start a trial; its attempt's folder."""
        if not self._setup:
            self.setup()
        self._trials += 1
        folder = self.root / "trials" / str(self._trials) / "1"
        target = keeper or self.keeper
        target.prepare(self._setup, self._settings)
        order = {"checkpoint": str(folder.parent / "checkpoint"), "token": f"t{self._trials}", **order}
        target.start(
            Start(setup=self._setup, folder=str(folder), argv=argv, label=f"lab/{self._trials}/1", **order)
        )
        return folder

    def end(self, keeper: Keeper | None = None, seconds: float = 60) -> dict[str, Any]:
        """Wait for the trial's end; its outcome, which is also in its file."""
        deadline = time.monotonic() + seconds
        while not isinstance(event := (keeper or self.keeper).receive(deadline - time.monotonic()), Ended):
            assert event is not None, "the trial did not end"
        return dict(event.outcome)

    def run(self, *argv: str, **order: Any) -> tuple[dict[str, Any], Path]:
        folder = self.start(*argv, **order)
        outcome = self.end()
        if (folder / "outcome.json").exists():
            assert json.loads((folder / "outcome.json").read_text()) == json.loads(json.dumps(outcome))
        return outcome, folder

    def sh(self, script: str, **order: Any) -> tuple[dict[str, Any], Path]:
        return self.run("sh", "-c", script, **order)

    def wait_for(self, text: bytes, folder: Path, seconds: float = 60) -> None:
        """Wait until the trial has printed this."""
        deadline = time.monotonic() + seconds
        while not (folder / "output.log").exists() or text not in (folder / "output.log").read_bytes():
            assert time.monotonic() < deadline, f"{text!r} was not printed"
            time.sleep(0.005)

    def close(self) -> None:
        self.guardian.close()
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # orphans of later tests are not this process's


def lab_in(root: Path, slots: int = 1) -> Iterator[Lab]:
    lab = Lab(root, slots)
    yield lab
    lab.close()


__all__ = ["Ended", "Lab", "LogGrew", "alive", "children_of", "freeze", "gone", "lab_in", "mark"]
