"""Names of sweeps: which are allowed, which comes next, which was meant."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from sweepfw.errors import SweepError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str) -> None:
    """SweepError unless the name can be a sweep's, and so a folder's."""
    if not _NAME.fullmatch(name):
        raise SweepError(
            f"sweep name {name!r}: a letter or digit first, then letters, digits, '_', '.', '-'; at most 100"
        )


def prefix(project: str) -> str:
    """What the automatic names of a project's sweeps begin with; always the beginning of a good name."""
    return (re.sub(r"[^A-Za-z0-9_.-]+", "-", project).strip("-_.")[:80] or "sweep") + "-"


def lowest_free(start: str, used: Collection[str]) -> str:
    """`start` and the lowest number from 1 that gives no used name; `used` is in lower case."""
    n = 1
    while f"{start}{n}".lower() in used:
        n += 1
    return f"{start}{n}"


def unknown_sweep(name: str, known: Collection[str], folder: Path | None = None) -> SweepError:
    """The error for a sweep that isn't there, with the nearest one that is. `folder`: of the runs."""
    if folder and _NAME.fullmatch(name) and (folder / name).is_dir():
        return SweepError(
            f"no sweep {_quoted(name)} in the ledger, and {folder / name} is there: the ledger is older than "
            "that folder (a backup, or its -wal file was lost), or the folder came from elsewhere; put a "
            "newer backup of the ledger in its place, or read the folder's plain files"
        )
    from difflib import get_close_matches  # only for people who mistyped

    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? (sweepfw ls shows all)" if near else "sweepfw ls shows all"
    return SweepError(f"no sweep {_quoted(name)}; {hint}")


def unknown_trial(sweep: str, number: int, total: int) -> SweepError:
    """The error for a trial that isn't there."""
    has = f"it has trials 1 to {total}" if total > 1 else f"it has {total} trial{'s' * (total != 1)}"
    return SweepError(f"no trial {sweep}/{number}; {has}")


def _quoted(name: str) -> str:
    return f'"{name}"' if name.isprintable() and '"' not in name else repr(name)
