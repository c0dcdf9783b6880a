"""A workspace that chaos strikes: its disk, its command lines, its witnesses, and what it tells."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import attempt_folder
import cases
import witness
from here_processes import ours
from invariants import Kept, Key, Sample

REPOSITORY = Path(__file__).resolve().parents[2]
LONG = 300.0  # seconds that a command may take before it counts as stuck
LEAVE = 60.0  # seconds that guardian and keepers have for their end; daemons that nobody ends live longer
ROOM_WANTED = 5_000_000  # bytes; with less a person looks what could go
# How a command may end: all well, some failed, stopped, busy, interrupted, or by a signal of ours.
CODES = frozenset({0, 1, 3, 75, 130, -9, -15, -1})


Done: TypeAlias = "subprocess.CompletedProcess[str]"


class Line(NamedTuple):
    """A command line that runs beside us."""

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class World:
    """Folders, and the one command line that holds the sweep. `complaints`: what commands should not say."""

    def __init__(self, jobs: int, room: int | None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="sweepfw-chaos-"))
        self.jobs = jobs
        self.workspace, self.witness = self.root / "workspace", self.root / "witness"
        self.workspace.mkdir()
        self.witness.mkdir()
        self.mounted = room is not None and self._mount(room)
        (self.workspace / ".sweepfw").mkdir(mode=0o700)
        self.complaints: list[str] = []
        self.dealt: dict[str, Sequence[str]] = {}  # cases by project
        self.run: Line | None = None
        self.asking = threading.Lock()  # held while the sampler's `ls` runs
        self._commands = 0
        self._counted = (0, 0)  # bytes of the witness that were read, starts in them
        self.env = self._environment()
        self.secret = os.urandom(16).hex().encode()
        (self.root / "secret").write_bytes(self.secret)
        self.call("secret", "set", witness.SECRET, "--from-file", str(self.root / "secret"))

    # -- the disk --------------------------------------------------------------------------------------

    def _mount(self, room: int) -> bool:
        """The workspace gets a small disk of its own, where this machine lets us mount one."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room},mode=755", "tmpfs", str(self.workspace)]
        return os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0

    def close(self, keep: bool = False) -> None:
        """End what is left of ours, and take the folders away."""
        self.let_go()
        for process in ours(self.root):
            process.send(9)  # type: ignore[arg-type]  # a number is a signal too
        if keep:
            return
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.workspace)], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        """Nothing of the person's own: no deployments, no GPUs, our code and no other."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SWEEPFW_", "VIRTUAL_ENV", "CONDA_", "CUDA_"))
        }
        return kept | {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "XDG_STATE_HOME": str(self.root / "state"),
            "TMPDIR": str(self.root),
            "CUDA_VISIBLE_DEVICES": "",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def project(self, name: str, dealt: Sequence[str]) -> None:
        """A project of these cases, whose trials get the secret."""
        folder = self.workspace / "projects" / name
        cases.write_project(folder, dealt, str(self.witness), secret=self.secret)
        self.dealt[name] = dealt

    # -- command lines ---------------------------------------------------------------------------------

    def start(self, *words: str, **more: str) -> Line:
        """The command line that holds the sweep from now on."""
        self.let_go()
        self.run = self.spawn(*words, **more)
        return self.run

    def spawn(self, *words: str, **more: str) -> Line:
        """A command line beside; what it says goes to a file."""
        self._commands += 1
        said = self.root / f"said-{self._commands}"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweepfw", *words],
                cwd=self.workspace,
                env=self.env | more,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return Line(words, process, said)

    def end(self, line: Line, seconds: float = LONG) -> int:
        """Its exit code, once it has ended; what it said is looked at. One that does not end is killed."""
        try:
            code = line.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.complaints.append(f"`{' '.join(line.words)}` did not end within {seconds:g} s")
            line.process.kill()
            code = line.process.wait()
        self._heed(" ".join(line.words), code, line.said.read_text(errors="replace"))
        return code

    def let_go(self) -> None:
        """The command line that held the sweep is over, or over now."""
        if self.run is not None:
            if self.run.alive:
                self.run.process.kill()
            self.end(self.run)
            self.run = None

    def call(self, *words: str, cwd: Path | None = None, may_refuse: bool = False) -> Done:
        """A command to its end. One that does not end is stuck, and that is a complaint. `may_refuse`: it may
        end with 2, and one line."""
        process = subprocess.Popen(
            [sys.executable, "-m", "sweepfw", *words],
            cwd=cwd or self.workspace,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            out, errors = process.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            self.complaints.append(f"`{' '.join(words)}` did not end within {LONG:g} s")
        self._heed(" ".join(words), process.returncode, errors, may_refuse)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def _heed(self, words: str, code: int, said: str, may_refuse: bool = False) -> None:
        if "Traceback" in said or "this is a bug" in said:
            self.complaints.append(f"`{words}` ended with {code} and said: {said.strip()[-600:]}")
        elif code not in CODES and not (code == 2 and may_refuse and said.count("\n") == 1):
            self.complaints.append(f"`{words}` ended with {code}: {said.strip()[-300:]}")

    # -- looking ---------------------------------------------------------------------------------------

    def starts(self) -> int:
        """How many trials have begun, as they tell; reads only what is new."""
        path = self.witness / "witness.jsonl"
        size, count = self._counted
        if path.exists() and path.stat().st_size > size:
            with path.open("rb") as file:
                file.seek(size)
                new = file.read()
            new = new[: new.rfind(b"\n") + 1]  # the last line may be half there
            self._counted = size + len(new), count + new.count(b'{"what": "start"')
        return self._counted[1]

    def sweeps(self) -> list[dict[str, Any]]:
        """What `ls --json` says; nothing where the ledger can't be read just now."""
        told = self.call("ls", "--json", may_refuse=True)
        return json.loads(told.stdout) if told.returncode == 0 else []

    def show(self, sweep: str) -> dict[str, Any]:
        told = self.call("show", sweep, "--json")
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    def kept(self) -> dict[Key, Kept]:
        """What lies under runs/ of every attempt."""
        found = {}
        for folder in (self.workspace / "runs").glob("*/trials/*/*"):
            if folder.name.isdigit():
                key = (folder.parents[2].name, int(folder.parent.name), int(folder.name))
                found[key] = attempt_folder.read(folder)
        return found

    def make_room(self) -> None:
        """What a person does about a full disk: what trials that were killed left there goes."""
        disk = os.statvfs(self.workspace)
        if not self.mounted or disk.f_bavail * disk.f_frsize > ROOM_WANTED:
            return
        alive = self.run is not None and self.run.alive
        for big in (self.workspace / "runs").glob(f"*/trials/*/*/files/{witness.BIG}"):
            if not alive or (big.parents[1] / "outcome.json").exists():
                with contextlib.suppress(FileNotFoundError):
                    if big.stat().st_size > witness.LITTLE:
                        big.unlink()

    def leftovers(self, seconds: float = LEAVE) -> list[str]:
        """Processes, locks and secrets that nobody should find when all has ended, and that took its time."""
        deadline = time.monotonic() + seconds
        while (alive := list(self._alive())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [*alive, *self._secrets(), *self._unsound()]

    def _alive(self) -> Iterator[str]:
        for process in ours(self.root):
            yield f"process {process.pid} ({process.name}) is left"
        for lock in [*(self.workspace / ".sweepfw/locks").glob("*"), *(self.witness / "locks").glob("*")]:
            if _locked(lock):
                yield f"the lock {lock.relative_to(self.root)} is held"

    def _secrets(self) -> Iterator[str]:
        memory = Path("/dev/shm").glob("sweepfw-*")  # of others too, who take theirs away meanwhile
        for file in _files([self.workspace, *memory]):
            if file.is_file() and self.secret in _bytes(file):
                yield f"the secret lies in {file}"

    def _unsound(self) -> Iterator[str]:
        ledger = self.workspace / ".sweepfw/ledger.db"
        with sqlite3.connect(ledger) as db:
            told = db.execute("PRAGMA integrity_check").fetchall()
        db.close()
        if told != [("ok",)]:
            yield f"SQLite says of the ledger: {told[:3]}"


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    """Of all that is in them; a folder that vanishes is none."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (Path(place, name) for name in names)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Sampler(threading.Thread):
    """Asks `ls` again and again what the sweeps are, beside everything else."""

    def __init__(self, world: World, pause: float = 1.0) -> None:
        super().__init__(daemon=True)
        self._world, self._pause, self._over = world, pause, threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        while not self._over.wait(self._pause):
            with self._world.asking:
                sweeps: Sequence[dict[str, Any]] = self._world.sweeps()
            now = time.monotonic()
            self.samples += [Sample(now, one["sweep"], one["state"], one["counts"]) for one in sweeps]

    def end(self) -> list[Sample]:
        self._over.set()
        self.join()
        return self.samples


def lives(world: World) -> list[witness.Life]:
    return witness.read(world.witness)
