"""The user's secrets: a file each in the state folder, for its owner only; what of them a sweep needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweepfw.config.private import read_private, write_private
from sweepfw.config.scalars import clip
from sweepfw.config.workspace import state_home
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.core.secrets import Need, Secrets

NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,99}"
LARGEST = 1_000_000  # bytes
_LONGEST_VARIABLE = 100_000  # bytes; the kernel takes 131,072 with the name
_IF_READ = "and if somebody may have read it, set it anew"


class Stored(NamedTuple):
    """What may be told of a stored secret. `set`: Unix seconds."""

    name: str
    bytes: int
    set: float


def check_name(name: str) -> None:
    """SweepError for what can't be a secret's name."""
    if not re.fullmatch(NAME, name):
        raise SweepError(
            f"{clip(name)!r} can't be a secret's name; it begins with a letter or '_', and goes on with "
            "letters, digits, '_', '.' and '-', at most 100"
        )


def store(name: str, value: bytes) -> None:
    """Keep it, in place of what had the name. SweepError for what can't be one."""
    check_name(name)
    _check_size(name, value)
    write_private(_folder() / name, value)


def stored() -> list[Stored]:
    """What there is, by name; never a value."""
    try:
        with os.scandir(_folder()) as entries:
            found = [
                (entry.name, entry.stat(follow_symlinks=False))
                for entry in entries
                if re.fullmatch(NAME, entry.name)
            ]
    except FileNotFoundError:  # none was ever set
        return []
    except OSError as error:
        raise SweepError(f"{_folder()}: can't be read ({error.strerror})") from None
    return [Stored(name, stat.st_size, stat.st_mtime) for name, stat in sorted(found)]


def remove(names: Iterable[str]) -> None:
    """SweepError, and nothing is removed, where one of them is not there."""
    wanted = list(dict.fromkeys(names))
    known = [each.name for each in stored()]
    for name in wanted:
        if name not in known:
            from sweepfw.config.quantities import suggest

            raise SweepError(f"there is no secret {clip(name)!r}; {suggest(name, known)}")
    for name in wanted:
        (_folder() / name).unlink(missing_ok=True)


def lacking(needs: Iterable[Need]) -> list[str]:
    """Names of the secrets that are neither stored nor to be read from the file that the project names."""
    return [need.name for need in needs if not _is_there(need)]


def gather(needs: Iterable[Need]) -> Secrets:
    """The values, as they are now. SweepError for what is not there, with what to type, for what others could
    have read, and for what can't be given as it is asked for."""
    from sweepfw.core.secrets import NONE, Secrets

    needs = tuple(needs)
    if not needs:
        return NONE
    if missing := lacking(needs):
        raise SweepError(_missing(missing, needs))
    values = Secrets((need.name, _value(need)) for need in needs)
    for need in needs:
        _check_size(need.name, values[need.name])
        if need.kind == "env":
            _check_variable(need.name, values[need.name])
    return values


def _is_there(need: Need) -> bool:
    source = need.source is not None and os.path.isfile(os.path.expanduser(need.source))  # noqa: PTH111, PTH113  # never raise
    return source or os.path.lexists(_folder() / need.name)


def _value(need: Need) -> bytes:
    kept = _folder() / need.name
    if need.source is None or os.path.lexists(kept):
        return read_private(kept, _IF_READ)
    path = Path(os.path.expanduser(need.source))  # noqa: PTH111  # never raises
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise SweepError(f"{path}: the secret {need.name} can't be read ({error.strerror})") from None


def _missing(names: list[str], needs: Iterable[Need]) -> str:
    sources = {need.name: need.source for need in needs}
    told = [f"{name} (nor is there {sources[name]})" if sources[name] else name for name in names]
    commands = ", ".join(f"sweepfw secret set {name}" for name in names)
    if len(names) == 1:
        return f"the secret {told[0]} is needed and not stored; store it with: {commands}"
    return f"the secrets {', '.join(told)} are needed and not stored; store them with: {commands}"


def _check_size(name: str, value: bytes) -> None:
    if not value.strip():
        raise SweepError(f"secret {name}: the value is empty; give one of at least a letter")
    if len(value) > LARGEST:
        raise SweepError(f"secret {name}: more than {LARGEST:,} bytes; data of that size goes under `mounts`")


def _check_variable(name: str, value: bytes) -> None:
    if b"\0" in value:
        raise SweepError(
            f"secret {name}: a variable can't hold a NUL byte; give it as a file in project.yml: {name}: file"
        )
    if len(value) > _LONGEST_VARIABLE:
        raise SweepError(
            f"secret {name}: {len(value):,} bytes are too many for a variable; give it as a file in "
            f"project.yml: {name}: file"
        )


def _folder() -> Path:
    return state_home() / "secrets"
