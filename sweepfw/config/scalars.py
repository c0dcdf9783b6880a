"""What a plain YAML scalar means, and which characters may stand in a value."""

from __future__ import annotations

from sweepfw.core.values import Number, Value, is_number
from sweepfw.errors import SweepError

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_NOT_FINITE = {".nan", ".inf"}  # in lower case and without sign
_LONGEST = 1000  # characters of a number
_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) | {"\t", "\n"}  # spared the slow look-up


def plain(text: str, place: str) -> Value:
    """What a plain (unquoted) scalar means. Numbers must fit a float: NaN, infinity and 1e400 are refused."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if is_number(text):
        return _finite(text, place)
    if text.lower().lstrip("+-") in _NOT_FINITE:
        raise SweepError(f"{place}: {text} is not a finite number; for the word, write '{text}' in quotes")
    return text


def _finite(text: str, place: str) -> Number:
    digits, _, exponent = text.lower().partition("e")
    if len(text) > _LONGEST or len(exponent.lstrip("+-0")) > 4:  # what int() and Decimal() can't take
        raise SweepError(
            f"{place}: {clip(text)} is too long for a number; put it in quotes to keep it as text"
        )
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise SweepError(f"{place}: {clip(text)} is too large for a number; the largest is about 1.8e308")
    if value == 0 and digits.strip("+-0."):
        raise SweepError(f"{place}: {clip(text)} is too close to 0 for a number; the least is about 5e-324")
    return Number(text)


def clip(text: str) -> str:
    """Text of the user for a message of one line: short, and without a character that acts."""
    text = text.encode("unicode_escape", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."


def control_at(text: str) -> int | None:
    """Where the first control character other than tab and newline (or half a surrogate pair) stands."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return None
    import unicodedata

    for index, character in enumerate(text):
        if character not in _PLAIN and unicodedata.category(character) in {"Cc", "Cs"}:
            return index
    return None


def describe_control(character: str) -> str:
    return f"control character U+{ord(character):04X}; only tab and newline may stand here"
