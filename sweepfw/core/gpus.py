"""GPUs as nvidia-smi tells of them: what to ask, and how to read the answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
_NONE = ("", "-1", "NoDevFiles")  # words by which people and container tools hide GPUs
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


def visible(gpus: Sequence[Gpu], wanted: str | None) -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs that a CUDA_VISIBLE_DEVICES shows, and the word in it that names none of them, or None.

    As CUDA reads it: nothing counts from the first such word on. Numbers are nvidia-smi's. None: unset.
    """
    if wanted is None:
        return tuple(gpus), None
    shown: list[Gpu] = []
    for word in wanted.split(","):
        found = [gpu for gpu in gpus if _names(word.strip(), gpu)]
        if len(found) != 1:
            return tuple(shown), None if word.strip() in _NONE else word.strip()
        shown += [gpu for gpu in found if gpu not in shown]
    return tuple(shown), None


def hides_all(wanted: str | None) -> bool:
    """Whether a CUDA_VISIBLE_DEVICES shows no GPU, whatever there are."""
    return wanted is not None and wanted.split(",")[0].strip() in _NONE


def _names(word: str, gpu: Gpu) -> bool:
    """By number, or by a UUID that may be cut off."""
    return word == str(gpu.index) or (word.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(word))


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
