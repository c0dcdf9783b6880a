"""The one-file package that a trial's own Python imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = Path(__file__).parents[2] / "sweepfw" / "inside"


def pythons() -> list[str]:
    """This Python, and the oldest ones that are installed here."""
    found = [sys.executable]
    for version in ("3.8", "3.9"):
        there = [
            shutil.which(f"python{version}"),
            *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        ]
        for path in filter(None, there):
            if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                found.append(path)
                break
    return found


def run(python: str, code: str, **env: object) -> subprocess.CompletedProcess[str]:
    variables = {name: str(value) for name, value in env.items()}
    return subprocess.run(
        [python, "-c", code],
        cwd="/",  # not where the whole package lies
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(INSIDE),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("python", pythons())
def test_report_and_params(python: str, tmp_path: Path) -> None:
    metrics, params = tmp_path / "metrics.jsonl", tmp_path / "params.json"
    params.write_text('{"lr": 0.1, "layers": [64, 64], "name": "\u00e4"}')
    code = (
        "import sweepfw\n"
        "sweepfw.report(loss=0.25, step=3)\n"
        "sweepfw.report(step=1.5, nan=float('nan'), good=True)\n"
        "sweepfw.report(step=4)\n"
        "print(ascii(sweepfw.params()))\n"
    )
    done = run(python, code, SWEEPFW_METRICS=metrics, SWEEPFW_PARAMS=params)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'lr': 0.1, 'layers': [64, 64], 'name': '\\xe4'}\n"
    assert [json.loads(line) for line in metrics.read_text().splitlines()] == [
        {"step": 3, "loss": 0.25},
        {"step": 1.5, "nan": "NaN", "good": 1.0},
    ]


def test_outside_a_trial_it_does_nothing(tmp_path: Path) -> None:
    done = run(sys.executable, "import sweepfw; sweepfw.report(loss=1); print(sweepfw.params())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")


def test_it_brings_nothing_along() -> None:
    """A trial's environment stays the user's own, and its start stays fast."""
    code = (
        "import sys; before = set(sys.modules); import sweepfw; sweepfw.report(loss=1)\n"
        "print(sorted(set(sys.modules) - before - {'__future__'}))"
    )
    assert run(sys.executable, code).stdout == "['sweepfw']\n"


@pytest.mark.parametrize(
    "value", ["'3'", "None", "[1]", "1j", "b'1'", "10 ** 400", "object()"], ids=lambda value: value[:8]
)
def test_what_is_no_number_is_named(value: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    done = run(sys.executable, f"import sweepfw; sweepfw.report(ok=1, loss={value})", SWEEPFW_METRICS=metrics)
    assert "TypeError: sweepfw.report: loss must be a number, not " in done.stderr
    assert not metrics.exists()


def test_whatever_float_takes_is_a_number(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    code = (
        "import sweepfw\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
        "class Scalar:\n    def __float__(self): return 0.5\n"
        "sweepfw.report(a=Decimal('0.1'), b=Fraction(1, 4), c=Scalar(), step=Scalar())"
    )
    assert run(sys.executable, code, SWEEPFW_METRICS=metrics).returncode == 0
    assert json.loads(metrics.read_text()) == {"step": 0.5, "a": 0.1, "b": 0.25, "c": 0.5}


def test_many_at_once_keep_their_lines_whole(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    code = "import sweepfw\nfor n in range(300): sweepfw.report(step=n, **{'a' * 100: n})"
    env = {**os.environ, "PYTHONPATH": str(INSIDE), "SWEEPFW_METRICS": str(metrics)}
    together = [subprocess.Popen([sys.executable, "-c", code], cwd="/", env=env) for _ in range(4)]
    assert [process.wait(60) for process in together] == [0] * 4
    assert len([json.loads(line) for line in metrics.read_text().splitlines()]) == 1200


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    done = run(sys.executable, "import sweepfw; sweepfw.report(loss=1)", SWEEPFW_METRICS="/dev/full")
    assert "OSError: [Errno 28]" in done.stderr
