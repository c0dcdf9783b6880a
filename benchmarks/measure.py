"""What both benchmarks need: a yardstick, a clock, spreads, and a place to work in."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
_SCRIPT = Path(sys.executable).with_name("sweepfw")
SWEEPFW = (str(_SCRIPT),) if _SCRIPT.exists() else (sys.executable, "-m", "sweepfw")
# Threads and variables of the caller should not decide a figure.
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def compiled(name: str, folder: Path) -> str:
    """The path of benchmarks/NAME.c, compiled into `folder`; exits where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("a C compiler is missing (Debian, Ubuntu: apt install gcc libc6-dev)")
    built = folder / name
    subprocess.run([compiler, "-O2", "-o", built, HERE / f"{name}.c"], check=True)
    return str(built)


def seconds(command: Sequence[str], **options: object) -> float:
    """Wall-clock seconds that the command takes; it must succeed."""
    begun = time.perf_counter()
    done = subprocess.run(command, check=False, **{**QUIET, **options})
    spent = time.perf_counter() - begun
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return spent


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Least, median and most of the values, in columns."""
    return "  ".join(
        form.format(each).rjust(9) for each in (min(values), statistics.median(values), max(values))
    )


def fsync_seconds(folder: Path, times: int = 30) -> list[float]:
    """How long the disk under `folder` takes to make 4 KB durable."""
    path, taken = folder / "fsync", []
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(times):
        os.write(file, b"x" * 4096)
        begun = time.perf_counter()
        os.fsync(file)
        taken.append(time.perf_counter() - begun)
    os.close(file)
    path.unlink()
    return taken


def make_project(workspace: Path, name: str, project: str, parameters: str) -> None:
    """A project in a workspace of its own, so that nothing around it is found."""
    (workspace / ".sweepfw").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = workspace / "projects" / name
    folder.mkdir(parents=True)
    (folder / "project.yml").write_text(project)
    (folder / "parameters.yml").write_text(parameters)


def machine(folder: Path) -> str:
    """One line on where this ran."""
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    synced = " / ".join(spread([each * 1000 for each in fsync_seconds(folder)]).split())
    return (
        f"{os.cpu_count()} CPUs, load {load}, Linux {platform.release()}, "
        f"Python {platform.python_version()}\n"
        f"fsync of 4 KB here: {synced} ms (min / median / max)"
    )
