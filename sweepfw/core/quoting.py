"""Values in shell text: whatever a value holds, it stays one piece of text where its placeholder stood."""

from __future__ import annotations

import re
from collections.abc import Callable
from shlex import quote

from sweepfw.core.values import Value, text

_NAME = r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}"
# ${ is the shell's own; a backslash hides the next character, but not between single quotes.
_TOKEN = re.compile(rf"\$[({{]|{_NAME}|\\?.", re.DOTALL)
_QUOTED_TOKEN = re.compile(rf"{_NAME}|.", re.DOTALL)
_CLOSES = {"'": "'", '"': '"', "`": "`", "(": ")", "#": "\n"}


def fill(line: str, look_up: Callable[[str], Value]) -> str:
    """The line with its placeholders filled, each quoted for the place where it stands.

    look_up raises KeyError for names that stay as they are, LookupError for those that become nothing.
    """
    out: list[str] = []
    stack: list[str] = []  # the quotes and substitutions that are open
    position = 0
    while position < len(line):
        inside = stack[-1] if stack else ""
        match = (_QUOTED_TOKEN if inside == "'" else _TOKEN).match(line, position)
        assert match is not None
        piece = match[0]
        if piece in {"{{", "}}"}:
            out.append(piece[0])
        elif match[1]:
            out.append(_placed(piece, match[1], stack, look_up))
        else:
            _follow(piece, stack, at_word=position == 0 or line[position - 1] in " \t\n;&|(")
            out.append(piece)
        position = match.end()
    return "".join(out)


def _follow(piece: str, stack: list[str], *, at_word: bool) -> None:
    """Open or close what the piece opens or closes."""
    inside = stack[-1] if stack else ""
    if inside and piece == _CLOSES[inside]:
        stack.pop()
    elif inside in {"'", "#"}:
        return
    elif piece == "$(":
        stack.append("(")
    elif piece == "`" or (inside != '"' and (piece in {"'", '"', "("} or (piece == "#" and at_word))):
        stack.append(piece)


def _placed(piece: str, name: str, stack: list[str], look_up: Callable[[str], Value]) -> str:
    try:
        value = look_up(name)
    except KeyError:
        return piece
    except LookupError:
        return ""
    inside = stack[-1] if stack else ""
    if inside == "'":
        placed = text(value).replace("'", "'\\''")
    elif inside == '"':
        placed = re.sub(r'([\\"$`])', r"\\\1", text(value))
    elif inside == "#":
        placed = text(value).replace("\n", " ")
    elif isinstance(value, tuple):
        placed = " ".join(quote(text(item)) for item in value)
    else:
        placed = quote(text(value))
    for _ in range(stack.count("`")):  # backquotes take one layer of backslashes away
        placed = re.sub(r"([\\$`])", r"\\\1", placed)
    return placed
