"""`parameters.yml` and the rules of project.yml, read into a Space. Every complaint names its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sweepfw.config.forms import describe, items_of, placed, read_value, read_values, read_whole
from sweepfw.config.node import Node
from sweepfw.config.sets import apply_sets, unite
from sweepfw.core import rules
from sweepfw.core.space import Parameter, Space
from sweepfw.core.values import Value

__all__ = ["apply_sets", "read_space", "unite"]


def read_space(parameters: Node, settings: Mapping[str, Node]) -> Space:
    """The space of these parameters under the rules zip, exclude, include, when, repeats and seed.

    SweepError with file, line and column for the first thing that is wrong.
    """
    if parameters.value is None:
        parameters = Node({}, parameters.place)
    nodes = _mapping(parameters, "parameters are a mapping from name to values, as in lr: [0.1, 0.01]")
    values: dict[str, Sequence[Value]] = {}
    for name, node in nodes.items():
        with placed(node):
            rules.check_name(name)
        values[name] = read_values(name, node)
    given = {key: node for key, node in settings.items() if node.value is not None}
    seed = _read_seed(given["seed"], values) if "seed" in given else None
    known = {name: items for name, items in values.items() if name != seed}
    groups = _read_zip(given["zip"], known, seed) if "zip" in given else ()
    _check_duplicates(nodes, known, groups)
    when = _read_when(given["when"], known, seed) if "when" in given else {}
    include = _read_entries("include", given, known, seed)
    for node, entry in include:
        with placed(node):
            rules.complete(entry, known, when)
    return Space(
        parameters=tuple(Parameter(name, items) for name, items in values.items()),
        zip=groups,
        exclude=tuple(entry for _, entry in _read_entries("exclude", given, known, seed)),
        include=tuple(entry for _, entry in include),
        when=when,
        repeats=_read_repeats(given["repeats"]) if "repeats" in given else 1,
        seed=seed,
    )


def _read_repeats(node: Node) -> int:
    repeats = read_whole("repeats", node)
    with placed(node):
        rules.check_repeats(repeats)
    return repeats


def _read_seed(node: Node, values: Mapping[str, Sequence[Value]]) -> str:
    if not isinstance(node.value, str):
        raise node.error(
            f"seed is the name of the parameter that gets the repeat's number, not {describe(node.value)}"
        )
    with placed(node):
        rules.check_seed(node.value, values)
    return node.value


def _read_zip(
    node: Node, known: Mapping[str, Sequence[Value]], seed: str | None
) -> tuple[tuple[str, ...], ...]:
    form = "zip is a list of groups of names, as in zip: [[lr, warmup]]"
    groups: list[tuple[str, ...]] = []
    for group in _list(node, form):
        names = [_text(item, form) for item in _list(group, form)]
        groups.append(tuple(names))
        with placed(group):
            rules.check_zip(groups, known, seed)
    return tuple(groups)


def _check_duplicates(
    nodes: Mapping[str, Node], known: Mapping[str, Sequence[Value]], groups: Sequence[Sequence[str]]
) -> None:
    zipped = {name for group in groups for name in group}
    for name, values in known.items():
        if name not in zipped and (twice := rules.duplicate(values)):
            first, second = twice
            place = _list_node(nodes[name])[second]
            raise place.error(f"{name}: {rules.same_values(values[first], values[second])}")
    for group in groups:
        with placed(nodes[group[-1]]):
            rules.check_duplicates({name: known[name] for name in group}, [group])


def _read_entries(
    rule: str, given: Mapping[str, Node], known: Collection[str], seed: str | None
) -> list[tuple[Node, dict[str, Value]]]:
    if rule not in given:
        return []
    form = f"{rule} is a list of combinations, as in {rule}: [{{opt: sgd, lr: 0.1}}]"
    return [(node, _read_entry(rule, node, known, seed, form)) for node in _list(given[rule], form)]


def _read_when(node: Node, known: Collection[str], seed: str | None) -> dict[str, dict[str, Value]]:
    form = "when is a mapping, as in when: {momentum: {opt: sgd}}"
    when: dict[str, dict[str, Value]] = {}
    for name, inner in _mapping(node, form).items():
        with placed(inner):
            rules.check_known("when", name, known, seed)
        when[name] = _read_entry("when", inner, known, seed, form)
    with placed(node):
        rules.order_when(when)
    return when


def _read_entry(
    rule: str, node: Node, known: Collection[str], seed: str | None, form: str
) -> dict[str, Value]:
    inner = _mapping(node, form)
    for name, value in inner.items():
        with placed(value):
            rules.check_known(rule, name, known, seed)
    with placed(node):
        rules.check_entry(rule, list(inner), known, seed)
    return {name: read_value(f"{rule}: {name}", value) for name, value in inner.items()}


def _list(node: Node, form: str) -> tuple[Node, ...]:
    items = items_of(node)
    if items is None or node.interval:
        raise node.error(form)
    return items


def _list_node(node: Node) -> tuple[Node, ...]:
    """The nodes of a parameter's list, which may stand in the long form."""
    inner = node.value["values"] if isinstance(node.value, Mapping) else node
    return items_of(inner) or ()


def _mapping(node: Node, form: str) -> Mapping[str, Node]:
    if not isinstance(node.value, Mapping):
        raise node.error(form)
    return node.value


def _text(node: Node, form: str) -> str:
    if not isinstance(node.value, str):
        raise node.error(form)
    return node.value
