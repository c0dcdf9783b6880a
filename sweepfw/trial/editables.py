"""Packages that an interpreter imports from folders that may change under a sweep: editable installs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit


def editables(python: str, env: Mapping[str, str] | None = None) -> list[tuple[str, Path]]:
    """Names and folders of editable installs, sorted. Reads files only: no Python is started.

    An interpreter that is not what it seems (a script that picks one) tells nothing.
    """
    found: dict[str, Path] = {}
    for site in _sites(Path(python), env or {}):
        for name, folder in (*_modern(site), *_legacy(site)):
            found.setdefault(name, folder)
    return sorted(found.items())


def outside(installed: Iterable[tuple[str, Path]], root: Path) -> list[tuple[str, Path]]:
    """Those outside the project: no snapshot holds them, and they are named to the user as not frozen.

    But not sweepfw itself, of which trials get one file that never changes what they compute.
    """
    top = root.resolve()
    return [(name, at) for name, at in installed if not at.is_relative_to(top) and name != "sweepfw"]


def import_roots(installed: Iterable[tuple[str, Path]], root: Path) -> tuple[str, ...]:
    """Folders of the project, relative to it, from which its own editable installs import.

    In a working copy they belong in front of PYTHONPATH, else the trial imports the project as it is now.
    """
    own = [folder for _, folder in installed if folder.is_relative_to(root.resolve())]
    sources = [folder / "src" if (folder / "src").is_dir() else folder for folder in own]
    return tuple(folder.relative_to(root.resolve()).as_posix() for folder in sources)


def _sites(python: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """The folders with packages of an interpreter, by where it lies; then the user's own."""
    environment = python.parent.parent
    isolated = (environment / "pyvenv.cfg").is_file()
    prefixes = [environment] if isolated else [environment, python.resolve().parent.parent]
    for prefix in prefixes:
        yield from sorted(prefix.glob("lib*/python3*/site-packages"))
        yield from sorted(prefix.glob("lib/python3*/dist-packages"))
    if not isolated and env.get("HOME"):
        yield from sorted(Path(env["HOME"]).glob(".local/lib/python3*/site-packages"))


def _modern(site: Path) -> Iterator[tuple[str, Path]]:
    for record in site.glob("*.dist-info/direct_url.json"):
        try:
            told = json.loads(record.read_bytes())
            if told.get("dir_info", {}).get("editable") is True:
                yield record.parent.name.split("-")[0], Path(unquote(urlsplit(told["url"]).path)).resolve()
        except (OSError, ValueError, KeyError, AttributeError):
            continue  # not ours to repair


def _legacy(site: Path) -> Iterator[tuple[str, Path]]:
    for link in site.glob("*.egg-link"):
        try:
            lines = link.read_text(errors="surrogateescape").splitlines()
        except OSError:
            continue
        if lines:
            yield re.sub(r"\.egg-link$", "", link.name), Path(lines[0].strip()).resolve()
