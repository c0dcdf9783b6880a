"""The workspace: the nearest parent folder with `.sweepfw/`, else the current one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from sweepfw.errors import SweepError

STATE = ".sweepfw"


def state_home() -> Path:
    """The user's state folder, which belongs to no workspace. It is made with the first file in it."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return base / "sweepfw"


class Workspace(NamedTuple):
    """Where projects, runs and our own state lie. Nothing is made before `prepare`."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> Workspace:
        """The workspace that `start` is in. A home folder's `.sweepfw` counts like any other; one that
        somebody else put there, as everybody can in /tmp, does not. SweepError where that is in `start`."""
        start = start.absolute()
        for folder in (start, *start.parents):
            if (folder / STATE).is_dir():
                if _ours(folder):
                    return cls(folder)
                if folder == start:
                    raise SweepError(
                        f"{folder / STATE}: belongs to somebody else; go to a folder of your own"
                    )
        return cls(start)

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"

    @property
    def snapshots(self) -> Path:
        return self.state / "snapshots"

    @property
    def environments(self) -> Path:
        return self.state / "envs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def projects(self) -> Path:
        return self.root / "projects"

    def run(self, sweep: str) -> Path:
        """The folder of a sweep."""
        return self.runs / sweep

    def trial(self, sweep: str, trial: int) -> Path:
        return self.runs / sweep / "trials" / str(trial)

    def attempt(self, sweep: str, trial: int, attempt: int) -> Path:
        return self.trial(sweep, trial) / str(attempt)

    def prepare(self) -> None:
        """Make `.sweepfw/` (for its owner only, ignored by git) and `runs/`. SweepError where that fails."""
        try:
            self.state.mkdir(mode=0o700, exist_ok=True)
            ignore = self.state / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            self.runs.mkdir(exist_ok=True)
        except OSError as error:
            raise SweepError(
                f"{self.root}: the workspace can't be written ({error.strerror}); "
                "run sweepfw in a folder that you own"
            ) from None


def _ours(folder: Path) -> bool:
    """Whether nobody but us and root can have made the folder a workspace. Root may work in a user's."""
    state, me = folder / STATE, os.geteuid()
    if {state.lstat().st_uid, state.stat().st_uid} <= {me, 0}:
        return True
    return me == 0 and not folder.stat().st_mode & 0o002
