"""Starting a trial's command, as a shell would find it, in a session of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR

_NO_COMMAND = (ENOENT, EACCES, ENOEXEC, ENOTDIR)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# Python ignores SIGPIPE and SIGXFSZ, the guardian more, and `nohup` SIGHUP: a trial begins with none of it.
_SIGNALS = tuple(n for n in range(1, 65) if n not in (9, 19, 32, 33))


umask: int | None = None  # what the user's programs begin with; None: as this process


class NoCommand(Exception):  # noqa: N818  # it says what happened
    """The command is not there, or is nothing that can be run."""


def find(name: str, path: str | None) -> str:
    """The program that `name` means, on the trial's own PATH; with a `/`, relative to the working copy."""
    if "/" in name:
        return name
    denied = ""
    for folder in (_DEFAULT_PATH if path is None else path).split(":"):
        program = f"{folder or '.'}/{name}"
        if os.path.isfile(program):
            if os.access(program, os.X_OK):
                return program
            denied = program
    if denied:
        raise NoCommand(f"{denied}: it may not be executed (chmod +x)")
    raise NoCommand(f"{name}: not found on the trial's PATH")


def spawn(program: str, argv: list[str], env: Mapping[str, str], output: int) -> int:
    """Start it in the current folder, with `output` as its stdout and stderr; its pid.

    Raises NoCommand, or OSError as for too long an argument list or no room for a process.
    """
    ours = None if umask is None else os.umask(umask)
    try:
        return os.posix_spawn(
            program,
            argv,
            env,
            file_actions=((os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)),
            setsid=True,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    except OSError as error:
        if error.errno in _NO_COMMAND:
            raise NoCommand(_why(program, error)) from None
        raise
    finally:
        if ours is not None:
            os.umask(ours)


def _why(program: str, error: OSError) -> str:
    if not os.path.lexists(program):
        return f"{program}: there is no such file"
    if error.errno == ENOEXEC:
        return f"{program}: no program, and its first line names none (such as #!/bin/sh)"
    if error.errno == EACCES:
        return f"{program}: it may not be executed (chmod +x)"
    return f"{program}: the interpreter that it asks for is not there"
