"""A command as text for a POSIX shell on another machine: the one place where commands are quoted.

What sshd is asked to run is a line that every login shell reads alike (sh, zsh, csh, fish). It takes the
script itself from standard input, where `ps` does not show it, and the command's own input comes after it.
The script answers first with a mark, how it went and its process id, so that what a login prints before
(`.bashrc`) is not taken for output, and so that the command can be killed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from shlex import quote
from typing import Literal, NamedTuple, TypeAlias

from sweepfw.core.command import Cmd

Start: TypeAlias = Literal["ok", "missing", "folder", "start"]

# Where a login that is not interactive often does not look, and Docker lies.
_MORE_PATH = 'PATH="$PATH:/usr/local/bin:/usr/sbin:/sbin:/snap/bin"'
_LONGEST_NOISE = 1 << 20


class Header(NamedTuple):
    """The script's first answer. `ok`: the command was started; `pid` leads its process group."""

    start: str
    pid: int


def line(script: bytes) -> str:
    """What sshd is asked to run, for a script that will be the first bytes of standard input."""
    # dd takes single bytes, so that not one of those behind the script is lost.
    return f"exec /bin/sh -c 'eval \"$(dd bs=1 count={len(script)} 2>/dev/null)\"'"


def kill_line(pid: int) -> str:
    return f"exec /bin/sh -c 'kill -9 -{pid:d} || kill -9 {pid:d}'"


def script(mark: str, command: Cmd, cwd: str | None = None, env: Mapping[str, str] | None = None) -> bytes:
    """The script that runs the command. `mark` is a word that no login prints by chance."""
    argv = command.reveal()
    lines = [_MORE_PATH, "export PATH"]
    if cwd is not None:
        lines.append(f"cd -- {place(cwd)} 2>/dev/null || {{ {_say(mark, 'folder')}; exit 0; }}")
    for name, value in (env or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is not a variable's name")
        lines.append(f"export {name}={quote(value)}")
    lines += [_check(mark, argv[0]), _say(mark, "ok"), " ".join(quote(word) for word in argv)]
    return _encoded(lines)


def put_script(mark: str, path: str, size: int, mode: int) -> bytes:
    """The script that takes `size` bytes as a file's new content. A link that breaks leaves the old one."""
    target = place(path)
    return _encoded(
        [
            _say(mark, "ok"),
            "umask 077",
            f"f={target}",
            'case "$f" in */*) d="${f%/*}/";; *) d=./;; esac',
            'mkdir -p -- "$d" || exit 1',
            't="$d.put.$$"',
            "trap 'rm -f -- \"$t\"' EXIT",
            'cat > "$t" || exit 1',
            f'[ "$(wc -c < "$t")" -eq {size:d} ] || exit 1',
            f'chmod {mode:o} "$t" && if [ -d "$f" ]; then echo "it is a folder" >&2; exit 1; '
            'else mv -f -- "$t" "$f"; fi',
        ]
    )


def get_script(mark: str, path: str) -> bytes:
    return _encoded([_say(mark, "ok"), f"exec cat -- {place(path)}"])


def place(path: str) -> str:
    """A path, quoted; one that begins with `~/` begins at the user's home."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + (quote(path[1:]) if path[1:] else "")
    # `-` alone means another folder to cd, and standard input to cat
    return quote(f"./{path}" if path.startswith("-") else path)


def _check(mark: str, name: str) -> str:
    """A line that ends the script where there is nothing to run by this name."""
    word = quote(name)
    if "/" in name:
        found = f"[ -e {word} ]"
        fit = f"[ -f {word} ] && [ -x {word} ]"
        start = f"{fit} || {{ {_say(mark, 'start')}; exit 0; }}"
        return f"{found} || {{ {_say(mark, 'missing')}; exit 0; }}\n{start}"
    return f"command -v {word} >/dev/null 2>&1 || {{ {_say(mark, 'missing')}; exit 0; }}"


def _say(mark: str, start: Start) -> str:
    """The answer, on both outputs."""
    return f'echo "{mark} {start} $$"; echo "{mark} {start} $$" >&2'


def _encoded(lines: list[str]) -> bytes:
    """One group: a script that was cut short has no end to it, and no shell runs any of it."""
    data = os.fsencode("{ " + "\n".join(lines) + "\n}")
    if b"\0" in data:
        raise ValueError("no command can hold a null byte")
    return data


class Unwrapper:
    """Takes an output's pieces and gives what the command wrote: all that comes after the script's answer."""

    def __init__(self, mark: str) -> None:
        self._pattern = re.compile(re.escape(mark.encode()) + rb" (\w+) (\d+)\n")
        self._before = b""
        self.header: Header | None = None

    def __call__(self, data: bytes) -> bytes:
        if self.header is not None:
            return data
        self._before += data
        found = self._pattern.search(self._before)
        if found is None:
            self._before = self._before[-_LONGEST_NOISE:]
            return b""
        self.header = Header(found[1].decode(), int(found[2]))
        rest, self._before = self._before[found.end() :], self._before[: found.start()]
        return rest

    @property
    def noise(self) -> str:
        """What was there before the answer, or instead of it, for people."""
        return self._before.decode(errors="replace").strip()
