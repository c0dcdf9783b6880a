"""A real browser, without a screen: what a page shows, as its text and as a picture."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Read before a fixture clears away what would change the commands under test.
LAB = "SWEEPFW_LAB" in os.environ
ARTIFACTS = os.environ.get("SWEEPFW_ARTIFACTS", "")


def find_browser() -> str:
    """The browser's program. Where there is none the test is skipped; under `scripts/test --lab` it fails."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if LAB:
        pytest.fail("no chromium here, and scripts/test --lab installs it")
    pytest.skip("no chromium here to look at Flower with")


class Browser:
    """`folder`: for its own files."""

    def __init__(self, folder: Path) -> None:
        self._call = [
            find_browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        self._call += ["--no-first-run", "--hide-scrollbars", "--virtual-time-budget=10000"]
        self._call += [f"--user-data-dir={folder / 'browser'}"]

    def text(self, url: str) -> str:
        """The page as it stands after its scripts ran."""
        return self._run("--dump-dom", url)

    def picture(self, url: str, path: Path, size: tuple[int, int] = (1400, 760)) -> None:
        self._run(f"--screenshot={path}", f"--window-size={size[0]},{size[1]}", url)

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._call, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


def artifacts(folder: Path) -> Path:
    """Where what a test leaves for people goes: $SWEEPFW_ARTIFACTS, else the test's own folder."""
    kept = Path(ARTIFACTS or folder)
    kept.mkdir(parents=True, exist_ok=True)
    return kept
