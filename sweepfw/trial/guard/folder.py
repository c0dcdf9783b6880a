"""An attempt's folder: what lies in it before the command starts, and what is kept of it after."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sweepfw.trial.guard import outputs
from sweepfw.trial.guard.files import measure, remove, walk
from sweepfw.trial.guard.workcopy import Changes, WorkCopy, read_manifest

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from sweepfw.trial.guard.messages import SetupMessage, StartMessage


class Setup:
    """What all trials of one snapshot share, with the working copy that the last one left for the next."""

    def __init__(self, message: SetupMessage) -> None:
        self.env = message["env"]
        self.shared = message["shared"]
        self.timeout = message["timeout"]
        self.grace = message["grace"]
        self.log_limit = message["log_limit"]
        self.output_limit = message["output_limit"]
        self.is_output = outputs.matcher(message["outputs"])
        self._manifest, self._objects = message["manifest"], message["objects"]
        self._copy: WorkCopy | None = None
        self.spare = ""  # the folder of a copy that is as new

    @property
    def copy(self) -> WorkCopy:
        """Raises OSError, ValueError or KeyError where the snapshot can't be read."""
        if self._copy is None:
            rows = read_manifest(self._manifest) if self._manifest else {}
            self._copy = WorkCopy(rows, self._objects or "")
        return self._copy

    def drop_spare(self) -> None:
        if self.spare:
            spare, self.spare = self.spare, ""
            try:
                remove(spare)
            except OSError:
                pass  # of another user, or too deeply nested: `gc` and the user see it where it lies


class AttemptFolder:
    """The paths of one attempt. Methods raise OSError."""

    def __init__(self, start: StartMessage, setup: Setup) -> None:
        self._setup = setup
        self.path = start["folder"]
        self.log = self.path + "/output.log"
        self.outcome = self.path + "/outcome.json"
        self.files = self.path + "/files"
        self.work = setup.shared or self.path + "/work"
        self._params = start["params"]
        self._checkpoint = start["checkpoint"]
        self._changes = Changes({}, {}, [])

    def make(self) -> None:
        try:
            os.mkdir(self.path)
        except FileNotFoundError:
            os.makedirs(self.path)
        except FileExistsError:
            pass
        fd = os.open(self.path + "/params.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.write(fd, self._params.encode())
        finally:
            os.close(fd)
        for folder in (self.files, self._checkpoint):
            try:
                os.mkdir(folder)
            except FileNotFoundError:
                os.makedirs(folder)
            except FileExistsError:
                pass

    def fill(self, check: Callable[[], object]) -> None:
        """Put the working copy in its place: the spare one, else a new one."""
        if self._setup.shared:
            return
        spare, self._setup.spare = self._setup.spare, ""
        if spare:
            try:
                os.rename(spare, self.work)
            except OSError:
                remove(spare)
            else:
                return
        self._setup.copy.make(self.work, check)

    def size(self) -> int:
        """Bytes of the output files, those still in the working copy among them."""
        total = measure(self.files)[1]
        if not self._setup.shared:
            total += sum(stat.st_size for name, stat in walk(self.work) if self._setup.is_output(name))
        return total

    def gather(self, since_ns: int) -> dict[str, Any]:
        """Move the output files to their place; what is to be told of them and of other new files."""
        left: dict[str, int] = {}
        if not self._setup.shared:
            changes = self._changes = self._setup.copy.compare(self.work, since_ns)
            found = {**changes.new, **changes.changed}
            files = {name: stat.st_size for name, stat in found.items() if outputs.is_kept_kind(stat.st_mode)}
            moved = outputs.move(filter(self._setup.is_output, files), self.work, self.files)
            changes.forget(moved)
            left = {n: size for n, size in files.items() if n in changes.new and not outputs.is_cache(n)}
        return {"left": outputs.largest(left), "left_count": len(left), "files": self._tidy()}

    def _tidy(self) -> dict[str, int]:
        """Remove the folders that nobody used; how many output files there are, and their bytes."""
        count, size = (0, 0) if _remove_empty(self.files) else measure(self.files)
        _remove_empty(self._checkpoint)
        return {"count": count, "bytes": size}

    def discard_work(self) -> None:
        """Nothing ran here: nothing of it is worth keeping."""
        self._tidy()
        if not self._setup.shared:
            try:
                remove(self.work)
            except OSError:
                pass

    def keep_work(self) -> None:
        """Make the working copy, put right again, the next trial's."""
        if self._setup.shared:
            return
        try:
            self._setup.copy.restore(self.work, self._changes)
        except OSError:
            self.discard_work()
        else:
            self._setup.spare = self.work


def _remove_empty(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
