"""A project: the folder with a `project.yml`, found by name or path, read, and frozen into a Spec."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sweepfw.config import quantities, schema, settings
from sweepfw.config.node import Node
from sweepfw.config.scalars import clip
from sweepfw.config.workspace import Workspace
from sweepfw.config.yaml_reader import read_file, read_text, show_path
from sweepfw.core.model import Environment, Spec
from sweepfw.core.values import Number
from sweepfw.errors import SweepError

FILE = "project.yml"
PARAMETERS = "parameters.yml"
ONLY_TASK = "main"  # the task of a project that names none
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"  # patterns are compiled when first used: most never are
_TASK = r"[A-Za-z_][A-Za-z0-9_.-]{0,79}"


class Project(NamedTuple):
    """A project as its files say it. Values are checked when a task is frozen by `spec_for`."""

    name: str  # fit for the names of sweeps
    root: Path
    tasks: Mapping[str, Mapping[str, Node]]  # in order; the project's keys with the task's own over them
    places: Mapping[str, str]  # task -> where it stands

    @property
    def default_task(self) -> str:
        return next(iter(self.tasks))


def find_project(workspace: Workspace, ref: str, cwd: Path) -> Path:
    """The folder that `ref` names: a project under `projects/`, or a path. SweepError where there is none."""
    if not ref or "\0" in ref:
        raise SweepError("a project's name is empty; name one under projects/, or a path")
    for folder in _candidates(workspace, ref, cwd):
        if _has_file(folder):
            return folder
    raise SweepError(_missing(workspace, ref, cwd))


def _candidates(workspace: Workspace, ref: str, cwd: Path) -> list[Path]:
    path = Path(ref).expanduser() if ref.startswith("~/") else Path(ref)
    here = Path(os.path.normpath(cwd / (path.parent if path.name == FILE else path)))
    if "/" in ref or ref in {".", ".."}:
        return [here]
    named = [workspace.projects / ref, cwd / "projects" / ref] if re.fullmatch(NAME, ref) else []
    return [*named, here]


def _has_file(folder: Path) -> bool:
    return _is_file(folder / FILE)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for names that are too long


def _missing(workspace: Workspace, ref: str, cwd: Path) -> str:
    """Why there is no such project, in one line, with what would be right."""
    for folder in _candidates(workspace, ref, cwd):
        if os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises for names that are too long
            place = show_path(folder)
            if _is_file(folder / "project.yaml"):
                return f"{place}/project.yaml: rename it to {FILE}"
            return f"{place}: has no {FILE}; `sweepfw init {place}` writes one"
    known = list_projects(workspace, cwd)
    hint = quantities.suggest(ref, known) if known else "`sweepfw new NAME` makes one"
    return f"{clip(ref)}: no such project; {hint}"


def list_projects(workspace: Workspace, cwd: Path) -> list[str]:
    """Names of the projects under `projects/`, sorted."""
    names = set()
    for folder in {workspace.projects, cwd / "projects"}:
        if folder.is_dir():
            names |= {entry.name for entry in folder.iterdir() if _has_file(entry)}
    return sorted(names)


def load_project(root: Path) -> Project:
    """Read `project.yml`. Unknown keys are refused here, in every task; values where a task is frozen."""
    node = read_file(root / FILE)
    if node.value is None:
        raise node.error("is empty; it needs at least a line such as: command: python train.py")
    keys = quantities.entries(node, "command: python train.py")
    quantities.refuse_unknown(keys, schema.NAMES)
    shared = {key: value for key, value in keys.items() if key != "tasks"}
    tasks, places = {ONLY_TASK: shared}, {ONLY_TASK: node.place}
    if "tasks" in keys and keys["tasks"].value is not None:
        own = _tasks(keys["tasks"])
        tasks = {name: {**shared, **value} for name, value in own.items()}
        places = {name: task.place for name, task in quantities.entries(keys["tasks"], "").items()}
    return Project(slug(root.absolute().name), root, tasks, places)


def _tasks(node: Node) -> dict[str, Mapping[str, Node]]:
    """Each task's own keys; a task that is a string or a list is its command."""
    example = "{train: {command: python train.py}}"
    known = [name for name in schema.NAMES if name != "tasks"]
    tasks: dict[str, Mapping[str, Node]] = {}
    for name, task in quantities.entries(node, example).items():
        if not re.fullmatch(_TASK, name):
            raise task.error(f"{clip(name)!r} can't be a task's name; use letters, digits, '_', '.' and '-'")
        if isinstance(task.value, Mapping):
            quantities.refuse_unknown(task.value, known, f" in task {name!r}")
            tasks[name] = task.value
        else:
            tasks[name] = {} if task.value is None else {"command": task}
    if not tasks:
        raise node.error(f"no task is named; write such as {example}, or leave 'tasks' out")
    return tasks


def slug(name: str) -> str:
    """A folder's name made fit for the names of sweeps: ASCII letters, digits, `_`, `.` and `-`."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", name):
        return name
    from unicodedata import normalize

    plain = normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-._")[:80] or "project"


def pick_task(project: Project, task: str | None) -> str:
    """The task's name, or the first one's. SweepError for one that is not there."""
    if task is None:
        return project.default_task
    if task not in project.tasks:
        place = show_path(project.root / FILE)
        raise SweepError(f"{place}: no task {clip(task)!r}; {quantities.suggest(task, list(project.tasks))}")
    return task


def spec_for(
    project: Project, task: str | None = None, *, sets: Sequence[str] = (), repeats: int | None = None
) -> Spec:
    """Freeze a task: every value checked, the parameters with `--set` applied. SweepError at the first
    that is wrong, with its place. `repeats` (from the command line) stands above the project's."""
    task = pick_task(project, task)
    given = {
        key: node
        for key, node in project.tasks[task].items()
        if node.value is not None or key in schema.TAKES_NULL
    }
    if "command" not in given:
        raise SweepError(
            f"{project.places[task]}: the task {task!r} has no command; "
            "write such as command: python train.py"
        )
    fields: dict[str, Any] = {key: read(given[key]) for key, read in schema.READERS.items() if key in given}
    fields["command"] = settings.command(given["command"], shell=fields.get("shell", False))
    if "environment" in given:
        fields["environment"] = _locate(fields["environment"], given["environment"], project.root)
    if "secrets" in given:
        _check_secrets(fields, given["secrets"], project.root)
    return Spec(project=project.name, task=task, space=_space(project, task, given, sets, repeats), **fields)


def _space(
    project: Project, task: str, given: Mapping[str, Node], sets: Sequence[str], repeats: int | None
) -> Mapping[str, Any]:
    from sweepfw.config.parameters import read_space

    rules = {key: given[key] for key in schema.SPACE if key in given}
    if repeats is not None:
        rules["repeats"] = Node(Number(str(repeats)), "--repeats")
    space = read_space(_parameters(project, task), rules)
    if sets:
        from sweepfw.config.parameters import apply_sets

        space = apply_sets(space, sets, read_text)
    return space.to_json()


def _parameters(project: Project, task: str) -> Node:
    """The mapping of the parameters: inline, or from the file; an empty one where there are none."""
    path = parameters_file(project, task)
    inline = project.tasks[task].get("parameters")
    if path is None:
        if inline is None or inline.value is None:
            return Node({}, project.places[task])
        quantities.entries(inline, "{lr: [0.1, 0.01]}, or name a file")
        return inline
    if inline is not None and inline.value is not None and not _is_file(path):
        raise inline.error(f"there is no file {clip(str(inline.value))!r} in {show_path(project.root)}")
    node = read_file(path)
    return replace(node, value={}) if node.value is None else node


def parameters_file(project: Project, task: str) -> Path | None:
    """The file that holds the task's parameters; None where they stand inline or there are none."""
    node = project.tasks[task].get("parameters")
    if node is None or node.value is None:
        path = project.root / PARAMETERS
        return path if path.exists() else None
    return project.root / node.value if isinstance(node.value, str) and node.value else None


def unused_parameter_files(project: Project) -> list[Path]:
    """YAML files beside project.yml whose names speak of parameters, but that no task names."""
    used = {parameters_file(project, task) for task in project.tasks}
    found = [path for path in project.root.iterdir() if path.suffix in {".yml", ".yaml"}]
    return sorted(path for path in found if "param" in path.name.lower() and path not in used)


def _check_secrets(fields: dict[str, Any], node: Node, root: Path) -> None:
    """One name, one value; and what is frozen, copied and sent is no place for a secret."""
    open_ones = {name for name, _ in fields.get("variables", ())}
    for need in fields["secrets"]:
        place = quantities.entries(node, "")[need.name]
        if need.kind == "env" and (need.variable or need.name) in open_ones:
            raise place.error(f"{need.variable or need.name} stands under 'variables' too; keep one of them")
        if need.source is None:
            continue
        path = os.path.normpath(root.absolute() / os.path.expanduser(need.source))  # noqa: PTH111  # never raises
        real = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
        if real or Path(path).is_relative_to(os.path.normpath(root.absolute())):
            raise place.error(
                f"{clip(need.source)!r} lies in the project, which is frozen with every sweep; keep it "
                f"elsewhere, or store it: sweepfw secret set {need.name} --from-file FILE"
            )
    fields["secrets"] = tuple(
        need
        if need.source is None or need.source.startswith("~")
        else need._replace(source=os.path.normpath(root.absolute() / need.source))
        for need in fields["secrets"]
    )


def _locate(environment: Environment, node: Node, root: Path) -> Environment:
    """The environment with what it names found: a file inside the project, an interpreter's full path."""
    value = environment.value
    if environment.kind == "requirements":
        node = quantities.entries(node, "")["requirements"]
        path = os.path.normpath(value)
        if Path(path).is_absolute() or path.startswith("..") or not (root / path).is_file():
            raise node.error(
                f"there is no file {clip(value)!r} inside the project; name one, or leave it out"
            )
        return Environment("requirements", path)
    if environment.kind == "python" and ("/" in value or value.startswith("~")):
        path = os.path.normpath(root.absolute() / Path(value).expanduser())
        return Environment("python", path)  # links stay: a virtual environment's python is one
    return environment
