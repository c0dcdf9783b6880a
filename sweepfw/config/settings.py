"""Readers of the keys of project.yml: from a node to what a Spec holds, or one line on what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from sweepfw.config.node import Node
from sweepfw.config.quantities import (
    choice,
    duration,
    entries,
    items,
    optional,
    positive,
    refuse_unknown,
    shown,
    size,
    suggest,
    whole,
    word,
    words,
)
from sweepfw.config.scalars import clip
from sweepfw.core.model import Environment, Needs, Objective
from sweepfw.core.values import text

if TYPE_CHECKING:
    from sweepfw.core.secrets import Need

# Patterns are compiled when first used: most never are.
_QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*"|\\."""
_OPERATOR = r"[|&;<>]+"
# <<EOF or <<-'EOF', then a placeholder before the line that ends it.
_HERE_DOCUMENT = (
    r"<<-?[ \t]*['\"\\]?(?P<end>\w++)[^\n]*\n(?:(?!^\t*(?P=end)$).)*?(?<![${])\{(?P<name>[A-Za-z_][\w.-]*)\}"
)
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_METRIC = r"[A-Za-z_][\w./@%-]{0,99}"
_NUMBERED = r"(?:exit|signal) [0-9]{1,3}"

REASONS = (
    "exit N",
    "signal N",
    "exit",
    "signal",
    "out of memory",
    "gpu out of memory",
    "timeout",
    "setup failed",
    "no such command",
    "output too large",
    "any",
)


def command(node: Node, *, shell: bool = False) -> tuple[str, ...]:
    """The command's items: a list as it stands, a string split into words; for a shell, one string."""
    if shell:
        if not isinstance(node.value, str) or not node.value.strip():
            raise node.error("with 'shell: true' the command is one string; write such as command: a | b")
        if match := re.search(_HERE_DOCUMENT, node.value, re.DOTALL | re.MULTILINE):
            name = match["name"]
            raise node.error(
                f"{{{name}}} stands in a here-document (<<), where the shell would run what a value says; "
                f"write {name}={{{name}}} before it and ${name} in it"
            )
        return (node.value,)
    listed = isinstance(node.value, tuple)
    argv = tuple(_argument(item) for item in items(node)) if listed else _split(node)
    if not argv or not argv[0]:
        raise node.error("the command is empty; write such as command: python train.py")
    if re.match(_ASSIGNMENT, argv[0]):
        name = argv[0].partition("=")[0]
        raise node.error(f"{clip(argv[0])!r} is not a program; set {clip(name)} under 'variables'")
    return argv


def _argument(node: Node) -> str:
    if node.value is None or isinstance(node.value, (tuple, Mapping)):
        raise node.error(f"{shown(node)} can't be an argument; write text, or '' for an empty one")
    return text(node.value)


def _split(node: Node) -> tuple[str, ...]:
    from shlex import split

    if not isinstance(node.value, str):
        raise node.error(f"{shown(node)} is not a command; write such as python train.py, or a list")
    line = node.value.replace("\\\n", "")  # a line that goes on, as in a shell
    try:
        argv = tuple(split(line))
    except ValueError as error:
        what = "a quote is never closed" if "quotation" in str(error) else "a backslash stands at the end"
        raise node.error(f"{what} in the command; close it, or write the command as a list") from None
    if operator := re.search(_OPERATOR, re.sub(_QUOTED, "", line, flags=re.DOTALL)):
        raise node.error(
            f"{operator[0]!r} in the command needs a shell; set 'shell: true', or put it in quotes"
        )
    return argv


def metrics(node: Node) -> tuple[tuple[str, str | None], ...]:
    """Names, or a mapping from name to the user's own pattern (null: the usual way)."""
    if isinstance(node.value, Mapping):
        return tuple((_metric(name, item), _pattern(item)) for name, item in node.value.items())
    names = tuple(_metric(word(item), item) for item in items(node))
    for index, item in enumerate(items(node)):
        if names[index] in names[:index]:
            raise item.error(f"metric {names[index]!r} stands here twice; keep one")
    return tuple((name, None) for name in names)


def _metric(name: str, node: Node) -> str:
    if not re.fullmatch(_METRIC, name):
        raise node.error(f"{clip(name)!r} can't be a metric's name; write such as loss, val_acc or val/loss")
    return name


def _pattern(node: Node) -> str | None:
    if node.value is None:
        return None
    pattern = word(node)
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise node.error(f"{clip(pattern)!r} is not a regular expression ({error})") from None
    named = compiled.groupindex
    if "value" not in named and compiled.groups - ("step" in named) != 1:
        raise node.error(
            f"{clip(pattern)!r} needs one group around the number, such as 'loss is ([0-9.]+)'; "
            "others are written (?:...)"
        )
    return pattern


def objective(node: Node) -> Objective:
    given = entries(node, "{metric: loss, goal: minimize}")
    readers: dict[str, Callable[[Node], Any]] = {
        "metric": lambda item: _metric(word(item), item),
        "goal": choice("minimize", "maximize"),
        "at": choice("last", "best"),
    }
    refuse_unknown(given, readers, " in objective")
    if "metric" not in given:
        raise node.error("the objective names no metric; write such as {metric: loss, goal: minimize}")
    return Objective(**{key: readers[key](item) for key, item in given.items()})


def needs(node: Node) -> Needs:
    readers: dict[str, Callable[[Node], Any]] = {
        "gpus": whole,
        "cpus": positive,
        "memory": optional(size),
        "vram": optional(size),
        "paths": _paths,
        "hosts": words,
        "labels": words,
    }
    given = entries(node, "{cpus: 2, memory: 8GB}")
    refuse_unknown(given, readers, " in needs")
    return Needs(**{key: readers[key](item) for key, item in given.items()})


def _paths(node: Node) -> tuple[str, ...]:
    for item in items(node):
        if not word(item).startswith("/"):
            raise item.error(f"{shown(item)} is not an absolute path; write such as /data")
    return words(node)


def environment(node: Node) -> Environment:
    """`inherit`, or what `requirements` or `python` names. Whether it exists is the project's to check."""
    if node.value == "inherit":
        return Environment()
    example = "inherit, {requirements: requirements.txt} or {python: /path/to/python}"
    if not isinstance(node.value, Mapping):
        raise node.error(f"{shown(node)} is no environment; write {example}")
    refuse_unknown(node.value, ("requirements", "python"), " in environment")
    if len(node.value) != 1:
        raise node.error(f"an environment is one of three; write {example}")
    ((kind, item),) = node.value.items()
    value = word(item)
    return Environment("requirements", value) if kind == "requirements" else Environment("python", value)


def variables(node: Node) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, item in entries(node, "{OMP_NUM_THREADS: 1}").items():
        _variable(name, item)
        if item.value is None or isinstance(item.value, (tuple, Mapping)):
            raise item.error(
                f"{shown(item)} can't be the value of {name}; write text, or '' for an empty one"
            )
        pairs.append((name, text(item.value)))
    return tuple(pairs)


def secrets(node: Node) -> tuple[Need, ...]:
    """Which secrets the task needs, and how a trial gets each."""
    from sweepfw.config.secrets import NAME

    needs = []
    for name, item in entries(node, "{WANDB_API_KEY: env}").items():
        if not re.fullmatch(NAME, name):
            raise item.error(f"{clip(name)!r} can't be a secret's name; write such as WANDB_API_KEY")
        needs.append(_secret(name, item))
    variables = [need.variable or need.name for need in needs if need.kind == "env"]
    for index, variable in enumerate(variables):
        if variable in variables[:index]:
            raise node.error(f"two secrets are given as the variable {variable}; give one another variable")
    return tuple(needs)


def _secret(name: str, node: Node) -> Need:
    from sweepfw.core.secrets import Need

    if isinstance(node.value, Mapping) and len(node.value) == 1:
        ((kind, item),) = node.value.items()
        if kind == "file":
            return Need(name, "file", word(item))
        if kind == "env":
            return Need(name, "env", None, _variable(word(item), item))
    if node.value == "file":
        return Need(name, "file")
    if node.value == "env":
        _variable(name, node, "; write {env: VARIABLE}")
        return Need(name, "env")
    raise node.error(
        f"{shown(node)} is no way to give a secret; write env, file, {{env: NAME}} or {{file: PATH}}"
    )


def _variable(name: str, node: Node, right: str = "; write such as DATA_DIR") -> str:
    if not re.fullmatch(_VARIABLE, name):
        raise node.error(f"{clip(name)!r} can't be a variable's name{right}")
    if name.startswith("SWEEPFW_"):
        raise node.error(f"{name} is one of sweepfw's own variables; take another name")
    return name


def outputs(node: Node) -> tuple[str, ...]:
    """Patterns of files in the working directory; they never lead out of it."""
    for item in items(node):
        path = PurePosixPath(word(item))
        if path.is_absolute() or ".." in path.parts:
            raise item.error(f"{shown(item)} leads out of the working directory; write such as ckpt/**")
    return words(node)


def retries(node: Node) -> tuple[tuple[str, int], ...]:
    """`2`: for any reason. `{timeout: 1, exit 3: 2}`: by reason; "*" stands for any other."""
    if not isinstance(node.value, Mapping):
        count = whole(node)
        return (("*", count),) if count else ()
    return tuple((_reason(reason, item), whole(item)) for reason, item in node.value.items())


def _reason(reason: str, node: Node) -> str:
    if reason in {"any", "*"}:
        return "*"
    if re.fullmatch(_NUMBERED, reason) or (reason in REASONS and not reason.endswith(" N")):
        return reason
    raise node.error(f"unknown reason {clip(reason)!r} in retries; {suggest(reason, REASONS)}")


def checkpoint_every(node: Node) -> float:
    seconds = duration(node)
    if seconds < 1:
        raise node.error(f"{shown(node)} is too often; at least 1 (second), such as 10m")
    return seconds


def max_failures(node: Node) -> int | None:
    """So many failures pause the sweep; 0 and null: never."""
    return None if node.value is None else whole(node) or None
