"""A YAML node with its place, so that every complaint can name file, line and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweepfw.core.values import Value
from sweepfw.errors import SweepError


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at one place of a file (or of a `--set` option).

    `value` is a scalar (str, bool, None, Number), a tuple of nodes (a list, or an interval where `interval`),
    or a mapping from key to node, in the order of the file.
    """

    value: Value | tuple[Node, ...] | Mapping[str, Node]
    place: str  # "projects/mine/parameters.yml:3:5", or "--set"
    interval: bool = False  # tagged !!python/tuple

    def error(self, what: str) -> SweepError:
        """The SweepError that says so, with the place in front."""
        return SweepError(f"{self.place}: {what}")
