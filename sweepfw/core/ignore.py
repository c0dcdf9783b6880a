"""Ignore files: which paths the rules of a `.gitignore` name, in git's own grammar.

Own code, because the library that knows the grammar takes 30 ms to import, a third of what a run may take
to its first trial; a test holds it against git itself. Unlike git, `?` and `[...]` match a character, not
a byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "punct": "!-/:-@\\[-`{-~",
    "xdigit": "0-9a-fA-F",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "graph": "!-~",
    "print": " -~",
}


class Rule(NamedTuple):
    """One line of an ignore file. `negated`: it brings back. `prefix`: the folders that every match is in."""

    text: str
    negated: bool
    folders_only: bool
    by_name: bool  # no slash in it: it is held against the last part of a path only
    regex: re.Pattern[str]
    prefix: str = ""

    def matches(self, path: str, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        return self.regex.fullmatch(path.rpartition("/")[2] if self.by_name else path) is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one ignore file, in its order. Paths are relative to the folder of that file."""

    rules: tuple[Rule, ...]
    _names: re.Pattern[str] = field(repr=False)
    _paths: re.Pattern[str] = field(repr=False)

    def decide(self, path: str, is_folder: bool) -> Rule | None:
        """The last rule that matches this very path, which is the one that counts."""
        name = path.rpartition("/")[2]
        if not (self._names.fullmatch(name) or self._paths.fullmatch(path)):
            return None  # nearly always: one search instead of one for each rule
        return next((rule for rule in reversed(self.rules) if rule.matches(path, is_folder)), None)

    def reaches(self, folder: str) -> bool:
        """Whether a rule brings back something that may lie in this folder, which is itself left out.

        Only rules with a path do: `!*.pt` does not open every folder that is left out, as in git.
        """
        inside = folder + "/"
        return any(
            rule.negated
            and not rule.by_name
            and (rule.prefix.startswith(inside) or inside.startswith(rule.prefix))
            for rule in self.rules
            if rule.prefix
        )


def read_rules(text: str) -> Rules:
    """The rules of an ignore file. Never fails: what git can't read matches nothing, here as there."""
    lines = text.removeprefix("\ufeff").split("\n")
    rules = tuple(rule for line in lines if (rule := _read_rule(line.removesuffix("\r"))) is not None)
    return Rules(rules, _any_of(rules, by_name=True), _any_of(rules, by_name=False))


def _any_of(rules: tuple[Rule, ...], *, by_name: bool) -> re.Pattern[str]:
    found = [f"(?:{rule.regex.pattern})" for rule in rules if rule.by_name is by_name]
    return re.compile("|".join(found) or r"(?!)", re.DOTALL)


def _read_rule(line: str) -> Rule | None:
    pattern = _strip_end(line)
    if not pattern or pattern.startswith("#"):
        return None
    negated = pattern.startswith("!")
    pattern = pattern[negated:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    by_name = "/" not in pattern
    pattern = pattern.removeprefix("/")
    if not pattern:
        return None
    expression = _translate(pattern)
    regex = re.compile(r"(?!)" if expression is None else expression, re.DOTALL)
    return Rule(line.strip(), negated, folders_only, by_name, regex, "" if by_name else _prefix(pattern))


def _strip_end(line: str) -> str:
    """Without the spaces at its end, but a space after a backslash stays."""
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and len(bare) < len(line) else bare


def _prefix(pattern: str) -> str:
    """The folders at the pattern's start that are written out, with a slash at the end."""
    literal = _literal(pattern)
    return literal[: literal.rfind("/") + 1] if literal != pattern else pattern + "/"


def _literal(pattern: str) -> str:
    """What comes before the first sign that does not stand for itself."""
    return re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]


def _translate(pattern: str) -> str | None:
    """The regular expression for a pattern; None where git says that it never matches."""
    made, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            part, at = _stars(pattern, at)
        elif char == "?":
            part, at = "[^/]", at + 1
        elif char == "[":
            bracket = _bracket(pattern, at + 1)
            if bracket is None:
                return None
            part, at = bracket
        elif char == "\\":
            if at + 1 == len(pattern):
                return None
            part, at = re.escape(pattern[at + 1]), at + 2
        else:
            part, at = re.escape(char), at + 1
        made += part
    return made


def _stars(pattern: str, at: int) -> tuple[str, int]:
    """`**` between slashes stands for any folders, or none; other stars stay within a name.

    The pattern's start counts as a slash, and so does the end of its literal part: git compares that apart.
    """
    end = at
    while end < len(pattern) and pattern[end] == "*":
        end += 1
    starts = pattern[:at].endswith("/") or at == len(_literal(pattern))
    if end - at >= 2 and starts:
        if end == len(pattern) or pattern.startswith("\\/", end):
            return ".*", end
        if pattern[end] == "/":
            return "(?:.*/)?", end + 1
    return "[^/]*", end


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """The expression for what follows a `[`, and where it ends; None where nothing closes it."""
    negated = pattern[at : at + 1] in {"!", "^"}
    at += negated
    items, first = "", True
    while at < len(pattern) and (first or pattern[at] != "]"):
        first = False
        if pattern.startswith("[:", at) and (end := pattern.find(":]", at)) > 0:
            items += _CLASSES.get(pattern[at + 2 : end], "")
            at = end + 2
            continue
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"", "]"}:
            high, at = _member(pattern, at + 1)
        if low and low <= high:
            items += f"{re.escape(low)}-{re.escape(high)}"
    if at >= len(pattern):
        return None
    if not items:  # only reversed ranges: nothing is in it
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"(?!/)[{'^' if negated else ''}{items}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        return pattern[at + 1 : at + 2], at + 2
    return pattern[at], at + 1
