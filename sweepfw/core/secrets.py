"""Secrets that a task needs: what it names, the values while they travel, and what must not be shown of them.

Values are bytes. They are in no Spec, ledger, message or file that is not made for them; `Secrets` does not
show them by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, NoReturn

__all__ = ["NONE", "Need", "Secrets", "files", "needles", "variables"]

SHORTEST = 6  # bytes; what is shorter stands everywhere by chance
LONGEST = 4096  # bytes; what is longer is looked for in pieces
MOST = 65_536  # bytes of one secret that are looked for
MOST_LINES = 300  # of one secret that are looked for singly
# Of configuration files: the password in an address, and what a key that says so is given.
_PASSWORD = re.compile(rb"://(?:[^/\s:@]*:)?([^/\s@]+)@")
_GIVEN = re.compile(rb"(?i)(?:passw\w*|secret|token|key|auth\w*)[\"']?[ \t]*[=: \t][ \t]*[\"']?([^\s\"',;]+)")


class Need(NamedTuple):
    """A secret that a task names: how a trial gets it. `source`: a file on the machine where `run` is typed,
    which is read where nothing is stored under the name. `variable`: where it is not the name."""

    name: str
    kind: Literal["env", "file"]
    source: str | None = None
    variable: str = ""


class Secrets(Mapping[str, bytes]):
    """Values by name. Its text shows the names only, and it can't be pickled."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, bytes] | Iterable[tuple[str, bytes]] = ()) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> bytes:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(f'{name}=***' for name in self._values)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")


NONE = Secrets()


def variables(needs: Iterable[Need], values: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the trial's environment gets. A line end at the value's end is no part of it, as in a shell's
    `$(...)`."""
    return {
        need.variable or need.name: values[need.name].rstrip(b"\r\n") for need in needs if need.kind == "env"
    }


def files(needs: Iterable[Need], values: Mapping[str, bytes]) -> dict[str, bytes]:
    """What lies in the trial's folder of secrets."""
    return {need.name: values[need.name] for need in needs if need.kind == "file"}


def needles(secrets: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """What must not show of these values, longest first, nothing shorter than 6 bytes.

    The value and each of its lines; passwords in addresses, and what keys such as `token` are given; each
    also as it stands in an address, in JSON, in Python's repr, and in base64 on one line, wherever in the
    encoded text it begins; and the lines that the value alone becomes in base64. Of a very large value that
    holds for its first part.
    """
    plain = {piece for value in secrets.values() for piece in _pieces(value)}
    found = {form for piece in plain for form in _forms(piece)}
    found.update(line for value in secrets.values() for line in _wrapped(value))
    return tuple(sorted((form for form in found if len(form) >= SHORTEST), key=lambda f: (-len(f), f)))


def _pieces(value: bytes) -> Iterator[bytes]:
    whole = value.strip()[:MOST]
    lines = [line.strip() for line in whole.splitlines()]
    inner = [match[1] for kind in (_PASSWORD, _GIVEN) for match in kind.finditer(whole)]
    for part in (whole, *lines[:MOST_LINES], *inner[:MOST_LINES]):
        for at in range(0, len(part), LONGEST):
            if len(piece := part[at : at + LONGEST]) >= SHORTEST:
                yield piece


def _forms(piece: bytes) -> Iterator[bytes]:
    import json
    from urllib.parse import quote, quote_plus

    text = piece.decode("utf-8", "surrogateescape")
    addresses = (quote(piece, safe=""), quote(piece), quote_plus(piece))
    small = (re.sub("%..", lambda match: match[0].lower(), form) for form in addresses)
    literals = (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), repr(piece)[1:])
    yield piece
    for form in (*addresses, *small, *(literal[1:-1] for literal in literals)):
        yield form.encode("utf-8", "surrogateescape")
    for shift in range(3):
        yield from _base64(piece, shift)


def _wrapped(value: bytes) -> Iterator[bytes]:
    """The lines that `base64` and openssl make of a longer value; also where a line end follows it, which
    leaves every character as it is that the value has a part in."""
    from binascii import b2a_base64

    encoded = b2a_base64(value.rstrip(b"\r\n"), newline=False)
    for width in (76, 64):
        if len(encoded) > width:
            for at in range(0, min(len(encoded), MOST_LINES * width), width):
                yield encoded[at : at + width].rstrip(b"=")


def _base64(piece: bytes, shift: int) -> Iterator[bytes]:
    """The characters that the piece alone decides, where it begins `shift` bytes behind a group of three."""
    from binascii import b2a_base64

    encoded = b2a_base64(bytes(shift) + piece, newline=False)
    sure = encoded[-(-8 * shift // 6) : 8 * (shift + len(piece)) // 6]
    yield sure
    yield sure.replace(b"+", b"-").replace(b"/", b"_")
