"""Terminals: how wide, in colours or not, and text that harms none of them.

What comes from parameters, metrics, notes and output may hold escape sequences, control and right-to-left
characters. `safe` shows them instead of obeying them; `SafeOutput` does so for output as it comes.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import IO, NamedTuple

# Compiled when first used (re keeps them).
_COLOUR = r"\x1b\[[0-9;:]*m"
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])"
)
_OPEN = r"(?:\r|\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\n]*\x1b?|[ -/]*)?)\Z"
_HELD = 4096  # characters of an escape sequence without an end that are waited for
_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
STATES = {"succeeded": "green", "done": "green", "running": "cyan", "failed": "red"} | dict.fromkeys(
    ("interrupted", "lost", "stale", "paused", "stopped", "cancelled", "held"), "yellow"
)


def paint(shown: str, colour: str, *, on: bool = True) -> str:
    """The text in a colour (or `bold`, `dim`) where that is on."""
    return f"\x1b[{_CODES[colour]}m{shown}\x1b[0m" if on and shown else shown


class Screen(NamedTuple):
    """Where text goes: its width in columns (None: as much as is needed), and whether in colours."""

    width: int | None = None
    colour: bool = False

    @classmethod
    def of(cls, stream: IO[str], environ: Mapping[str, str] = os.environ) -> Screen:
        """A terminal has a width, and colours unless NO_COLOR is set or it is a dumb one."""
        try:
            if not stream.isatty():
                return cls()
            width = int(environ.get("COLUMNS", "0")) or os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            width = 80
        colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(width or 80, colour)

    def paint(self, shown: str, colour: str | None = None) -> str:
        """The text in the colour, by default that of the state that it names, where there are colours."""
        colour = colour or STATES.get(shown)
        return paint(shown, colour, on=self.colour) if colour else shown


def safe(shown: str) -> str:
    """One line that harms no terminal: control, escape, bidirectional and invisible characters are shown as
    `\\x1b`, `\\n`, `\\u202e`; everything else, emoji included, stays."""
    if shown.isprintable():
        return shown
    return "".join(char if _harmless(char) else _escaped(char) for char in shown)


def bare(shown: str) -> str:
    """The text without its escape sequences, colours included."""
    return re.sub(_ESCAPES, "", shown) if "\x1b" in shown else shown


def _harmless(char: str) -> bool:
    return char.isprintable() or char == "\u200d" or unicodedata.category(char) == "Zs"  # joins emoji; spaces


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def width(shown: str) -> int:
    """Columns that a terminal takes for the text."""
    if shown.isascii():
        return len(shown)
    return sum(map(_columns, shown))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(shown: str, columns: int) -> str:
    """The text in at most so many columns, with `…` where something was left out."""
    if width(shown) <= columns:
        return shown
    room = columns - 1
    for position, char in enumerate(shown):
        room -= _columns(char)
        if room < 0:
            return shown[:position] + "…"
    return shown


class SafeOutput:
    """A trial's output, in pieces of any size, as text that harms no terminal.

    Lines and tabs stay, and colours where the screen has some; a carriage return becomes a new line; other
    escape sequences are left out, and what else is not printable is shown, as `safe` does.
    """

    def __init__(self, screen: Screen) -> None:
        self._colour = screen.colour
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text of these bytes, as far as it is complete; with `final` all of it."""
        shown = self._held + self._decode(data, final)
        self._held = ""
        unfinished = None if final else re.search(_OPEN, shown[-_HELD:])
        if unfinished:
            self._held = unfinished[0]
            shown = shown[: -len(self._held)]
        shown = shown.replace("\r\n", "\n").replace("\r", "\n")
        return "".join(self._piece(piece) for piece in _pieces(shown))

    def _piece(self, piece: str) -> str:
        if re.fullmatch(_ESCAPES, piece):
            return piece if self._colour and re.fullmatch(_COLOUR, piece) else ""
        if piece.isprintable():
            return piece
        return "".join(char if char in "\n\t" or _harmless(char) else _escaped(char) for char in piece)


def _pieces(shown: str) -> list[str]:
    """The text cut into escape sequences and what is between them."""
    pieces, end = [], 0
    for match in re.finditer(_ESCAPES, shown):
        pieces += [shown[end : match.start()], match[0]]
        end = match.end()
    return [*pieces, shown[end:]]
