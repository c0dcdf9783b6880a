"""What lies under runs/ of an attempt, read without the product."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from invariants import Kept


def read(place: Path) -> Kept:
    log, outcome, files = place / "output.log", place / "outcome.json", place / "files"
    return Kept(
        _digest(log) if log.is_file() else None,
        {str(path.relative_to(files)): _digest(path) for path in files.rglob("*") if path.is_file()},
        json.loads(outcome.read_text()) if outcome.is_file() else None,
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
