"""Output files: which files of the working copy are kept, and what else a trial left there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

_MOST_NAMED = 20


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path is an output. `*` stops at `/`, `**` does not; a pattern without `/` holds in every
    folder; one that names a folder takes all that is in it."""
    parts = [_regex(pattern) for pattern in patterns]
    if not parts:
        return lambda path: False
    whole = re.compile("|".join(parts))
    return lambda path: whole.fullmatch(path) is not None


def _regex(pattern: str) -> str:
    pattern = pattern.removeprefix("./").rstrip("/")
    anywhere = "" if "/" in pattern else "(?:.*/)?"
    made = ""
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^]]+\]|[\s\S]", pattern.lstrip("/")):
        if part == "**/":
            made += "(?:.*/)?"
        elif part == "**":
            made += ".*"
        elif part == "*":
            made += "[^/]*"
        elif part == "?":
            made += "[^/]"
        elif len(part) > 1:
            made += "[" + part[1:-1].replace("!", "^", 1).replace("\\", "\\\\") + "]"
        else:
            made += re.escape(part)
    return f"(?s:{anywhere}{made}(?:/.*)?)"


def is_kept_kind(mode: int) -> bool:
    """Regular files and symlinks. Folders come with their files; pipes, sockets and devices hold nothing."""
    return mode & 0o170000 in (0o100000, 0o120000)


def move(names: Iterable[str], work: str, files: str) -> list[str]:
    """Move these from the working copy to the output files; those that were moved.

    What the trial put there itself under the same name stays.
    """
    moved = []
    for name in names:
        target = f"{files}/{name}"
        if os.path.lexists(target):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(f"{work}/{name}", target)
        moved.append(name)
    return moved


def largest(sizes: dict[str, int]) -> list[tuple[str, int]]:
    """At most 20 of what was left, for the warning: the largest first."""
    named = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return named[:_MOST_NAMED]


def is_cache(path: str) -> bool:
    return "__pycache__" in path.split("/")
