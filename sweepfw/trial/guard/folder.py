"""An attempt's folder: what lies in it before the command starts, and what is kept of it after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sweepfw.trial.guard import outputs
from sweepfw.trial.guard.files import is_folder, measure, spread, walk
from sweepfw.trial.guard.removal import remove
from sweepfw.trial.guard.secret import Hidden
from sweepfw.trial.guard.workcopy import Changes, WorkCopy, read_manifest

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import Any

    from sweepfw.trial.guard.messages import SetupMessage, StartMessage

SLOW = 0.000_5  # seconds; 0.1 ms is usual
SLOW_TIMES = 5


class Spares:
    """Folders that a trial left as new, still where it left them: renaming one is cheaper than making one,
    and far cheaper on ext4, which slows down where much is deleted."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._paths)

    def keep(self, kind: str, path: str) -> None:
        self._paths[kind] = path

    def take(self, kind: str, path: str) -> bool:
        """Make the spare folder of this kind, if there is one, the folder at `path`; whether that worked."""
        spare = self._paths.pop(kind, None)
        if spare is None:
            return False
        try:
            os.rename(spare, path)
        except OSError:  # something is at `path` already, or somebody removed the attempt that it lay in
            _remove(spare)
            return False
        return True

    def drop(self) -> None:
        while self._paths:
            _remove(self._paths.popitem()[1])


class Ground:
    """The folder that holds a sweep's trials, and whether ext4 is quick there.

    Each sweep gets a region of the disk of its own, where creating is fastest, unless much was deleted in
    that region lately: then its trials are spread over the whole disk, which costs the same everywhere.
    """

    def __init__(self) -> None:
        self._trials = ""
        self._slow = 0  # times in a row

    def prepare(self, trials: str) -> None:
        if self._trials != trials:
            runs = os.path.dirname(os.path.dirname(trials))
            os.makedirs(runs, exist_ok=True)
            spread(runs)
            os.makedirs(trials, exist_ok=True)
            self._trials, self._slow = trials, 0

    def note(self, seconds: float) -> None:
        """How long it took to make two folders and a file."""
        self._slow = self._slow + 1 if seconds > SLOW else 0
        if self._slow == SLOW_TIMES:
            spread(self._trials)


class Setup:
    """What all trials of one snapshot share."""

    def __init__(self, message: SetupMessage) -> None:
        self.env = message["env"]
        self.shared = message["shared"]
        self.timeout = message["timeout"]
        self.grace = message["grace"]
        self.log_limit = message["log_limit"]
        self.output_limit = message["output_limit"]
        self.secrets = Hidden(**message["secrets"]) if message["secrets"] else None
        self.has_outputs = bool(message["outputs"])
        self.is_output = outputs.matcher(message["outputs"])
        self._manifest, self._objects = message["manifest"], message["objects"]
        self._copy: WorkCopy | None = None
        self.spares = Spares()
        self.ground = Ground()

    @property
    def copy(self) -> WorkCopy:
        """Raises OSError, ValueError or KeyError where the snapshot can't be read."""
        if self._copy is None:
            rows = read_manifest(self._manifest) if self._manifest else {}
            self._copy = WorkCopy(rows, self._objects or "")
        return self._copy


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
        trial = os.path.dirname(self.path)
        self._setup.ground.prepare(os.path.dirname(trial))
        begun = time.monotonic()
        _make(trial)
        self._begin()
        fd = os.open(self.path + "/params.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.write(fd, self._params.encode())
        finally:
            os.close(fd)
        self._setup.ground.note(time.monotonic() - begun)
        for kind, folder in (("files", self.files), ("checkpoint", self._checkpoint)):
            if not self._setup.spares.take(kind, folder):
                _make(folder)

    def _begin(self) -> None:
        """Make the attempt's own folder. Where one of its number ended before (the ledger is a backup that is
        older than the files), what that left is put aside: nothing of it is lost, or taken for ours."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            if os.path.lexists(self.outcome):
                os.rename(self.path, _free(self.path + ".earlier-"))
                os.mkdir(self.path)

    def fill(self, check: Callable[[], object]) -> None:
        """Put the working copy in its place: the spare one, else a new one."""
        if not self._setup.shared and not self._setup.spares.take("work", self.work):
            self._setup.copy.make(self.work, check)

    def size(self) -> int:
        """Bytes of the output files, those still in the working copy among them."""
        total = measure(self.files)[1]
        if self._setup.has_outputs and not self._setup.shared:
            total += sum(stat.st_size for name, stat in walk(self.work) if self._setup.is_output(name))
        return total

    def gather(self, since_ns: int) -> dict[str, Any]:
        """Move the output files to their place; what is to be told of them and of other new files."""
        left: dict[str, int] = {}
        if not self._setup.shared:
            changes = self._changes = self._setup.copy.compare(self.work, since_ns)
            found = {**changes.new, **changes.changed}
            files = {name: entry.size for name, entry in found.items() if outputs.is_kept_kind(entry.mode)}
            moved = outputs.move(filter(self._setup.is_output, files), self.work, self.files)
            changes.forget(moved)
            left = {n: size for n, size in files.items() if n in changes.new and not outputs.is_cache(n)}
        return {"left": outputs.largest(left), "left_count": len(left), "files": self._tidy()}

    def _tidy(self) -> dict[str, int]:
        """Take away the folders that nobody used; how many output files there are, and their bytes."""
        if _is_empty(self._checkpoint):
            self._setup.spares.keep("checkpoint", self._checkpoint)
        if _is_empty(self.files):
            self._setup.spares.keep("files", self.files)
            return {"count": 0, "bytes": 0}
        count, size = measure(self.files)
        return {"count": count, "bytes": size}

    def discard_work(self) -> None:
        """Nothing ran here: nothing of it is worth keeping."""
        self._tidy()
        if not self._setup.shared:
            _remove(self.work)

    def keep_work(self) -> None:
        """Make the working copy, put right again, the next trial's."""
        if self._setup.shared:
            return
        try:
            self._setup.copy.restore(self.work, self._changes)
        except OSError:
            _remove(self.work)
        else:
            self._setup.spares.keep("work", self.work)


def _make(folder: str) -> None:
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder)


def _free(start: str) -> str:
    """`start` and the lowest number that is no file's name yet."""
    number = 1
    while os.path.lexists(f"{start}{number}"):
        number += 1
    return f"{start}{number}"


def _is_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None and is_folder(folder)
    except OSError:
        return False


def _remove(folder: str) -> None:
    try:
        remove(folder)
    except OSError:
        pass  # of another user, or too deeply nested: `gc` and the user see it where it lies
