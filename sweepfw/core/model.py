"""What there is: sweeps, trials, attempts, and what passes between the ledger and those who run trials.

Named tuples where many are made or a run waits for the class to be: a frozen dataclass takes eight times as
long to define, and several times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from sweepfw.core.values import Value

if TYPE_CHECKING:
    from sweepfw.core.secrets import Need

SweepState: TypeAlias = Literal["queued", "running", "paused", "stopped", "done"]
TrialState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "held"]
AttemptState: TypeAlias = Literal[
    "running", "succeeded", "failed", "cancelled", "interrupted", "lost", "stale"
]
NOTHING: Mapping[str, Any] = {}  # one for all; nobody changes a Mapping
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})  # a trial's three ends


@dataclass(frozen=True, slots=True)
class Needs:
    """What one trial takes from a host. `gpus` None: one where there are any. Sizes in bytes."""

    gpus: int | None = None
    cpus: float = 1
    memory: int | None = None
    vram: int | None = None
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Objective:
    """What makes one trial better than another, and at which of its reports."""

    metric: str
    goal: Literal["minimize", "maximize"] = "minimize"
    at: Literal["best", "last"] = "last"


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python that trials run with. `value` is the requirements file or the interpreter's path."""

    kind: Literal["inherit", "requirements", "python"] = "inherit"
    value: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """A task's settings as frozen in a sweep. Durations in seconds, sizes in bytes; None: no limit.

    `space` is the parameters and their rules as the user wrote them, JSON-able; `config` and `core.space`
    turn it into a Space, so that `extend` can do it again.
    """

    project: str
    task: str
    command: tuple[str, ...]
    shell: bool = False  # command is then one string: command[0]
    flags: Literal["equals", "space", "bare"] = "equals"
    booleans: Literal["flag", "value", "negate"] = "flag"
    metrics: tuple[tuple[str, str | None], ...] = ()  # name, and the user's own pattern if any
    objective: Objective | None = None
    outputs: tuple[str, ...] = ()
    needs: Needs = Needs()
    environment: Environment = Environment()
    variables: tuple[tuple[str, str], ...] = ()
    secrets: tuple[Need, ...] = ()  # which, never what
    timeout: float | None = None
    grace: float = 10
    retries: tuple[tuple[str, int], ...] = ()  # reason ("*": any) -> how many times
    max_failures: int | None = 5
    workdir: Literal["copy", "shared"] = "copy"
    log_limit: int = 100_000_000
    output_limit: int | None = None
    snapshot_limit: int = 500_000_000
    on_lost: Literal["retry", "hold"] = (
        "retry"  # when a host fell silent: try elsewhere, or wait for a person
    )
    checkpoint_every: float = 600  # how often a running trial's checkpoint is copied to the head
    seed: str | None = None
    at_once: int | None = None  # on a deployment: so many of its trials run together, however many slots
    fail_fast: bool = False  # on a deployment: the first failed trial pauses the sweep
    space: Mapping[str, Any] = field(default_factory=dict)


class Draft(NamedTuple):
    """A trial that is not in the ledger yet: one combination, one repeat."""

    params: Mapping[str, Value]
    repeat: int = 1


class Sweep(NamedTuple):
    """One run of a task. `uid` never changes; `name` is never used again. Times are Unix seconds, UTC."""

    uid: str
    name: str
    spec: Spec
    snapshot: str  # the snapshot's id
    state: SweepState
    created: float
    note: str = ""
    reason: str = ""  # why it is paused or stopped
    ended: float | None = None
    provenance: Mapping[str, Any] = NOTHING
    counts: Mapping[str, int] = NOTHING  # trial state -> how many; zeros left out

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class Attempt(NamedTuple):
    """One execution of a trial on a slot."""

    trial: int
    number: int
    state: AttemptState
    token: str
    host: str
    slot: str
    snapshot: str
    started: float
    ended: float | None = None
    reason: str = ""
    exit_code: int | None = None
    accepted: bool = False
    metrics: Mapping[str, MetricSummary] = NOTHING
    outcome: Mapping[str, Any] = NOTHING  # all else that the keeper told


class Trial(NamedTuple):
    """One combination of parameter values, times one repeat. Numbered from 1 in its sweep."""

    number: int
    state: TrialState
    params: Mapping[str, Value]
    repeat: int = 1
    reason: str = ""
    attempts: int = 0  # how many there were
    metrics: Mapping[str, MetricSummary] = NOTHING  # of the last attempt that has some
    started: float | None = None  # of the last attempt
    ended: float | None = None
    snapshot: str = ""  # of the last attempt; "" before the first
    next_snapshot: str = ""  # what the next attempt runs, if not the sweep's snapshot


class MetricSummary(NamedTuple):
    """All reports of one metric in one attempt, folded: enough for every `objective.at`. NaN and infinity
    never count as lowest or highest, unless there is nothing else; steps are the user's own, None where a
    report had none."""

    last: float
    lowest: float
    highest: float
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody needs of it
    last_step: float | None = None
    lowest_step: float | None = None
    highest_step: float | None = None


class Grant(NamedTuple):
    """The ledger's leave to run one attempt of one trial. Only `token`'s holder may finish it."""

    sweep: str  # name
    uid: str
    trial: int
    attempt: int
    token: str
    params: Mapping[str, Value]
    repeat: int
    snapshot: str
    failures: Mapping[str, int] = NOTHING  # reason -> earlier failed attempts, since reopened
    losses: int = 0  # earlier attempts that were lost, since reopened


class Denial(NamedTuple):
    """No grant. `no`: never ask again for this trial now (it ended, runs, or was stopped). `later`: wait."""

    answer: Literal["no", "later"]
    why: str = ""


class Worker(NamedTuple):
    """Who runs trials: a host's name and a boot id, made at random at the process's start."""

    host: str
    boot: str


class Waiting(NamedTuple):
    """A sweep with trials that could be granted now: what a scheduler asks for again and again."""

    uid: str
    name: str
    created: float
    needs: Needs
    running: int  # how many of its trials run
    trials: tuple[tuple[int, int], ...]  # the first queued ones: number and losses, ascending
    at_once: int | None = None  # so many of them may run together


class Outcome(NamedTuple):
    """How an attempt ended, judged: the words that the ledger stores."""

    state: AttemptState  # succeeded, failed, cancelled, interrupted or lost
    reason: str = ""
    exit_code: int | None = None
    ended: float = 0.0
    metrics: Mapping[str, MetricSummary] = NOTHING
    details: Mapping[str, Any] = NOTHING
    again: bool = False  # the trial is queued again instead of ending: a retry, or it was interrupted


class Receipt(NamedTuple):
    """What the ledger made of a finish. `accepted`: this attempt is the trial's one recorded success."""

    recorded: bool  # False: the token was not the current one; the attempt is marked stale
    accepted: bool
    trial_state: TrialState
