"""What a ledger may say, by a model that shares no code with sweepfw.

It reads what `sweepfw show SWEEP --json` prints. Attempts of a trial are replayed in their order; what they
say must lead to the state that the trial has, and the counts must be those of the trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

# attempt state -> what its trial may be after it, where it was the last one. `queued` is no end.
LEADS_TO: Mapping[str, frozenset[str]] = {
    "running": frozenset({"running", "queued", "held"}),  # its lease may have run out
    "succeeded": frozenset({"succeeded"}),
    "failed": frozenset({"failed", "queued", "cancelled", "held"}),
    "cancelled": frozenset({"cancelled", "queued"}),
    "interrupted": frozenset({"queued", "cancelled", "held"}),
    "lost": frozenset({"queued", "held", "failed", "cancelled"}),
    "stale": frozenset({"queued", "held", "failed", "cancelled"}),
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Wrong(NamedTuple):
    sweep: str
    trial: int | None
    what: str


def check(sweep: Mapping[str, Any]) -> Iterator[Wrong]:
    """All that can't be so in one sweep, whether it has ended or not."""
    name, trials = sweep["sweep"], sweep["trials"]
    for trial in trials:
        for what in _trial(trial):
            yield Wrong(name, trial["trial"], what)
    if (numbers := [trial["trial"] for trial in trials]) != list(range(1, len(trials) + 1)):
        yield Wrong(name, None, f"trials are not numbered 1 to {len(trials)}: {numbers[:20]}")
    counted = Counter(trial["state"] for trial in trials)
    if (told := {state: n for state, n in sweep["counts"].items() if n}) != dict(counted):
        yield Wrong(name, None, f"counts {told}, but its trials are {dict(counted)}")
    if sweep["state"] == "done" and (left := set(counted) - ENDED):
        yield Wrong(name, None, f"is done, and has trials that are {', '.join(sorted(left))}")


def accepted(trial: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attempts that count as the trial's success."""
    return [one for one in trial["attempts"] if one.get("accepted", one["state"] == "succeeded")]


def _trial(trial: Mapping[str, Any]) -> Iterator[str]:
    attempts = trial["attempts"]
    if (numbers := [one["attempt"] for one in attempts]) != list(range(1, len(attempts) + 1)):
        yield f"attempts are not numbered 1 to {len(attempts)}: {numbers}"
    for one in attempts:
        if one["state"] not in LEADS_TO:
            yield f"attempt {one['attempt']} is {one['state']!r}"
        if (one["state"] == "succeeded") != bool(one.get("accepted", one["state"] == "succeeded")):
            yield f"attempt {one['attempt']} is {one['state']} and accepted: {one['accepted']}"
        if (one["state"] == "succeeded") and one["exit_code"] != 0:
            yield f"attempt {one['attempt']} succeeded with exit code {one['exit_code']}"
    yield from _order(attempts)
    if wrong := _end(trial["state"], attempts):
        yield wrong


def _order(attempts: list[Mapping[str, Any]]) -> Iterator[str]:
    for one in attempts[:-1]:
        if one["state"] == "running":
            yield f"attempt {one['attempt']} runs, and is not the last of {len(attempts)}"
        if one["state"] == "succeeded":
            yield f"attempt {one['attempt']} succeeded, and there are later ones"
    for before, after in pairwise(attempts):
        if before["ended"] is None:
            yield f"attempt {before['attempt']} has no end, and attempt {after['attempt']} began"


def _end(state: str, attempts: list[Mapping[str, Any]]) -> str | None:
    succeeded = [one["attempt"] for one in attempts if one["state"] == "succeeded"]
    if state == "succeeded" and len(succeeded) != 1:
        return f"succeeded with {len(succeeded)} accepted attempts"
    if state == "running" and (not attempts or attempts[-1]["state"] != "running"):
        return "runs without an attempt that runs"
    if state == "failed" and not attempts:
        return "failed without an attempt"
    if attempts and state not in LEADS_TO.get(attempts[-1]["state"], {state}):
        return f"is {state} after an attempt that is {attempts[-1]['state']}"
    return None
