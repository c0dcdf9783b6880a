"""A project read and checked, before anything is written anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Spec
    from sweepfw.core.space import Space
    from sweepfw.snapshot import Listing


class Prepared(NamedTuple):
    """What is to be submitted. `only`: the trials that run now; None: all."""

    root: Path
    spec: Spec
    space: Space
    only: tuple[int, ...] | None

    def survey(self) -> Listing:
        """The files to be frozen. SweepError where they are over the limit."""
        from sweepfw.snapshot import survey

        return survey(self.root, self.spec.snapshot_limit)


def prepare(
    place: Workspace,
    ref: str,
    task: str | None,
    sets: tuple[str, ...],
    repeats: int | None,
    max_trials: int,
    name: str | None,
    only: str | None,
) -> Prepared:
    """SweepError for whatever is wrong with the project, its grid, or these words of the command line."""
    from sweepfw.config.project import find_project, load_project, spec_for
    from sweepfw.core.grid import check_limit, count
    from sweepfw.core.naming import parse_numbers
    from sweepfw.core.space import Space
    from sweepfw.ledger.names import check_name

    numbers = parse_numbers(only) if only is not None else None
    if name is not None:
        check_name(name)
    root = find_project(place, ref, Path.cwd())
    spec = spec_for(load_project(root), task, sets=sets, repeats=repeats)
    space = Space.from_json(spec.space)
    check_limit(space, max_trials)
    total = count(space).number
    if numbers and numbers[-1] > total:
        raise SweepError(f"--only {numbers[-1]}: there are {total} trials, numbered from 1")
    return Prepared(root, spec, space, numbers)
