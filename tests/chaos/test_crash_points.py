"""The table of crash points against the source, and what happens where nobody asked for one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_cases import ALL

from sweepfw import crash

SOURCE = Path(crash.__file__).parent
CALL = re.compile(r"\bcrash\.point\(([^)]*)\)")
COME_BY = "crash.point('claim.rows')"
DIE = f"from sweepfw import crash; {COME_BY}; print('one', flush=True); {COME_BY}"


def called() -> list[str]:
    """What is written between the brackets of every call."""
    texts = (path.read_text() for path in SOURCE.rglob("*.py") if path.name != "crash.py")
    return [found for text in texts for found in CALL.findall(text)]


def test_every_point_is_in_the_source_and_in_the_table() -> None:
    assert {f'"{name}"' for name in crash.POINTS} == set(called())


def test_every_point_is_struck_by_a_case() -> None:
    assert set().union(*(case.points for case in ALL)) == set(crash.POINTS)


def die(told: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(SOURCE.parent), crash.VARIABLE: told}
    return subprocess.run([sys.executable, "-c", DIE], env=env, capture_output=True, text=True, timeout=60)


def test_the_nth_pass_is_the_last() -> None:
    assert (die("claim.rows:1").returncode, die("claim.rows:1").stdout) == (-9, "")
    assert (die("claim.rows:2").returncode, die("claim.rows:2").stdout) == (-9, "one\n")
    assert die("claim.rows:3").returncode == 0
    assert die("finish.rows:1").returncode == 0
    assert die("").returncode == 0


def test_with_a_file_only_the_first_dies(tmp_path: Path) -> None:
    file = tmp_path / "struck:here"
    assert die(f"claim.rows:2:{file}").returncode == -9
    assert file.exists()
    assert die(f"claim.rows:1:{file}").returncode == 0


@pytest.mark.parametrize(
    "told", ["nonsense:1", "claim.rows", "claim.rows:0", "claim.rows:-1", "claim.rows:²"]
)
def test_what_makes_no_sense_is_one_line(
    told: str, sweepfw: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = sweepfw("ls", env={"PATH": "/usr/bin:/bin", crash.VARIABLE: told})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"sweepfw: {crash.VARIABLE}=")
    assert die(told).returncode == 0  # who talks with nobody goes on
