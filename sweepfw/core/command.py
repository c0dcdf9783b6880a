"""Commands: parameters turned into arguments, and argument lists that know what they must not show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweepfw.core.model import Spec
from sweepfw.core.space import Space
from sweepfw.core.values import Params, Value, text

# {{ and }} stand for braces, {name} for a parameter or a place.
_BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_HIDDEN = "***"


def argv(spec: Spec, params: Params, places: Mapping[str, str]) -> list[str]:
    """The argument list of one trial: the command with its placeholders filled, then the other parameters.

    `places` are what `{output}`, `{checkpoint}`, `{trial}` and `{sweep}` stand for; a parameter of such a
    name wins. What is filled in is never looked at again: a value `{trial}` stays as it is. An item that
    names a parameter which `when` leaves out of this trial is left out itself.
    """
    filling = _Filling(spec, params, places)
    if spec.shell:
        return _shell(spec, filling)
    filled = [part for item in spec.command for part in filling.item(item)]
    return filled + filling.flags()


def flag(spec: Spec, name: str, value: Value) -> list[str]:
    """The arguments for one parameter, in the task's `flags` and `booleans`.

    With `bare` there is no flag that could be left out, so booleans are always written: `name=false`.
    """
    if value is None:
        return []
    if isinstance(value, bool) and spec.booleans != "value" and spec.flags != "bare":
        if value:
            return [f"--{name}"]
        return [f"--no-{name}"] if spec.booleans == "negate" else []
    items = [text(item) for item in value] if isinstance(value, tuple) else [text(value)]
    if spec.flags == "space":
        return [f"--{name}", *items]
    dashes = "" if spec.flags == "bare" else "--"
    return [f"{dashes}{name}={item}" for item in items]


def vanishing(spec: Spec, space: Space) -> list[str]:
    """The parameters of which a `false` leaves no trace in the command, for `plan` to warn about."""
    if spec.booleans != "flag" or spec.flags == "bare":
        return []
    named = set(placeholders(spec))
    found = []
    for name, values in space.values.items():
        added = [entry[name] for entry in space.include if name in entry]
        if name not in named and any(value is False for value in (*_listed(values), *added)):
            found.append(name)
    return found


def placeholders(spec: Spec) -> list[str]:
    """The names in braces in the command, whether or not anything has that name."""
    return [match[1] for item in spec.command for match in _BRACES.finditer(item) if match[1]]


def _listed(values: object) -> tuple[Value, ...]:
    return values if isinstance(values, tuple) else ()  # computed values are numbers


class _Filling:
    """Fills the placeholders of one trial's command and remembers which parameters were used."""

    def __init__(self, spec: Spec, params: Params, places: Mapping[str, str]) -> None:
        self.spec, self.params, self.places = spec, params, places
        self.used: set[str] = set()

    def look_up(self, name: str) -> Value:
        """What the name stands for. KeyError: nothing has it. LookupError: not in this trial."""
        if name in self.params:
            self.used.add(name)
            return self.params[name]
        if name in self.places:
            return self.places[name]
        if name in {known for known, _ in self.spec.space.get("parameters", ())}:
            raise LookupError(name)
        raise KeyError(name)

    def item(self, item: str) -> list[str]:
        """The arguments that one item of the command becomes: one, or as many as the list that it names."""
        whole = _BRACES.fullmatch(item)
        try:
            if whole and whole[1] and isinstance(value := self.look_up(whole[1]), tuple):
                return [text(each) for each in value]
            return [_BRACES.sub(self.replace, item)]
        except KeyError:
            return [item]  # only where the whole item is an unknown name
        except LookupError:
            return []

    def replace(self, match: re.Match[str]) -> str:
        if not match[1]:
            return match[0][0]
        try:
            return text(self.look_up(match[1]))
        except KeyError:
            return match[0]

    def flags(self) -> list[str]:
        """Arguments for the parameters that no placeholder used."""
        rest = (name for name in self.params if name not in self.used)
        return [part for name in rest for part in flag(self.spec, name, self.params[name])]


def _shell(spec: Spec, filling: _Filling) -> list[str]:
    """`sh` with the user's text. Parameters without a placeholder are its "$@", added at the end unless
    the text says where."""
    from sweepfw.core.quoting import fill

    line = fill(spec.command[0], filling.look_up).rstrip()
    flags = filling.flags()
    if flags and "$@" not in line and "$*" not in line:
        line += ' "$@"'
    return ["/bin/sh", "-c", line, "sh", *flags]


class Secret:
    """A text that does not show itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))


@dataclass(frozen=True, slots=True)
class Cmd:
    """A command to run: an argument list, never text for a shell."""

    argv: tuple[str | Secret, ...]

    def reveal(self) -> list[str]:
        """The arguments with their secrets, for the one who runs it."""
        return [item.reveal() if isinstance(item, Secret) else item for item in self.argv]

    def quoted(self) -> str:
        """For people: as a shell would take it, without the secrets."""
        return " ".join(_HIDDEN if isinstance(item, Secret) else shown([item]) for item in self.argv)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(item for item in self.argv if isinstance(item, Secret))


def cmd(*argv: str | Secret) -> Cmd:
    """`cmd("docker", "stop", name)`."""
    return Cmd(argv)


def shown(items: Iterable[str]) -> str:
    """An argument list for people: as a shell would take it."""
    from shlex import join

    return join(items)
