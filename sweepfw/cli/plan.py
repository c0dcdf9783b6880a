"""`plan`: what would run. Runs nothing and writes nothing."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweepfw.cli import options
from sweepfw.cli.complete import project_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweepfw.config.project import Project
    from sweepfw.core.model import Spec
    from sweepfw.core.space import Space

FIRST = 5  # commands shown
# What only a run can know stays as it is written in the command.
PLACES = {name: f"{{{name}}}" for name in ("output", "checkpoint", "sweep")}


@click.command()
@click.argument("project", shell_complete=project_names)
@options.task
@options.sets
@options.repeats
@options.max_trials
@options.jobs
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N", help=f"How many commands to show. [default: {FIRST}]"
)
@click.option("--json", "as_json", is_flag=True, help="Print every trial, one JSON object a line.")
def plan(
    project: str,
    task: str | None,
    sets: tuple[str, ...],
    repeats: int | None,
    max_trials: int,
    jobs: int | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Show what `sweepfw run PROJECT` would run: how many trials, the first commands, what is frozen."""
    return show_plan(project, task, sets, repeats, max_trials, jobs, limit=limit, as_json=as_json)


def show_plan(
    ref: str,
    task: str | None,
    sets: tuple[str, ...],
    repeats: int | None,
    max_trials: int,
    jobs: int | None,
    *,
    limit: int | None = None,
    as_json: bool = False,
) -> int:
    """As `plan` does. SweepError where `run` would refuse, but for a command that isn't there: a warning."""
    from sweepfw.config.project import find_project, load_project, spec_for
    from sweepfw.core.grid import check_limit
    from sweepfw.core.space import Space

    root = find_project(options.workspace(), ref, Path.cwd())
    found = load_project(root)
    spec = spec_for(found, task, sets=sets, repeats=repeats)
    space = Space.from_json(spec.space)
    check_limit(space, max_trials)
    if as_json:
        for line in islice(_objects(spec, space), limit):
            click.echo(line)
        return 0
    for line in list(_told(found, spec, space, jobs, FIRST if limit is None else limit)):
        click.echo(line)  # not before all of it is known: bad input prints nothing else
    return 0


def _objects(spec: Spec, space: Space) -> Iterator[str]:
    from sweepfw.core.command import argv
    from sweepfw.core.grid import expand
    from sweepfw.core.values import typed

    for number, draft in enumerate(expand(space), 1):
        params = {name: typed(value) for name, value in draft.params.items()}
        words = argv(spec, draft.params, {**PLACES, "trial": str(number)})
        yield json.dumps({"trial": number, "repeat": draft.repeat, "params": params, "argv": words})


def _told(project: Project, spec: Spec, space: Space, jobs: int | None, limit: int) -> Iterator[str]:
    from sweepfw.cli.terminal import safe
    from sweepfw.cli.words import plural
    from sweepfw.core.command import argv, shown
    from sweepfw.core.grid import count, expand

    counted = count(space)
    number = plural(counted.number, "trial") if counted.exact else f"at most {counted.number:,} trials"
    yield f"{project.name}, task {spec.task}: {number}{_axes(space)}"
    for n, draft in enumerate(islice(expand(space), limit), 1):
        words = argv(spec, draft.params, {**PLACES, "trial": str(n)})
        yield f"  {n:>3}  {safe(shown(words))}"
    if counted.number > limit:
        yield f"       ... and {counted.number - limit:,} more (--limit N shows more, --json all)"
    yield from _place(project, spec, jobs)
    for warning in _warnings(project, spec, space):
        yield f"warning: {safe(warning)}"


def _axes(space: Space) -> str:
    several = [f"{'+'.join(names)} {number:,}" for names, number in _dimensions(space) if number > 1]
    several += [f"repeats {space.repeats}"] if space.repeats > 1 else []
    return f" ({' x '.join(several)})" if several else ""


def _dimensions(space: Space) -> Iterator[tuple[Sequence[str], int]]:
    """Names that vary together (one, or a group of `zip`), and how many values they take."""
    group = {name: names for names in space.zip for name in names}
    for parameter in space.parameters:
        names = group.get(parameter.name, [parameter.name])
        if names[0] == parameter.name:
            yield names, len(parameter.values)


def _place(project: Project, spec: Spec, jobs: int | None) -> Iterator[str]:
    from sweepfw.cli.terminal import safe
    from sweepfw.cli.words import plural, size
    from sweepfw.engine.session import place_slots
    from sweepfw.snapshot import scan

    slots = place_slots(spec, jobs)
    gpus = sum(len(slot.gpus or ()) for slot in slots)
    yield f"slots here: {len(slots)}" + (f", with {plural(gpus, 'GPU')}" if gpus else "")
    if spec.secrets:
        yield f"secrets: {', '.join(need.name for need in spec.secrets)}"
    listing = scan(project.root)
    yield f"frozen: {plural(len(listing.files), 'file')}, {size(listing.size)}"
    if listing.left_out:
        names = [f"{path} ({why})" for path, why in listing.left_out]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        yield f"left out: {safe(', '.join(names[:8]))}{more}"


def _warnings(project: Project, spec: Spec, space: Space) -> Iterator[str]:
    from sweepfw.config.project import unused_parameter_files
    from sweepfw.core.command import vanishing
    from sweepfw.engine.session import check_command, unfrozen
    from sweepfw.errors import SweepError

    for name in vanishing(spec, space):
        yield f"{name}: false leaves no flag; `booleans: value` or `negate` would show it to the command"
    if space.repeats > 1 and space.seed is None:
        yield f"{space.repeats} repeats run the same command; `seed: NAME` gives each its number"
    for path in unused_parameter_files(project):
        yield f"{path.name} is used by no task"
    if spec.secrets:
        from sweepfw.config.secrets import lacking

        for name in lacking(spec.secrets):
            yield f"the secret {name} is not stored, and `run` needs it: sweepfw secret set {name}"
    try:
        check_command(spec, project.root)
    except SweepError as error:
        yield str(error)
    for name, path in unfrozen(spec, project.root):
        yield f"{name} is installed from {path}, which is not frozen with the project"
