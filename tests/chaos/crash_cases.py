"""Where each point of a crash is struck, and what a person does after it. The table of points is
`sweepfw.crash.POINTS`; `test_crash_points.py` sees to it that none is left out."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """`verb` is struck at the N-th pass of `point`, after `before` (`crash POINT VERB`: that is struck, too);
    `after` is what finishes it."""

    point: str
    verb: str = "run p -q -j 2"
    after: tuple[str, ...] = ("resume p-1 -q",)
    before: tuple[str, ...] = ()
    passes: int = 1

    @property
    def points(self) -> set[str]:
        """All at which something dies."""
        return {self.point, *(words.split()[1] for words in self.before if words.startswith("crash "))}

    @property
    def id(self) -> str:
        return f"{self.point}:{self.passes}"


AGAIN = ("run p -q",)
HIDDEN = "run hidden -q -j 2"

# One machine: the command line, its guardian and keepers.
HERE = (
    Case("snapshot.object", after=AGAIN),
    Case("snapshot.contents", after=AGAIN),
    Case("snapshot.manifest", after=AGAIN),
    Case("snapshot.frozen", after=AGAIN),
    Case("submit.rows", after=AGAIN),
    Case("submit.committed"),
    Case("run.submitted"),
    Case("run.held"),
    Case("run.opened"),
    Case(  # one after the other: to build an environment takes seconds
        "environment.agreed",
        verb="resume code-1 -q",
        after=("resume code-1 -q",),
        before=("crash environment.built run code -q", "crash environment.ready resume code-1 -q"),
    ),
    Case("record.annotated"),
    Case("record.yml"),
    Case("claim.rows", passes=2),
    Case("claim.committed", passes=2),
    Case("attempt.granted"),
    Case("attempt.ordered", passes=2),
    Case("attempt.ordered", verb=HIDDEN, after=("resume hidden-1 -q",)),
    Case("attempt.heard", passes=2),
    Case("finish.rows", passes=2),
    Case("finish.committed", passes=2),
    Case("close.committed"),
    Case("session.left"),
    Case("session.closed"),
    Case("keeper.folder"),
    Case("keeper.filled"),
    Case("keeper.secrets", verb=HIDDEN, after=("resume hidden-1 -q",)),
    Case("keeper.started", verb=HIDDEN, after=("resume hidden-1 -q",)),
    Case("keeper.ended"),
    Case("keeper.gathered"),
    Case("keeper.draft"),
    Case("keeper.outcome"),
    Case("keeper.told"),
    Case("recover.told", verb="resume p-1 -q", before=("crash attempt.heard run p -q",)),
    Case("recover.requeued", verb="resume p-1 -q", before=("crash attempt.ordered run p -q",)),
    Case("pause.committed", verb="pause p-1", before=("run p -q --only 1",)),
    Case(
        "stop.committed",
        verb="stop p-1",
        before=("run p -q --only 1",),
        after=("stop p-1", "resume p-1 --cancelled -q"),
    ),
    Case("reopen.committed", verb="retry p-1 -q", before=("fail run p -q",)),
    Case(
        "retry.frozen",
        verb="retry p-1 -q --current-code",
        before=("fail run p -q",),
        after=("retry p-1 -q --current-code",),
    ),
    Case("extend.committed", verb="extend p-1 -q --set i=9", before=("run p -q",)),
    Case("remove.aside", verb="rm p-1", before=("run p -q",), after=("rm p-1", "gc", *AGAIN)),
    Case("remove.committed", verb="rm p-1", before=("run p -q",), after=("gc", *AGAIN)),
    Case("gc.unlinked", verb="gc", before=("crash snapshot.contents run p -q",), after=("gc", *AGAIN)),
)

# The head, and what reaches each point: the names of works in `tests/engine/crash_cell.py`. What is killed is
# started again at once with the next point set, so that many are struck while one sweep goes on.
HEAD = (
    Case("snapshot.object", "little"),
    Case("snapshot.manifest", "little"),
    Case("submit.rows", "little"),
    Case("submit.committed", "little"),
    Case("head.noted", "little"),
    Case("head.published", "little"),
    Case("claim.rows", "little"),
    Case("claim.committed", "little"),
    Case("head.log", "little"),
    Case("head.keep", "little"),
    Case("head.concluded", "little"),
    Case("finish.rows", "little"),
    Case("finish.committed", "little"),
    Case("close.committed", "little"),
    Case("head.kept", "much"),
    Case("head.checkpoint", "saving"),
    Case("head.checkpointed", "saving"),
    Case("pause.committed", "paused"),
    Case("stop.committed", "stopped"),
    Case("reopen.committed", "stopped"),
    Case("extend.committed", "extended"),
    Case("head.registered", "announced"),
    Case("head.roster", "announced"),
    Case("head.lock", "agreed"),
    Case("head.secret", "told"),
    Case("remove.aside", "forgotten"),
    Case("remove.committed", "forgotten"),
    Case("head.forgotten", "forgotten"),
    Case("head.reaping", "expired"),
    Case("expire.committed", "expired"),
)

# The command line beside a head, that goes on without it.
DISPATCH = (Case("run.secrets"), Case("run.submitted"), Case("record.annotated"), Case("record.yml"))

# A worker. `before`: where it dies first, so that its successor comes by.
WORKER = (
    Case("worker.claimed", "little"),
    Case("snapshot.object", "little"),
    Case("worker.contents", "little"),
    Case("snapshot.manifest", "little"),
    Case("worker.prepared", "little"),
    Case("attempt.granted", "little"),
    Case("attempt.ordered", "little"),
    Case("keeper.outcome", "little"),
    Case("attempt.heard", "little"),
    Case("worker.inherited", "little", before=("attempt.heard",)),
    Case("worker.saved", "little"),
    Case("worker.concluded", "little"),
    Case("worker.shipped", "much"),
    Case("worker.stored", "much"),
    Case("worker.part", "saving"),
    Case("worker.accepted", "saving"),
    Case("worker.checkpoint", "moved"),
    Case("worker.forgetting", "forgotten"),
)

# `infra up`, each on its own: nothing was done on hosts yet.
DRAFTS = (Case("up.copied"), Case("up.kept"))

# `infra up`, one after the other: each goes on where the one before died. Then `pull`, `infra up` with a
# host less, and `infra down` of that deployment; `after`: it is done again at once.
UP = (
    Case("private.draft", passes=2),
    Case("up.created"),
    Case("up.configured"),
    Case("up.step"),
    Case("up.created-container"),
    Case("up.filled-container"),
    Case("up.done"),
    Case("up.complete"),
)
LATER = (
    Case("pull.marked", "pull p-1", after=()),
    Case("down.received", "pull p-1"),
    Case("up.taken-off", "infra up --yes"),
    Case("down.drained", "infra down --yes --outputs none", after=()),
)

# `infra down` of a deployment that stands still, in this order.
DOWN = (
    Case("down.roles"),
    Case("down.roles", passes=2),
    Case("down.stopped"),
    Case("adopt.rows"),
    Case("adopt.committed"),
    Case("down.adopted"),
    Case("down.memo"),
    Case("down.received", passes=4),
    Case("down.recorded"),
    Case("snapshot.object"),
    Case("down.snapshot"),
    Case("snapshot.manifest"),
    Case("down.unpacked"),
    Case("down.placed"),
    Case("down.removal"),
    Case("down.removal", passes=4),
    Case("down.removed"),
    Case("down.forgotten"),
)

ALL = (*HERE, *HEAD, *DISPATCH, *WORKER, *DRAFTS, *UP, *LATER, *DOWN)
