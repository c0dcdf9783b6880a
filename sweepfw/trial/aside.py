"""Folders of removed sweeps: renamed first, so that whoever is killed while their content goes leaves a sweep
that can be removed again, or rubbish whose name says so."""

from __future__ import annotations

import os
from pathlib import Path

_ASIDE = ".removed-"  # begins their names


def put_aside(folder: Path) -> Path:
    """Give a sweep's folder a name that says that its content can go; one is made where it has none."""
    rubbish = folder.with_name(f"{_ASIDE}{folder.name}-{os.urandom(4).hex()}")
    try:
        folder.rename(rubbish)
    except FileNotFoundError:
        rubbish.mkdir(parents=True)
    return rubbish


def put_aside_before(runs: Path) -> list[tuple[str, Path]]:
    """The sweeps' names, and the folders, of what was put aside and not deleted."""
    return [(path.name[len(_ASIDE) :].rpartition("-")[0], path) for path in runs.glob(f"{_ASIDE}*")]
