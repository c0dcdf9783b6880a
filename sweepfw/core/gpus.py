"""GPUs as nvidia-smi tells of them: what to ask, and how to read the answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from sweepfw.core.command import cmd

LIST = cmd(
    "nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.used", "--format=csv,noheader,nounits"
)
PROCESSES = cmd(
    "nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits"
)

_MIB = 1 << 20
_ROW = re.compile(r"(\d+), ((?:GPU|MIG)-[0-9a-zA-Z/-]+), (.+), ([^,]+), ([^,]+)")
_PROCESS = re.compile(r"((?:GPU|MIG)-[0-9a-zA-Z/-]+), (\d+), .*")
# Drivers and desktops hold some memory where nobody computes.
_IDLE_BYTES, _IDLE_SHARE = 2_000_000_000, 0.1


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this host. Memory in bytes, None where nvidia-smi does not say. `pids`: who computes on it."""

    index: int
    uuid: str
    name: str
    memory: int | None = None
    used: int | None = None
    pids: tuple[int, ...] = ()


def read_gpus(text: str, processes: str = "") -> tuple[Gpu, ...]:
    """The GPUs in what LIST printed, with the processes in what PROCESSES printed. Reads what it can."""
    gpus = [
        Gpu(int(match[1]), match[2], match[3], _bytes(match[4]), _bytes(match[5]))
        for row in text.splitlines()
        if (match := _ROW.fullmatch(row.strip()))
    ]
    found = [match for line in processes.splitlines() if (match := _PROCESS.fullmatch(line.strip()))]
    return tuple(replace(gpu, pids=tuple(int(m[2]) for m in found if m[1] == gpu.uuid)) for gpu in gpus)


def complaint(text: str) -> str | None:
    """nvidia-smi's own first words about a GPU that it can't speak to, or about its driver."""
    rows = [row.strip() for row in text.splitlines() if row.strip() and not row.startswith("No devices")]
    return next((row[:200] for row in rows if not _ROW.fullmatch(row)), None)


def others(gpu: Gpu, ours: Collection[int] = ()) -> str | None:
    """Why the GPU is not free for us, or None. Call it while nothing of ours computes there, or name it.

    In a container the pids of others can't be seen, but the memory that they hold can.
    """
    strangers = [pid for pid in gpu.pids if pid not in ours]
    if strangers:
        return f"GPU {gpu.index} ({gpu.name}) is used by process {', '.join(map(str, strangers[:5]))}"
    if ours or gpu.memory is None or gpu.used is None:
        return None
    if gpu.used > max(_IDLE_BYTES, gpu.memory * _IDLE_SHARE):
        held, all_of_it = gpu.used / 10**9, gpu.memory / 10**9
        return f"GPU {gpu.index} ({gpu.name}) has {held:.1f} of {all_of_it:.0f} GB in use by others"
    return None


def _bytes(text: str) -> int | None:
    """MiB as nvidia-smi counts them; `[N/A]` and its like are None."""
    return int(float(text) * _MIB) if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else None
