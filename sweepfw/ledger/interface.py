"""What every ledger promises. Trial code, engine, command line and tests see only this.

Every method is safe to call from several threads, and every change is one transaction: it happened as a
whole or not at all. Unknown sweeps and trials raise SweepError with the nearest known name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from sweepfw.core.model import (
    Attempt,
    Denial,
    Draft,
    Grant,
    Objective,
    Outcome,
    Receipt,
    Spec,
    Sweep,
    Trial,
    TrialState,
    Worker,
)


class Ledger(Protocol):
    # -- submitting ------------------------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """SweepError where `submit` would refuse the name: so that nothing is frozen in vain."""
        ...

    def submit(
        self,
        spec: Spec,
        snapshot: str,
        drafts: Iterable[Draft],
        *,
        name: str | None = None,
        note: str = "",
        provenance: Mapping[str, Any] | None = None,
        only: Collection[int] | None = None,
        uid: str | None = None,
    ) -> Sweep:
        """Store a sweep and all its trials in one durable transaction; state `queued`.

        With `only`, the trials of other numbers are `held`. `uid`: a new one that the caller has drawn, where
        something of the sweep had to be there before it (see part.fresh_token); ValueError for any other.

        Without a name it is `<project>-<n>` with the lowest n never used. A given name that was ever used
        raises SweepError.
        """
        ...

    def annotate(self, uid: str, provenance: Mapping[str, Any]) -> None:
        """Replace what is recorded of where the sweep came from."""
        ...

    def extend(self, uid: str, spec: Spec, drafts: Iterable[Draft]) -> int:
        """Add the drafts that the sweep lacks (by params and repeat), numbered on; how many were added.

        Meaning counts: 0.1 and 0.10 are the same. The sweep's spec becomes `spec`; a sweep that was `done`
        is `queued` again.
        """
        ...

    # -- the protocol of those who run trials ----------------------------------------------------------

    def register(self, worker: Worker) -> None:
        """Make the worker known. A new boot id ends the attempts of its host's predecessor as lost; their
        trials go on as `expire` says.

        A boot that another has replaced is never current again: SweepError, so that a worker that was frozen
        ends instead of ending its successor's attempts.

        For a deployment, where one worker runs per host. Runs on one machine don't register: several may
        share it, and each clears up its own sweep with `requeue` under its lock.
        """
        ...

    def open(self, uid: str) -> Sweep:
        """A run begins to work on the sweep: `queued`, `paused` or `stopped` becomes `running`."""
        ...

    def runnable(self, uid: str, *, after: int = 0, limit: int = 100) -> list[int]:
        """Numbers of queued trials above `after`, ascending; none while the sweep is paused or stopped."""
        ...

    def claim(self, uid: str, trial: int, worker: Worker, slot: str, claim_id: str) -> Grant | Denial:
        """Queued -> running, compare-and-set: at most one grant, with a new attempt and a new token.

        The same claim_id gets the same grant while that attempt is current. Committed before it returns.
        Ends the trial's attempt before as `lost`, where that had expired. A sweep that was `queued` is
        `running` from its first grant on: a head needs no `open`, which would undo a pause that came between.
        """
        ...

    def granted(self, token: str) -> Grant | None:
        """The grant that this token stands for, while it is its trial's current one and has no end."""
        ...

    def renew(self, token: str) -> Literal["go on", "stop", "stop now"]:
        """Whether the attempt may go on. `stop`: it was cancelled, or its token is not the current one.

        Revives an attempt whose lease ran out, as long as no other attempt of its trial was granted: the
        trial is `running` again, and the loss is not counted.
        """
        ...

    def expire(self, token: str) -> TrialState:
        """The attempt's lease ran out: nobody knows whether it still runs. Its trial's state after that.

        The trial is queued again (a loss is counted), or `held` where its spec says `on_lost: hold`, or
        `failed: host lost` where it ran alone after `TRIES_WHEN_LOST` losses; cancelled if a stop was asked.
        Where it is queued or held the attempt stays open: it may be revived by `renew`, or its `finish` be
        recorded, until another attempt of the trial is granted, which ends it as `lost`.
        Does nothing for an attempt that is not its trial's current, running one.
        """
        ...

    def append_log(self, token: str, offset: int, data: bytes) -> int:
        """Store output bytes from offset on; the same bytes twice are stored once. The new end of the log."""
        ...

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        """Record the attempt's end, once: the first outcome for a token stands, and asking again repeats
        the first answer. A token that is not its trial's current one (its attempt was ended by `requeue`
        or `register`) is kept as `stale` and changes nothing else. A trial that succeeded never changes
        again.

        Visible to every reader when it returns; durable within 50 ms, or at once with `flush`.
        """
        ...

    def flush(self) -> None:
        """Everything that returned before is on disk."""
        ...

    def close(self, uid: str) -> bool:
        """`done` if no trial is queued, running or held. False, and nothing changes, if one is queued or
        running (it was extended).

        True where all that is left is held, and so waits for a person: `running` becomes `queued` then. A
        sweep that is `stopped` stays so, and True is returned.
        """
        ...

    def leave(self, uid: str) -> None:
        """The run ends with trials left: `running` becomes `queued`; `paused` and `stopped` stay."""
        ...

    def requeue(self, uid: str, *, state: Literal["interrupted", "lost"], why: str) -> list[int]:
        """End every running attempt of the sweep with `state` and queue its trials again; their numbers.
        Expired attempts end too; their trials stay queued or held.

        For the holder of the sweep's lock, who knows that nothing of them runs any more. Trials whose stop
        was asked for are cancelled instead.
        """
        ...

    # -- what people order -----------------------------------------------------------------------------

    def pause(self, uid: str, reason: str = "") -> None:
        """Nothing new is granted; what runs goes on. State `paused` (also when nothing runs it)."""
        ...

    def stop(self, uid: str, trials: Collection[int] | None = None, *, now: bool = False) -> int:
        """Cancel queued and held trials and ask running ones to stop (`renew` tells them; `now`: without
        grace). An expired attempt of what is cancelled ends as `lost`.

        The whole sweep (None) becomes `stopped`. How many trials were touched.
        """
        ...

    def hold(self, uid: str, but: Collection[int]) -> int:
        """Queued trials of other numbers than these are `held` until `reopen`; how many."""
        ...

    def reopen(
        self,
        uid: str,
        states: Collection[TrialState],
        trials: Collection[int] | None = None,
        *,
        snapshot: str | None = None,
    ) -> list[int]:
        """Queue trials in these states again (never `succeeded`, which raises SweepError); their numbers.

        Their next attempts run `snapshot` if one is given. The attempts before don't count for retries.
        """
        ...

    def remove(self, uid: str) -> None:
        """Forget the sweep and all that belongs to it. Its name stays used."""
        ...

    # -- asking ----------------------------------------------------------------------------------------

    def changed(self) -> int:
        """A number that differs when another process changed the ledger; own changes need not count. Costs
        microseconds."""
        ...

    def sweeps(self) -> list[Sweep]:
        """All sweeps with their counts, oldest first."""
        ...

    def sweep(self, name: str) -> Sweep:
        """By name or uid."""
        ...

    def trials(
        self,
        uid: str,
        *,
        states: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        after: int = 0,
    ) -> Iterator[Trial]:
        """Trials in the order of their numbers."""
        ...

    def contenders(self, uid: str, objective: Objective) -> Iterator[Trial]:
        """Some trials, mostly few, in the order of their numbers: ranking them gives the same best as ranking
        all of the sweep's. For lists of sweeps, where reading every trial takes long."""
        ...

    def attempts(self, uid: str, trial: int | None = None, *, after: int = 0) -> Iterator[Attempt]:
        """Attempts in the order of trial and number; of all trials those above `after`."""
        ...

    def running(self, uid: str) -> list[Attempt]:
        """The attempts that run, as far as we know: those without an end, without the expired ones."""
        ...

    def host_of(self, token: str) -> str | None:
        """The host that the token's attempt was granted to, also when that has ended. None: nobody's."""
        ...

    def running_on(self, worker: Worker) -> list[tuple[str, Attempt]]:
        """The attempts without an end that were granted to this worker, with their sweeps' uids; expired ones
        too. A worker with the boot "" stands for every boot of its host."""
        ...

    def ended_since(self, uid: str, cursor: int) -> tuple[int, list[Attempt]]:
        """Attempts that ended after `cursor` (0: from the first), in the order of their ends; the new one."""
        ...

    def last_end(self, uid: str) -> int:
        """The cursor of what ended last, for `ended_since`; 0 where nothing has ended."""
        ...

    def snapshots(self, uid: str | None = None) -> set[str]:
        """Ids of all snapshots that some sweep, attempt or reopened trial names; or of those that this sweep
        and its trials' last attempts ran, and their next will."""
        ...

    def disconnect(self) -> None:
        """Flush and let go of the ledger; it can't be used afterwards. Again does nothing."""
        ...
