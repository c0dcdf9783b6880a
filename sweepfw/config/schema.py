"""Every key of project.yml in one table: what reads it, what it takes, its default, and a sentence on it.

The readers are called by `project`; the reference in docs/project.md is held against this table by a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sweepfw.config import settings
from sweepfw.config.node import Node
from sweepfw.config.quantities import choice, duration, duration_or_zero, optional, size, switch, word


class Key(NamedTuple):
    """One key. `read` gives the Spec's field of that name; None: the project or the space reads it.

    A name with a point is a key within a key, shown in the reference; the outer one reads it.
    """

    name: str
    takes: str
    default: str
    says: str
    read: Callable[[Node], Any] | None = None


KEYS: tuple[Key, ...] = (
    Key(
        "command",
        "a string or a list",
        "must be given",
        "What a trial runs. A string is split into words as a shell splits them, and no shell runs it. "
        "`{name}` is replaced by the parameter, which is then not appended; so are `{output}`, "
        "`{checkpoint}`, `{trial}` and `{sweep}`.",
    ),
    Key(
        "shell",
        "`true` or `false`",
        "`false`",
        "The command is one string for `/bin/sh`, with pipes and redirections.",
        switch,
    ),
    Key(
        "tasks",
        "a mapping from name to a command or to keys",
        "one task, `main`",
        "Several named commands. The first is the default; `--task` picks another. "
        "A task may set any key of this table (but `tasks`) for itself, in place of the project's.",
    ),
    Key(
        "parameters",
        "a file's name or a mapping",
        "`parameters.yml`, where it exists",
        "The parameters and their values; see [parameters](parameters.md). Without any, one trial runs.",
    ),
    Key(
        "flags",
        "`equals`, `space` or `bare`",
        "`equals`",
        "How a parameter is written: `--lr=0.1`, `--lr 0.1` or `lr=0.1`.",
        choice("equals", "space", "bare"),
    ),
    Key(
        "booleans",
        "`flag`, `value` or `negate`",
        "`flag`",
        "How `true` and `false` are written: `--amp` and nothing, `--amp=true` and `--amp=false`, "
        "or `--amp` and `--no-amp`.",
        choice("flag", "value", "negate"),
    ),
    Key(
        "zip",
        "a list of lists of names",
        "none",
        "Parameters that vary together, first with first, second with second: `[[lr, warmup]]`.",
    ),
    Key(
        "exclude",
        "a list of mappings",
        "none",
        "Combinations that are left out: `[{opt: sgd, lr: 0.1}]`.",
    ),
    Key(
        "include",
        "a list of mappings",
        "none",
        "Combinations that are added; each names every parameter that has several values.",
    ),
    Key(
        "when",
        "a mapping from name to conditions",
        "none",
        "Parameters that are there only where others have a value: `{momentum: {opt: sgd}}`.",
    ),
    Key("repeats", "a number from 1 up", "`1`", "How many times each combination runs."),
    Key(
        "seed",
        "a name",
        "none",
        "The parameter that gets the repeat's number, from 1 up.",
        word,
    ),
    Key(
        "metrics",
        "a list of names, or a mapping from name to a regular expression",
        "none",
        "Numbers to read from the output, written `name: number` or `name=number`, "
        "or as your own pattern finds them: one group around the number, and a group `step` if you like. "
        "What a trial reports through `sweepfw.report` needs no mention.",
        settings.metrics,
    ),
    Key(
        "objective",
        "a mapping",
        "none",
        "What makes one trial better than another.",
        settings.objective,
    ),
    Key("objective.metric", "a metric's name", "must be given", "The metric to compare by."),
    Key("objective.goal", "`minimize` or `maximize`", "`minimize`", "Which of two values is better."),
    Key(
        "objective.at",
        "`last` or `best`",
        "`last`",
        "Which of a trial's reports counts.",
    ),
    Key(
        "outputs",
        "a list of patterns",
        "none",
        "Files of the working directory to keep, such as `ckpt/**`, beside those in `$SWEEPFW_OUTPUT`.",
        settings.outputs,
    ),
    Key(
        "needs", "a mapping", "one CPU; one GPU where there are any", "What one trial takes.", settings.needs
    ),
    Key("needs.gpus", "a number from 0 up", "1 where there are any", "GPUs for each trial; 0 hides them."),
    Key("needs.cpus", "a number above 0", "`1`", "CPUs for each trial."),
    Key("needs.memory", "a size", "not counted", "Memory of each trial."),
    Key("needs.vram", "a size", "any", "Memory that the GPU must have."),
    Key("needs.paths", "a list of absolute paths", "none", "Paths that must exist on the machine."),
    Key("needs.hosts", "a list of names", "any", "Hosts that may run the trials."),
    Key("needs.labels", "a list of names", "any", "Labels that a host must carry."),
    Key(
        "environment",
        "`inherit` or a mapping",
        "`inherit`",
        "The Python that `python` in the command means. `inherit`: the active virtual or conda "
        "environment's, else that on the `PATH`.",
        settings.environment,
    ),
    Key(
        "environment.requirements",
        "a file of the project",
        "none",
        "A virtual environment is made from this file, once for each content of it.",
    ),
    Key("environment.python", "a path", "none", "This interpreter; a relative path begins at the project."),
    Key(
        "variables",
        "a mapping from name to text",
        "none",
        "Environment variables of every trial.",
        settings.variables,
    ),
    Key(
        "secrets",
        "a mapping from name to `env`, `file`, `{env: VARIABLE}` or `{file: PATH}`",
        "none",
        "[Secrets](secrets.md) that every trial gets: as a variable of the same or another name, or as a "
        "file in `$SWEEPFW_SECRETS`. Where none is stored under the name, PATH is read.",
        settings.secrets,
    ),
    Key(
        "timeout",
        "a duration or `null`",
        "none",
        "A trial that runs longer is ended and has failed: `timeout`.",
        optional(duration),
    ),
    Key(
        "grace",
        "a duration",
        "`10`",
        "The time between SIGTERM and SIGKILL when a trial is ended.",
        duration_or_zero,
    ),
    Key(
        "retries",
        "a number, or a mapping from reason to number",
        "`0`",
        "How often a failed trial runs again: `2` for any reason, or by reason: "
        "`{exit 3: 2, timeout: 1, any: 0}`.",
        settings.retries,
    ),
    Key(
        "on_lost",
        "`retry` or `hold`",
        "`retry`",
        "What becomes of a trial whose host fell silent on a cluster: it runs elsewhere, or it is held until "
        "you queue it again, so that no two copies of it ever run at once.",
        choice("retry", "hold"),
    ),
    Key(
        "checkpoint_every",
        "a duration of 1 second or more",
        "`10m`",
        "How often what a running trial saved in `$SWEEPFW_CHECKPOINT` is copied to the cluster's head.",
        settings.checkpoint_every,
    ),
    Key(
        "max_failures",
        "a number; 0 or `null` for never",
        "`5`",
        "So many failures in a row, with no success yet, pause the sweep.",
        settings.max_failures,
    ),
    Key(
        "workdir",
        "`copy` or `shared`",
        "`copy`",
        "Each trial runs in its own copy of the project, or all in one that they must not change.",
        choice("copy", "shared"),
    ),
    Key(
        "log_limit",
        "a size",
        "`100MB`",
        "Of a longer output the first and last half are kept.",
        size,
    ),
    Key(
        "output_limit",
        "a size or `null`",
        "none",
        "A trial whose output files grow beyond is ended and has failed: `output too large`.",
        optional(size),
    ),
    Key(
        "snapshot_limit",
        "a size",
        "`500MB`",
        "A project that is larger is refused before it is read.",
        size,
    ),
)

NAMES: tuple[str, ...] = tuple(key.name for key in KEYS if "." not in key.name)
READERS: dict[str, Callable[[Node], Any]] = {key.name: key.read for key in KEYS if key.read is not None}
TAKES_NULL = frozenset({"timeout", "output_limit", "max_failures"})  # to all others null says: the default
SPACE: tuple[str, ...] = (
    "zip",
    "exclude",
    "include",
    "when",
    "repeats",
    "seed",
)  # core.space gives them sense


def reference() -> str:
    """The table of docs/project.md. To write it anew: python -m sweepfw.config.schema"""
    rows = [f"| `{key.name}` | {key.takes} | {key.default} | {key.says} |" for key in KEYS]
    return "\n".join(["| key | takes | default | what it says |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(reference())
