"""What a requirements file of a snapshot says, as far as it decides which environment serves it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from sweepfw.errors import SweepError

_NESTED = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-[rc]))(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=|(?<=-e))(\S+)")
_LINKS = re.compile(r"(?:-f|--find-links)(?:\s+|=|(?<=-f))(\S+)")
_ARCHIVE = re.compile(r"\.(whl|zip|tar\.gz|tgz)$")


@dataclass(frozen=True, slots=True)
class Requirements:
    """A requirements file with those that it names. `local`: it also names other files of the project."""

    path: str
    texts: tuple[tuple[str, str], ...]  # path in the project, text
    local: bool


def read_requirements(path: str, read: Callable[[str], bytes | None]) -> Requirements:
    """Follow `-r` and `-c` from `path` on. `read` gives the content of a file of the project, or None.

    Raises SweepError for one that is not in the project.
    """
    texts: dict[str, str] = {}
    local, waiting = False, [(posixpath.normpath(path), "environment")]
    while waiting:
        place, named_by = waiting.pop()
        if place in texts:
            continue
        content = read(place)
        if content is None:
            raise SweepError(
                f"{named_by}: {place} is not in the project's snapshot; add it (`sweepfw plan` shows what is "
                "left out, and why)"
            )
        texts[place] = content.decode(errors="surrogateescape")
        for line in _lines(texts[place]):
            nested = _NESTED.match(line)
            if nested and "://" not in nested[1]:
                waiting.append(
                    (posixpath.normpath(posixpath.join(posixpath.dirname(place), nested[1])), place)
                )
            elif not nested:
                local = local or _names_a_file(line)
    return Requirements(posixpath.normpath(path), tuple(sorted(texts.items())), local)


def _lines(text: str) -> list[str]:
    """The logical lines: joined where they end in a backslash, without comments."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _names_a_file(line: str) -> bool:
    """Whether the line names something of the project: a folder, an archive, a folder of wheels."""
    if match := _EDITABLE.match(line) or _LINKS.match(line):
        return "://" not in match[1] and not match[1].startswith("/")
    if line.startswith("-") or "://" in line or line.startswith("/"):
        return False
    target = line.partition(";")[0].rpartition(" @ ")[2].strip()
    return target.startswith((".", "file:")) or "/" in target or bool(_ARCHIVE.search(target))
