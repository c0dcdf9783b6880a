"""What must hold after any faults: pure functions on what witnesses, ledger and disk say.

`judge` compares three accounts that know nothing of one another: the witnesses' (`witness.Life`), the
ledger's (what `show --json` prints) and the files that were kept. Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ledger_model
from witness import ENDS, Life

Key = tuple[str, int, int]  # sweep, trial, attempt
PATIENCE = 60.0  # seconds that a keeper may stand still; a daemon that nobody kills lives longer
WHY_AGAIN = frozenset({"interrupted", "lost", "stale"})  # what made a healthy trial run again


class Kept(NamedTuple):
    """What lies on disk of an attempt: SHA-256 of its log and output files, and its outcome.json.

    `log` None: it is not there. `files` None: nobody brought them home.
    """

    log: str | None = None
    files: Mapping[str, str] | None = None
    outcome: Mapping[str, Any] | None = None


class Struck(NamedTuple):
    """Whom a fault may have cost an attempt: those that lived within `since` to `until`, on this host or on
    any, of this trial (sweep, number) or of any, of this sweep or of any."""

    kind: str
    since: float
    until: float
    host: str | None = None
    trial: tuple[str, int] | None = None
    sweep: str | None = None


class Sample(NamedTuple):
    """What `ls`, `show` or `status` said of a sweep while it ran."""

    at: float
    sweep: str
    state: str
    counts: Mapping[str, int]


class Breach(NamedTuple):
    invariant: str
    what: str
    sweep: str = ""
    trial: int | None = None

    def __str__(self) -> str:
        where = self.sweep if self.trial is None else f"{self.sweep}/{self.trial}"
        return f"{self.invariant}: {where + ': ' if where else ''}{self.what}"


@dataclass(frozen=True)
class Story:
    """What the faults allow beyond the plain rules.

    `struck`: whom the faults may have cost an attempt. `leases`: an attempt that the ledger calls lost or
    stale may overlap with its successor. `wall`: what to subtract from the ledger's times to get the
    monotonic clock's; None where clocks jump. `reopened`: trials that somebody retried or reopened.
    `cancelled`: trials that somebody stopped. `may_fail`: trials that faults may have let fail for good.
    `dealt`: the cases of each project, of which every sweep of it has one trial each; `extend` adds others.
    """

    struck: Sequence[Struck] = ()
    samples: Sequence[Sample] = ()
    leases: bool = False
    wall: float | None = None
    reopened: Collection[tuple[str, int]] = frozenset()
    cancelled: Collection[tuple[str, int]] = frozenset()
    may_fail: Collection[tuple[str, int]] = frozenset()
    patience: float = PATIENCE
    dealt: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass
class Trial:
    """One trial with all that is known of it."""

    sweep: str
    number: int
    told: Mapping[str, Any]
    kind: str
    lives: list[Life] = field(default_factory=list)
    kept: dict[int, Kept] = field(default_factory=dict)

    @property
    def id(self) -> tuple[str, int]:
        return self.sweep, self.number

    @property
    def attempts(self) -> Sequence[Mapping[str, Any]]:
        return self.told["attempts"]  # type: ignore[no-any-return]  # JSON

    def attempt(self, number: int) -> Mapping[str, Any] | None:
        return self.attempts[number - 1] if 0 < number <= len(self.attempts) else None


def judge(
    lives: Sequence[Life],
    sweeps: Iterable[Mapping[str, Any]],
    files: Mapping[Key, Kept],
    leftovers: Sequence[str] = (),
    story: Story | None = None,
) -> list[Breach]:
    """Every breach of the promises; none is the verdict that one hopes for.

    `sweeps` are ended ones as `show --json` tells of them; the trials' one parameter is a `witness.case`.
    """
    story = story or Story()
    sweeps = list(sweeps)
    trials = _gather(lives, sweeps, files)
    known = {trial.id for trial in trials}
    found = [Breach("nothing left", what) for what in leftovers]
    for sweep in sweeps:
        found += [Breach("ledger", each.what, each.sweep, each.trial) for each in ledger_model.check(sweep)]
        found += [Breach("lost", what, sweep["sweep"]) for what in _whole(sweep, story.dealt)]
    for life in lives:
        if (life.sweep, life.trial) not in known:
            found.append(Breach("lost", "a witness of it, and the ledger has none", life.sweep, life.trial))
    for trial in trials:
        for invariant, rule in RULES.items():
            found += [Breach(invariant, what, trial.sweep, trial.number) for what in rule(trial, story)]
    found += _claims(story.samples, trials, story)
    return found


def _whole(sweep: Mapping[str, Any], dealt: Mapping[str, Collection[str]]) -> Iterator[str]:
    """A sweep has all trials that it was submitted with, once."""
    there = [trial["params"].get("case") for trial in sweep["trials"]]
    if missing := set(dealt.get(sweep["sweep"].rpartition("-")[0], ())) - set(there):
        yield f"{len(missing)} trials that were submitted are not there, as {min(missing)!r}"
    if len(set(there)) < len(there):
        yield f"{len(there) - len(set(there))} trials are there twice"


def _gather(
    lives: Sequence[Life], sweeps: Sequence[Mapping[str, Any]], files: Mapping[Key, Kept]
) -> list[Trial]:
    by_trial: dict[tuple[str, int], list[Life]] = defaultdict(list)
    for life in lives:
        by_trial[life.sweep, life.trial].append(life)
    kept: dict[tuple[str, int], dict[int, Kept]] = defaultdict(dict)
    for (sweep, number, attempt), each in files.items():
        kept[sweep, number][attempt] = each
    return [
        Trial(
            sweep["sweep"],
            told["trial"],
            told,
            str(next(iter(told["params"].values()), "calm")).split(" ")[0],
            by_trial[sweep["sweep"], told["trial"]],
            kept[sweep["sweep"], told["trial"]],
        )
        for sweep in sweeps
        for told in sweep["trials"]
    ]


# -- the rules: each tells what is wrong with one trial ------------------------------------------------


def _ends(trial: Trial, story: Story) -> Iterator[str]:
    """Every trial reaches one end, and the one that its kind has where nothing struck it."""
    state = trial.told["state"]
    allowed = {ENDS.get(trial.kind, "succeeded")}
    if trial.id in story.cancelled:
        allowed.add("cancelled")
    if trial.id in story.may_fail:
        allowed.add("failed")
    if state not in allowed:
        reason = trial.told.get("reason", "")
        yield f"a {trial.kind} trial ended as {state} ({reason}), not {' or '.join(sorted(allowed))}"


def _accepted_once(trial: Trial, story: Story) -> Iterator[str]:
    """Exactly one accepted attempt for a success, none without; it is the newest; its witness says 0."""
    accepted = ledger_model.accepted(trial.told)
    wanted = int(trial.told["state"] == "succeeded")
    if len(accepted) != wanted:
        yield f"is {trial.told['state']} with {len(accepted)} accepted attempts"
    for one in accepted:
        number = one["attempt"]
        if number != len(trial.attempts):
            yield f"attempt {number} was accepted, and is not the newest of {len(trial.attempts)}"
        if one["state"] != "succeeded":
            yield f"attempt {number} was accepted, and is {one['state']}"
        ends = [life for life in trial.lives if life.attempt == number]
        if len(ends) != 1:
            yield f"attempt {number} was accepted, and {len(ends)} witnesses tell of its start"
        for life in ends:
            if life.exit != 0:
                yield f"attempt {number} was accepted, and its witness tells exit {life.exit}"


def _accepted_bytes(trial: Trial, story: Story) -> Iterator[str]:
    """What was accepted is that attempt's: its log, its metric, its files, byte for byte."""
    for one in ledger_model.accepted(trial.told):
        number = one["attempt"]
        for life in trial.lives:
            if life.attempt != number or life.exit != 0:
                continue
            kept = trial.kept.get(number)
            if kept is None or kept.log is None:
                yield f"attempt {number} was accepted, and its log is not there"
            elif kept.log != life.log:
                yield f"attempt {number}: the log is not what its trial printed"
            if kept is not None and kept.files is not None and dict(kept.files) != life.files:
                yield f"attempt {number}: files {sorted(kept.files)} are not what its trial wrote"
            proof = trial.told["metrics"].get("proof")
            if proof != life.proof and life.resumed_from < life.reached:
                yield f"attempt {number}: its metric is {proof}, its trial reported {life.proof}"


def _known_attempts(trial: Trial, story: Story) -> Iterator[str]:
    """Nothing runs that the ledger did not grant, and nothing twice on one grant."""
    for life in trial.lives:
        if trial.attempt(life.attempt) is None:
            yield f"attempt {life.attempt} ran, and the ledger never granted it"
    if not story.leases:
        for one in trial.attempts:
            if one["state"] == "stale":
                yield f"attempt {one['attempt']} is stale: two held its sweep at once"
    numbers = [life.attempt for life in trial.lives]
    for number in sorted(set(numbers)):
        if numbers.count(number) > 1:
            yield f"attempt {number} started {numbers.count(number)} times"


def _no_overlap(trial: Trial, story: Story) -> Iterator[str]:
    """Two live copies never overlap, unless the ledger tells of a lease that ran out."""
    lives = sorted(trial.lives, key=lambda life: life.started)
    for position, life in enumerate(lives):
        before = lives[:position]
        if story.leases and any(_lease_ran_out(trial, earlier) for earlier in before):
            continue
        for holder in life.overlaps:
            yield f"attempt {life.attempt} began beside {holder}"
        for earlier in before:
            until = max([earlier.ended or earlier.started, *earlier.beats])
            if until > life.started:
                late = f"{until - life.started:.1f} s before the last sign of attempt {earlier.attempt}"
                yield f"attempt {life.attempt} began {late}"


def _lease_ran_out(trial: Trial, life: Life) -> bool:
    attempt = trial.attempt(life.attempt)
    return attempt is not None and attempt["state"] in ("lost", "stale")


def _nothing_outlives(trial: Trial, story: Story) -> Iterator[str]:
    """What a trial left running is dead soon after its end."""
    for life in trial.lives:
        if life.ended is not None and life.beats and life.beats[-1] > life.ended + story.patience:
            late = f"{life.beats[-1] - life.ended:.1f} s after its end"
            yield f"attempt {life.attempt}: a daemon of it lived {late}"


def _outcomes_stand(trial: Trial, story: Story) -> Iterator[str]:
    """What was accepted, and what wrote its outcome, does not run again."""
    for number, kept in sorted(trial.kept.items()):
        attempt = trial.attempt(number)
        if kept.outcome is None or attempt is None or kept.outcome.get("ended_by") == "stop":
            continue
        if attempt["state"] == "stale":  # it came after another was granted
            continue
        good = kept.outcome.get("exit_code") == 0 and not any(
            kept.outcome.get(word) for word in ("error", "ended_by", "signal")
        )
        wanted = "succeeded" if good else "failed"
        if attempt["state"] != wanted:
            yield f"attempt {number} wrote that it {wanted}, and the ledger says {attempt['state']}"
        elif number < len(trial.attempts) and trial.id not in story.reopened:
            yield f"attempt {number} wrote that it {wanted}, and attempt {number + 1} was started"


def _only_the_struck_again(trial: Trial, story: Story) -> Iterator[str]:
    """A healthy trial is not restarted by faults elsewhere."""
    for attempt in trial.attempts:
        if attempt["state"] not in WHY_AGAIN or trial.kind == "poison":
            continue
        since, until, host = _span(trial, attempt, story)
        if since is None:
            continue
        if not any(_hits(struck, trial, since, until, host) for struck in story.struck):
            yield (
                f"attempt {attempt['attempt']} ({attempt['state']}: {attempt['reason']}) was ended, "
                "and no fault struck it"
            )


def _span(trial: Trial, attempt: Mapping[str, Any], story: Story) -> tuple[float | None, float, str | None]:
    """When the attempt lived at most, and where; by its witness, else by the ledger."""
    following = [life.started for life in trial.lives if life.attempt > attempt["attempt"]]
    for life in trial.lives:
        if life.attempt == attempt["attempt"]:
            until = min(following, default=float("inf"))  # an end counts from when the ledger hears of it
            if life.ended is not None and not story.leases:
                until = min(until, life.ended + story.patience)
            granted = attempt["started"] - (life.wall - life.started)  # from then on it can be struck
            since = max(min(granted, life.started), life.started - story.patience)
            return since - 1, until + 1, attempt["host"]
    if story.wall is None:
        return None, 0.0, None
    since = attempt["started"] - story.wall
    ended = attempt["ended"]
    return since - 1, (float("inf") if ended is None else ended - story.wall + 1), attempt["host"]


def _hits(struck: Struck, trial: Trial, since: float, until: float, host: str | None) -> bool:
    if struck.trial is not None and struck.trial != trial.id:
        return False
    if struck.sweep not in (None, trial.sweep):
        return False
    if struck.host is not None and host is not None and struck.host != host:
        return False
    return struck.since <= until and since <= struck.until


def _resumes(trial: Trial, story: Story) -> Iterator[str]:
    """A checkpoint is one that an earlier attempt saved."""
    furthest = 0
    for life in sorted(trial.lives, key=lambda life: life.attempt):
        if life.resumed_from and life.attempt == 1:
            yield f"attempt 1 found a checkpoint of step {life.resumed_from}"
        elif life.resumed_from < furthest and not story.leases:
            yield f"attempt {life.attempt} found step {life.resumed_from}; step {furthest} was saved"
        furthest = max(furthest, life.reached)


RULES = {
    "one end": _ends,
    "accepted once": _accepted_once,
    "accepted bytes": _accepted_bytes,
    "granted": _known_attempts,
    "no overlap": _no_overlap,
    "what dies is dead": _nothing_outlives,
    "outcomes stand": _outcomes_stand,
    "healthy ones go on": _only_the_struck_again,
    "checkpoints": _resumes,
}


# -- what was said while it ran ------------------------------------------------------------------------


def _claims(samples: Sequence[Sample], trials: Sequence[Trial], story: Story) -> Iterator[Breach]:
    """`ls` and `status` never claim more than happened, and a success stays one."""
    good: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        ends = [life.ended for life in trial.lives if life.exit == 0 and life.ended is not None]
        if ends:
            good[trial.sweep].append(min(ends))
    most: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for sample in samples:
        claimed = sample.counts.get("succeeded", 0)
        happened = sum(end <= sample.at for end in good[sample.sweep])
        if claimed > happened:
            yield Breach("claims", f"{claimed} successes were claimed, {happened} had happened", sample.sweep)
        if claimed < most[sample.sweep]:
            yield Breach("claims", f"{most[sample.sweep]} successes became {claimed}", sample.sweep)
        most[sample.sweep] = max(most[sample.sweep], claimed)
        count = sum(sample.counts.values())
        if count < total[sample.sweep]:
            yield Breach("claims", f"{total[sample.sweep]} trials became {count}", sample.sweep)
        total[sample.sweep] = max(total[sample.sweep], count)
