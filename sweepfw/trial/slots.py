"""What this machine has for trials: CPUs, memory, GPUs; and the locks by which runs share the GPUs."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sweepfw.core import gpus as nvidia
from sweepfw.core.command import Cmd
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Needs
from sweepfw.core.schedule import Room
from sweepfw.errors import SweepError
from sweepfw.shell.shell import Result, Shell

_ROOT = Path("/")
_LOOK = 0.02  # seconds between two looks at a lock that another run holds
_PATIENCE = 60.0  # seconds; a driver without persistence mode takes some for each GPU


def room(needs: Needs, host: str, shell: Shell, warn: Callable[[str], None] = lambda _: None) -> Room:
    """What this machine has, and of its GPUs those that the user's own CUDA_VISIBLE_DEVICES shows.

    Trials with `gpus: 0`, and a user who hides all GPUs, don't make it ask for any.
    """
    there = frozenset(path for path in needs.paths if os.access(path, os.F_OK))
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = () if needs.gpus == 0 or nvidia.hides_all(wanted) else gpus(shell, warn)
    shown, unknown = nvidia.visible(found, wanted)
    if found and unknown:
        warn(
            f"CUDA_VISIBLE_DEVICES: nvidia-smi lists no GPU {unknown!r}; no slot for it, nor for what follows"
        )
    return Room(host, cpus(), shown, memory(), there, visible=wanted)


def gpus(shell: Shell, warn: Callable[[str], None] = lambda _: None) -> tuple[Gpu, ...]:
    """The GPUs of this machine and who computes there; none where nvidia-smi is absent.

    Where it fails, `warn` gets one line with its words, and there are none.
    """
    if not shell.has("nvidia-smi"):
        return ()
    try:
        answer, computing = _side_by_side(shell, nvidia.LIST, nvidia.PROCESSES)
    except SweepError as error:
        warn(str(error))
        return ()
    found = nvidia.read_gpus(answer.text, computing.text if computing.code == 0 else "")
    said = nvidia.complaint(answer.text)
    if said or (answer.code and not found and not answer.text.startswith("No devices")):
        warn(f"nvidia-smi: {said or f'exit {answer.code}'}; GPUs that do not answer are not used")
    return found


def _side_by_side(shell: Shell, here: Cmd, beside: Cmd) -> tuple[Result, Result]:
    """Run two commands at once. A Ctrl-C ends the wait; nothing waits at exit for one that hangs."""
    answers: list[Result | SweepError] = []

    def ask() -> None:
        try:
            answers.append(shell.run(beside, timeout=_PATIENCE))
        except SweepError as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    answer = shell.run(here, timeout=_PATIENCE)
    thread.join()
    [other] = answers
    if isinstance(other, SweepError):
        raise other
    return answer, other


def busy(gpu: str, shell: Shell) -> str | None:
    """Why nothing may start on the GPU with this UUID now: it does not answer, or others compute there."""
    complaints: list[str] = []
    found = next((each for each in gpus(shell, complaints.append) if each.uuid == gpu), None)
    if found is None:
        return complaints[0] if complaints else f"GPU {gpu} does not answer any more"
    why = nvidia.others(found)
    return f"{why}{_who(found.pids[0])}" if why and found.pids else why


def _who(pid: int) -> str:
    """Whose process it is and what it runs, where that can be seen."""
    try:
        import pwd

        owner = pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, KeyError):
        return ""
    return f" ({name} of {owner})"


def cpus(root: Path = _ROOT) -> float:
    """CPUs that we may use: by affinity, and by the quota of our control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    return max(1.0, min([float(affinity), *quotas]))


def memory(root: Path = _ROOT) -> int | None:
    """Bytes of memory that we may use: the machine's, or the limit of our control groups."""
    total = re.search(r"^MemTotal: +(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    limits = [int(total[1]) * 1024] if total else []
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name).strip()
            limits += [int(text)] if text.isdecimal() else []
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> list[Path]:
    """The folders of our control group and of those above it, in both versions of the hierarchy."""
    found: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers if controllers else root / "sys/fs/cgroup"
        inner = base / path.lstrip("/")
        found += [inner, *(folder for folder in inner.parents if folder.is_relative_to(base))]
    return found


def _quota(folder: Path) -> float | None:
    """CPUs that the control group allows, None without a limit."""
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        return int(words[0]) / int(words[1])
    return None  # "max", "-1" or no such file


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class GpuLock:
    """One run at a time computes on a GPU: a lock for each GPU and machine, shared by all its users.

    The lock belongs to the open file, not to this process: whoever got `fd` (guardian and keepers) keeps
    it held after this process was killed, for as long as a trial of it may live. `release` frees it for all
    of them. The file stays when it is free, since removing it could hand out the lock twice.
    Who waits holds a second file meanwhile, so that a run whose trials follow one another lets others in.
    """

    def __init__(self, uuid: str, folder: Path = Path("/tmp")) -> None:  # noqa: S108  # all users meet here
        name = re.sub(r"[^A-Za-z0-9-]", "-", uuid)
        self.uuid = uuid
        self.path = folder / f"sweepfw-gpu-{name}.lock"
        self.fd = _open_shared(self.path)
        self._next = _open_shared(self.path.with_suffix(".next"))

    def try_acquire(self, wait: float = 0) -> bool:
        """Whether the lock is ours now, or within so many seconds."""
        deadline = time.monotonic() + wait
        if not _lock(self._next, deadline):
            return False
        try:
            if not _lock(self.fd, deadline):
                return False
        finally:
            _unlock(self._next)
        os.utime(self.fd)  # so that nobody who cleans up old files takes it
        return True

    def release(self) -> None:
        _unlock(self.fd)

    def close(self) -> None:
        """Let go of the file; the lock stays held while another process has it."""
        os.close(self.fd)
        os.close(self._next)


def _lock(fd: int, deadline: float) -> bool:
    from fcntl import LOCK_EX, LOCK_NB, flock

    while True:
        try:
            flock(fd, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        else:
            return True


def _unlock(fd: int) -> None:
    from fcntl import LOCK_UN, flock

    flock(fd, LOCK_UN)


def _open_shared(path: Path) -> int:
    """Open the file, made if need be so that every user of the machine can open it.

    Opened without O_CREAT first: the kernel refuses that flag on another user's file in /tmp.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    for attempt in range(3):
        try:
            descriptor = os.open(path, flags | (os.O_CREAT | os.O_EXCL if attempt % 2 else 0), 0o666)
        except (FileNotFoundError, FileExistsError):
            continue
        except OSError as error:
            raise _unusable(path, error.strerror) from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise _unusable(path, "not a plain file")
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != 0o666:
            os.fchmod(descriptor, 0o666)  # whatever our umask is
        return descriptor
    raise _unusable(path, "it comes and goes")


def _unusable(path: Path, why: str | None) -> SweepError:
    return SweepError(f"{path}: the GPU's lock can't be used ({why}); ask its owner or an admin to remove it")
