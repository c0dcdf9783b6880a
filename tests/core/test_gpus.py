"""What nvidia-smi prints -> GPUs; every case is a file in tests/cases/gpus."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sweepfw.core.gpus import Gpu, complaint, others, read_gpus

CASES = sorted((Path(__file__).parents[1] / "cases/gpus").glob("*.yml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    found = read_gpus(case["list"], case.get("processes", ""))
    assert [[g.index, g.uuid, g.name, g.memory, g.used, list(g.pids)] for g in found] == case["gpus"]
    assert complaint(case["list"]) == case.get("complaint")
    assert [others(gpu) for gpu in found] == case.get("busy", [])


def test_our_own_processes_are_no_strangers() -> None:
    gpu = Gpu(0, "GPU-1", "A", 10**11, 9 * 10**10, (7, 8))
    assert others(gpu, ours={7, 8}) is None
    assert others(gpu, ours={7}) == "GPU 0 (A) is used by process 8"
