"""What the shell proposes after Tab: sweeps, trials, projects, tasks, secrets. Errors are never shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click

_MOST = 200  # proposals; more help nobody

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _silent(propose: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """A click callback that keeps what begins with the typed text; errors and silence are the same to it."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            found = (name for name in propose(ctx, incomplete) if name.startswith(incomplete))
            return [name for name, _ in zip(found, range(_MOST), strict=False)]
        except Exception:  # a message in the middle of somebody's typing would be worse than no proposal
            return []

    return complete


def _sweeps(ctx: click.Context, typed: str) -> Iterable[str]:
    from sweepfw.config.workspace import Workspace
    from sweepfw.ledger.local import open_ledger

    sweeps = open_ledger(Workspace.find(Path.cwd()), create=False).sweeps()
    return [sweep.name for sweep in reversed(sweeps)]  # the newest first


def _trials(ctx: click.Context, typed: str) -> Iterable[str]:
    """`SWEEP/` while several are meant, then its trials."""
    from sweepfw.config.workspace import Workspace
    from sweepfw.ledger.local import open_ledger

    sweep, slash, _ = typed.partition("/")
    if not slash:
        near = [name for name in _sweeps(ctx, typed) if name.startswith(typed)]
        if len(near) != 1:
            return [f"{name}/" for name in near]
        sweep = near[0]  # the only one: go on to its trials, or bash would end the word after the slash
    ledger = open_ledger(Workspace.find(Path.cwd()), create=False)
    return (f"{sweep}/{trial.number}" for trial in ledger.trials(ledger.sweep(sweep).uid))


def _targets(ctx: click.Context, typed: str) -> Iterable[str]:
    return _trials(ctx, typed) if "/" in typed else _sweeps(ctx, typed)


def _projects(ctx: click.Context, typed: str) -> Iterable[str]:
    from sweepfw.config.workspace import Workspace

    folder = Workspace.find(Path.cwd()).projects
    if "/" in typed or not folder.is_dir():
        parent = Path(typed if typed.endswith("/") else typed.rpartition("/")[0] or ".")
        return [f"{parent / path.parent.name}" for path in sorted(parent.glob("*/project.yml"))]
    return [path.parent.name for path in sorted(folder.glob("*/project.yml"))]


def _tasks(ctx: click.Context, typed: str) -> Iterable[str]:
    from sweepfw.config.project import find_project, load_project
    from sweepfw.config.workspace import Workspace

    here = Path.cwd()
    # After `--task` and nothing more, click has read no argument yet: the project is the first that is left.
    name = ctx.params.get("project") or ctx.args[0]
    project = load_project(find_project(Workspace.find(here), name, here))
    return list(project.tasks)


def _deployments(ctx: click.Context, typed: str) -> Iterable[str]:
    from sweepfw.config.deployments import names

    return names()


def _secrets(ctx: click.Context, typed: str) -> Iterable[str]:
    from sweepfw.config.secrets import stored

    return [each.name for each in stored()]


sweep_names = _silent(_sweeps)
trial_names = _silent(_trials)
targets = _silent(_targets)
project_names = _silent(_projects)
task_names = _silent(_tasks)
deployment_names = _silent(_deployments)
secret_names = _silent(_secrets)
