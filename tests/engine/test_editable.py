"""A project that is installed editable from its own folder runs its frozen code: promise 3."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TRIAL = """
import os, pathlib, time
pathlib.Path(os.environ["STARTED"]).touch()
end = time.monotonic() + 200
while not pathlib.Path(os.environ["EDITED"]).exists() and time.monotonic() < end:
    time.sleep(0.01)
import mine
print("version", mine.VERSION)
"""


@pytest.fixture
def installed(make_project: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A project with a package `mine`, and an environment that imports it from there."""
    variables = f"{{STARTED: '{tmp_path}/started', EDITED: '{tmp_path}/edited'}}"
    root = make_project("own", f"command: python t.py\nvariables: {variables}\n", "", {"t.py": TRIAL})
    (root / "src/mine").mkdir(parents=True)
    (root / "src/mine/__init__.py").write_text("VERSION = 'frozen'\n")
    environment = tmp_path / "env"
    subprocess.run(["python3", "-m", "venv", "--without-pip", environment], check=True)
    [site] = environment.glob("lib/python3*/site-packages")
    record = site / "mine-1.0.dist-info"
    record.mkdir()
    (record / "direct_url.json").write_text(f'{{"url": "file://{root}", "dir_info": {{"editable": true}}}}')
    (site / "mine.pth").write_text(f"{root}/src\n")
    return root, environment


def test_the_frozen_package_is_imported(
    installed: tuple[Path, Path],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    root, environment = installed
    process = start_sweepfw("run", "own", env={**os.environ, "VIRTUAL_ENV": str(environment)})
    wait_until(lambda: (tmp_path / "started").exists() or process.poll() is not None)
    (root / "src/mine/__init__.py").write_text("VERSION = 'edited'\n")
    (tmp_path / "edited").touch()
    out, errors = process.communicate(timeout=120)
    assert "version frozen" in out, (out, errors)
