"""GPUs, CPUs and memory of this machine, and the locks by which runs share GPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sweepfw.core.model import Needs
from sweepfw.core.schedule import slots_for
from sweepfw.errors import SweepError
from sweepfw.shell.fake import FakeShell
from sweepfw.shell.local import LocalShell
from sweepfw.shell.shell import Result
from sweepfw.trial.slots import GpuLock, busy, cpus, gpus, memory, room

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) cat <<'END'
0, GPU-8f2b9a1c-52d3-4f0e-9a57-3d2c1b0a9e8f, NVIDIA GeForce RTX 3090, 24576, 10261
1, GPU-1c0de5a7-77b1-4c2f-8d3e-5b6a79881234, NVIDIA GeForce RTX 3090, 24576, 14
END
  ;;
  --query-compute-apps=*) echo "GPU-8f2b9a1c-52d3-4f0e-9a57-3d2c1b0a9e8f, {pid}, 10240" ;;
  *) echo "unknown option $1" >&2; exit 2 ;;
esac
"""
FIRST, SECOND = "GPU-8f2b9a1c-52d3-4f0e-9a57-3d2c1b0a9e8f", "GPU-1c0de5a7-77b1-4c2f-8d3e-5b6a79881234"


def smi(folder: Path, text: str) -> LocalShell:
    """A shell that finds this nvidia-smi."""
    program = folder / "nvidia-smi"
    program.write_text(text)
    program.chmod(0o755)
    return LocalShell({**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})


def test_gpus_as_nvidia_smi_tells(tmp_path: Path) -> None:
    found = gpus(smi(tmp_path, SMI.replace("{pid}", str(os.getpid()))), pytest.fail)
    assert [(gpu.uuid, gpu.pids) for gpu in found] == [(FIRST, (os.getpid(),)), (SECOND, ())]


def test_who_else_computes_is_told_with_name_and_owner(tmp_path: Path) -> None:
    shell = smi(tmp_path, SMI.replace("{pid}", str(os.getpid())))
    why = busy(FIRST, shell)
    assert why is not None and why.startswith(
        f"GPU 0 (NVIDIA GeForce RTX 3090) is used by process {os.getpid()} ("
    )
    assert Path("/proc/self/comm").read_text().strip() in why
    assert busy(SECOND, shell) is None
    assert busy("GPU-other", shell) == "GPU GPU-other does not answer any more"


def test_without_nvidia_smi_nothing_is_asked() -> None:
    shell = FakeShell({})
    assert gpus(shell, pytest.fail) == ()
    assert shell.ran == []


ROWS = "".join(f"{n}, {uuid}, A, 100, 0\n" for n, uuid in [(0, "GPU-aa-0"), (1, "GPU-ab-1"), (2, "GPU-b-2")])


@pytest.mark.parametrize(
    ("visible", "wanted", "unknown"),
    [
        (None, [0, 1, 2], None),
        ("0,2", [0, 2], None),
        ("2, 0", [0, 2], None),
        ("1,1", [1], None),
        ("GPU-b-2,0", [0, 2], None),
        ("GPU-ab", [1], None),
        ("GPU-a,1", [], "GPU-a"),
        ("GPU-", [], "GPU-"),
        ("0,3,1", [0], "3"),
        ("0,-1,1", [0], None),
        ("0,", [0], None),
        ("MIG-5a,1", [], "MIG-5a"),
        ("all", [], "all"),
        ("", [], None),
        (" ", [], None),
        ("-1", [], None),
        ("NoDevFiles", [], None),
    ],
)
def test_the_users_own_choice_limits_the_gpus(
    visible: str | None, wanted: list[int], unknown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said: list[str] = []
    shell = FakeShell({"nvidia-smi --query-gpu*": ROWS, "nvidia-smi --query-compute*": ""})
    there = room(Needs(), "box", shell, said.append)
    assert sorted(gpu.index for gpu in there.gpus) == wanted
    assert said == (
        [f"CUDA_VISIBLE_DEVICES: nvidia-smi lists no GPU {unknown!r}; no slot for it, nor for what follows"]
        if unknown
        else []
    )
    assert shell.ran or (not wanted and not unknown)  # nobody asks a driver for GPUs that are hidden
    assert busy("GPU-ab-1", shell) is None


def test_needs_that_the_users_own_choice_does_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    needs = Needs(gpus=2)
    shell = FakeShell({"nvidia-smi --query-gpu*": ROWS, "nvidia-smi --query-compute*": ""})
    with pytest.raises(
        SweepError, match=r"trials need 2 GPUs, but box has A with .* CUDA_VISIBLE_DEVICES=1;"
    ):
        slots_for(room(needs, "box", shell, pytest.fail), needs)


def test_trials_without_gpus_do_not_ask(tmp_path: Path) -> None:
    shell = FakeShell({"nvidia-smi*": ""})
    there = room(Needs(gpus=0, paths=(str(tmp_path), "/no/such")), "box", shell, pytest.fail)
    assert shell.ran == []
    assert (there.host, there.paths) == ("box", frozenset({str(tmp_path)}))


@pytest.mark.parametrize(
    "answer", ["Failed to initialize NVML: Driver/library version mismatch", "NVIDIA-SMI has failed because"]
)
def test_a_driver_that_fails_is_one_warning_and_no_gpus(answer: str) -> None:
    said: list[str] = []
    assert gpus(FakeShell({"nvidia-smi*": Result(18, answer.encode())}), said.append) == ()
    assert said == [f"nvidia-smi: {answer}; GPUs that do not answer are not used"]


def test_no_devices_is_no_warning() -> None:
    assert gpus(FakeShell({"nvidia-smi*": Result(6, b"No devices were found\n")}), pytest.fail) == ()


def test_processes_that_can_not_be_asked_leave_the_gpus() -> None:
    row = f"0, {FIRST}, A, 100, 0\n"
    shell = FakeShell(
        {"nvidia-smi --query-gpu*": row, "nvidia-smi --query-compute*": Result(3, b"Field is not valid")}
    )
    assert [gpu.pids for gpu in gpus(shell, pytest.fail)] == [()]


# -- CPUs and memory -----------------------------------------------------------------------------------


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_cpus_are_those_that_we_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from sweepfw.trial.slots import cpus; print(cpus())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(told) == 1


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "120000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            1.2,
        ),
        ({"proc/self/cgroup": "4:cpu:/job\n", "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_counts(tmp_path: Path, files: dict[str, str], wanted: float | None) -> None:
    everything = len(os.sched_getaffinity(0))
    assert cpus(write(tmp_path, files)) == min(wanted or everything, everything)


def test_memory_is_the_least_of_the_limits(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\n"})
    assert memory(root) == 16_384_000_000
    write(root, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "8000000000\n"})
    write(root, {"sys/fs/cgroup/a/b/memory.max": "max\n"})
    assert memory(root) == 8_000_000_000
    assert memory(tmp_path / "nothing") is None


# -- locks ---------------------------------------------------------------------------------------------

HOLD = """
import os, select, sys
from pathlib import Path
from sweepfw.trial.slots import GpuLock
lock = GpuLock("GPU-1", Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
if os.fork() == 0:  # as a guardian has it: the same open file
    select.select([0], [], [], 250)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_one_run_at_a_time(tmp_path: Path) -> None:
    mine, other, neighbour = (GpuLock(uuid, tmp_path) for uuid in ("GPU-1", "GPU-1", "GPU-2"))
    assert mine.try_acquire()
    assert not other.try_acquire()
    assert neighbour.try_acquire()
    mine.release()
    assert other.try_acquire()
    other.close()
    assert mine.try_acquire()


def test_the_lock_outlives_a_killed_run_for_as_long_as_its_guardian_lives(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None and run.stdin is not None
        assert run.stdout.readline() == b"True\n"
        run.wait()
        assert run.returncode == -signal.SIGKILL
        mine = GpuLock("GPU-1", tmp_path)
        assert not mine.try_acquire()
        run.stdin.close()
        wait_until(mine.try_acquire, what="the lock is free")


def test_every_user_can_open_the_lock_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = GpuLock("GPU-1", tmp_path)
    finally:
        os.umask(before)
    assert lock.path.stat().st_mode & 0o777 == 0o666
    assert lock.path == tmp_path / "sweepfw-gpu-GPU-1.lock"
    assert not os.get_inheritable(lock.fd)


def test_a_uuid_never_leads_elsewhere(tmp_path: Path) -> None:
    assert GpuLock("MIG-GPU-1/../../x/0", tmp_path).path.parent == tmp_path


@pytest.mark.parametrize("trap", ["link", "fifo", "folder"])
def test_traps_that_others_leave_are_refused(tmp_path: Path, trap: str) -> None:
    path = tmp_path / "sweepfw-gpu-GPU-1.lock"
    if trap == "link":
        (tmp_path / "victim").write_text("")
        path.symlink_to(tmp_path / "victim")
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(SweepError, match="lock can't be used"):
        GpuLock("GPU-1", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="two users need root to be had")
def test_two_users_share_a_lock_in_a_sticky_folder() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    try:
        lock = GpuLock("GPU-1", folder)
        os.chown(lock.path, 65534, 65534)  # made by another user: the kernel refuses O_CREAT on it
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65533)
                code = 0 if GpuLock("GPU-1", folder).try_acquire() else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        shutil.rmtree(folder)
