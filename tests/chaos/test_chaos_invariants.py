"""The judges of chaos, judged: a story in which all is well, and for each promise one that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ledger_model
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invariants import Breach, Kept, Sample, Story, Struck, judge
from witness import Life

WALL = 1_000_000.0  # what the ledger's clock is ahead of the monotonic one


def attempt(number: int, state: str, since: float, until: float | None, **more: Any) -> dict[str, Any]:
    ends = {"succeeded": 0, "failed": 3}
    return {
        "attempt": number,
        "state": state,
        "reason": "",
        "exit_code": ends.get(state),
        "host": "tower",
        "started": WALL + since,
        "ended": None if until is None else WALL + until,
    } | more


def trial(number: int, state: str, kind: str, attempts: list[dict[str, Any]], proof: float) -> dict[str, Any]:
    return {
        "trial": number,
        "state": state,
        "reason": "",
        "params": {"case": f"{kind} 1 {number}"},
        "metrics": {"proof": proof},
        "attempts": attempts,
    }


def life(number: int, tried: int, since: float, until: float | None, **more: Any) -> Life:
    told: dict[str, Any] = {"host": "tower", "pid": 1, "case": f"calm 1 {number}", "wall": 0.0}
    told |= {"nonce": f"{number}.{tried}", "started": since, "resumed_from": 0}
    if until is not None:
        told |= {"ended": until, "exit": 0, "log": f"log{number}", "files": {"a": "A"}}
        told |= {"proof": 7.0, "reached": 5}
    return Life(sweep="s", trial=number, attempt=tried, **told | more)


class Case:
    """Trial 1 succeeded at once; trial 2 was interrupted by a fault at 10 s, and succeeded then; trial 3 is
    one that fails."""

    def __init__(self) -> None:
        self.lives = [
            life(1, 1, 1, 5),
            life(2, 1, 6, None),
            life(2, 2, 12, 15),
            life(3, 1, 6, 7, case="fail 1 3", exit=3),
        ]
        self.sweep = {
            "sweep": "s",
            "state": "done",
            "counts": {"succeeded": 2, "failed": 1},
            "trials": [
                trial(1, "succeeded", "calm", [attempt(1, "succeeded", 1, 5)], 7.0),
                trial(
                    2,
                    "succeeded",
                    "calm",
                    [attempt(1, "interrupted", 6, 10), attempt(2, "succeeded", 12, 15)],
                    7.0,
                ),
                trial(3, "failed", "fail", [attempt(1, "failed", 6, 7)], 7.0),
            ],
        }
        self.files = {
            ("s", 1, 1): Kept("log1", {"a": "A"}, {"exit_code": 0}),
            ("s", 2, 1): Kept("half", {}, None),
            ("s", 2, 2): Kept("log2", {"a": "A"}, {"exit_code": 0}),
            ("s", 3, 1): Kept("log3", {"a": "A"}, {"exit_code": 3}),
        }
        self.leftovers: list[str] = []
        self.story = Story(struck=[Struck("kill-cli", 10, 10.3)], wall=WALL)

    def judged(self) -> list[Breach]:
        return judge(self.lives, [self.sweep], self.files, self.leftovers, self.story)

    def trial(self, number: int) -> dict[str, Any]:
        return self.sweep["trials"][number - 1]  # type: ignore[index, no-any-return]

    def change(self, number: int, tried: int, **more: Any) -> None:
        self.trial(number)["attempts"][tried - 1] |= more

    def relive(self, position: int, **more: Any) -> None:
        self.lives[position] = self.lives[position]._replace(**more)

    def count(self) -> None:
        states = [each["state"] for each in self.sweep["trials"]]  # type: ignore[index]
        self.sweep["counts"] = {state: states.count(state) for state in states}


def test_nothing_is_wrong_where_nothing_is() -> None:
    assert Case().judged() == []


def _not_ended(case: Case) -> None:
    case.trial(1)["state"] = "queued"
    case.trial(1)["attempts"] = []
    del case.lives[0]
    case.sweep["state"] = "queued"
    case.count()


def _failed(case: Case) -> None:
    case.trial(1)["state"] = "failed"
    case.change(1, 1, state="failed", exit_code=1)
    case.relive(0, exit=1)
    case.files["s", 1, 1] = Kept("log1", {}, {"exit_code": 1})
    case.count()


def _twice(case: Case) -> None:
    case.change(2, 1, state="succeeded", exit_code=0)


def _none_accepted(case: Case) -> None:
    case.change(1, 1, state="stale")


def _stale_accepted(case: Case) -> None:
    case.change(1, 1, state="stale", accepted=True)


def _older_accepted(case: Case) -> None:
    case.change(2, 1, state="succeeded", exit_code=0)
    case.change(2, 2, state="stale")
    case.relive(1, ended=8.0, exit=0, log="half", files={}, proof=7.0)


def _never_ran(case: Case) -> None:
    del case.lives[0]


def _witness_tells_otherwise(case: Case) -> None:
    case.relive(0, exit=3)


def _another_log(case: Case) -> None:
    case.files["s", 2, 2] = case.files["s", 2, 1]._replace(files={"a": "A"}, outcome={"exit_code": 0})


def _no_log(case: Case) -> None:
    del case.files["s", 1, 1]


def _other_files(case: Case) -> None:
    case.files["s", 1, 1] = case.files["s", 1, 1]._replace(files={"a": "A", "b": "of another"})


def _other_metric(case: Case) -> None:
    case.trial(1)["metrics"] = {"proof": 8.0}


def _unknown_attempt(case: Case) -> None:
    case.lives.append(life(1, 2, 20, 21))


def _one_grant_twice(case: Case) -> None:
    case.lives.append(life(1, 1, 20, 21)._replace(nonce="other"))


def _unknown_trial(case: Case) -> None:
    case.lives.append(life(4, 1, 20, 21))


def _never_there(case: Case) -> None:
    case.story = replace(case.story, dealt={"": ["calm 1 1", "calm 1 2", "fail 1 3", "calm 1 4"]})


def _there_twice(case: Case) -> None:
    case.trial(2)["params"] = {"case": "calm 1 1"}


def _lock_held(case: Case) -> None:
    case.relive(2, overlaps=("attempt 1 on tower",))


def _lived_on(case: Case) -> None:
    case.relive(1, ended=13.0)


def _daemon_lived_on(case: Case) -> None:
    case.relive(1, beats=(7.0, 14.0))


def _daemon_outlives(case: Case) -> None:
    case.relive(0, beats=(1.5, 70.0))


def _outcome_forgotten(case: Case) -> None:
    case.files["s", 2, 1] = Kept("half", {}, {"exit_code": 0})


def _failure_again(case: Case) -> None:
    case.change(2, 1, state="failed", exit_code=1)
    case.files["s", 2, 1] = Kept("half", {}, {"exit_code": 1})


def _not_struck(case: Case) -> None:
    case.story = replace(case.story, struck=[Struck("kill-cli", 20, 21)])


def _neighbour(case: Case) -> None:
    case.story = replace(case.story, struck=[Struck("kill-keeper", 10, 10.3, trial=("s", 1))])


def _granted_before(case: Case) -> None:
    """Its first word came late: it is the grant that a fault may follow."""
    case.relive(1, started=13.0, wall=WALL + 13.0)
    case.relive(2, started=14.0)


def _granted_after(case: Case) -> None:
    _granted_before(case)
    case.change(2, 1, started=WALL + 12.0)


def _told_before(case: Case, patience: float = 60.0) -> None:
    """Its last word came before the fault, and nobody had heard of it yet."""
    case.relive(1, ended=7.0, exit=0)
    case.story = replace(case.story, patience=patience)


def _elsewhere(case: Case) -> None:
    case.story = replace(case.story, struck=[Struck("reboot", 10, 10.3, host="another")])


def _not_struck_and_no_witness(case: Case) -> None:
    del case.lives[1]
    case.story = replace(case.story, struck=[Struck("kill-cli", 20, 21)])


def _checkpoint_lost(case: Case) -> None:
    case.relive(1, reached=3)
    case.relive(2, resumed_from=2)


def _checkpoint_of_nobody(case: Case) -> None:
    case.relive(0, resumed_from=2)


def _left(case: Case) -> None:
    case.leftovers = ["process 17 (python) is left"]


def _claims(*samples: tuple[float, int]) -> Callable[[Case], None]:
    def claim(case: Case) -> None:
        said = [Sample(at, "s", "running", {"succeeded": n, "queued": 3 - n}) for at, n in samples]
        case.story = replace(case.story, samples=said)

    return claim


def _trials_vanish(case: Case) -> None:
    said = [Sample(at, "s", "running", {"queued": n}) for at, n in ((2.0, 3), (3.0, 2))]
    case.story = replace(case.story, samples=said)


def _counts(case: Case) -> None:
    case.sweep["counts"] = {"succeeded": 3}


def _numbers(case: Case) -> None:
    case.trial(2)["trial"] = 7
    case.lives = [case.lives[0], case.lives[3]]


BROKEN: dict[str, tuple[str, Callable[[Case], None]]] = {
    "a trial without an end": ("one end", _not_ended),
    "a healthy one failed": ("one end", _failed),
    "two accepted": ("accepted once", _twice),
    "none accepted": ("accepted once", _none_accepted),
    "a stale one accepted": ("accepted once", _stale_accepted),
    "an older one accepted": ("accepted once", _older_accepted),
    "accepted, and never ran": ("accepted once", _never_ran),
    "accepted, and its witness failed": ("accepted once", _witness_tells_otherwise),
    "another attempt's log": ("accepted bytes", _another_log),
    "no log": ("accepted bytes", _no_log),
    "other files": ("accepted bytes", _other_files),
    "another metric": ("accepted bytes", _other_metric),
    "nothing granted it": ("granted", _unknown_attempt),
    "one grant, two starts": ("granted", _one_grant_twice),
    "a stale one, where no lease can run out": ("granted", lambda case: case.change(2, 1, state="stale")),
    "a trial that the ledger lost": ("lost", _unknown_trial),
    "one of those that were submitted": ("lost", _never_there),
    "one was submitted twice": ("lost", _there_twice),
    "its lock was held": ("no overlap", _lock_held),
    "it lived on beside its successor": ("no overlap", _lived_on),
    "its daemon did": ("no overlap", _daemon_lived_on),
    "a daemon outlives its trial": ("what dies is dead", _daemon_outlives),
    "a written outcome was forgotten": ("outcomes stand", _outcome_forgotten),
    "a failure ran again unasked": ("outcomes stand", _failure_again),
    "restarted without a fault": ("healthy ones go on", _not_struck),
    "granted after the fault": ("healthy ones go on", _granted_after),
    "ended long before it": ("healthy ones go on", lambda case: _told_before(case, 1.0)),
    "restarted by a neighbour's fault": ("healthy ones go on", _neighbour),
    "restarted by another host's fault": ("healthy ones go on", _elsewhere),
    "the same, before it said a word": ("healthy ones go on", _not_struck_and_no_witness),
    "a checkpoint was lost": ("checkpoints", _checkpoint_lost),
    "a checkpoint from nowhere": ("checkpoints", _checkpoint_of_nobody),
    "something is left": ("nothing left", _left),
    "more claimed than happened": ("claims", _claims((2.0, 1))),
    "a success was taken back": ("claims", _claims((6.0, 1), (8.0, 0))),
    "trials vanished": ("claims", _trials_vanish),
    "counts that are not its trials'": ("ledger", _counts),
    "numbers that are not 1 to n": ("ledger", _numbers),
    "an attempt is missing": ("ledger", lambda case: case.change(2, 2, attempt=3)),
    "it runs beneath a later one": (
        "ledger",
        lambda case: case.change(2, 1, state="running", ended=None),
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_each_breach_is_seen(broken: str) -> None:
    invariant, break_it = BROKEN[broken]
    case = Case()
    break_it(case)
    assert invariant in {breach.invariant for breach in case.judged()}


@pytest.mark.parametrize(
    ("allowed", "break_it"),
    [
        ({"may_fail": {("s", 1)}}, _failed),
        ({"reopened": {("s", 2)}}, _failure_again),
        ({"patience": 90.0}, _daemon_outlives),
        ({"samples": [Sample(6.0, "s", "running", {"succeeded": 1, "queued": 2})]}, lambda case: None),
        ({}, _granted_before),
        ({}, _told_before),
    ],
)
def test_what_the_story_allows_is_no_breach(
    allowed: dict[str, Any], break_it: Callable[[Case], None]
) -> None:
    case = Case()
    break_it(case)
    case.story = replace(case.story, **allowed)
    assert case.judged() == []


def test_copies_may_overlap_where_a_lease_ran_out() -> None:
    case = Case()
    case.change(2, 1, state="stale")
    case.relive(1, ended=13.0, exit=0)
    case.relive(2, overlaps=("attempt 1 on tower",))
    assert {breach.invariant for breach in case.judged()} == {"no overlap", "granted"}
    case.story = replace(case.story, leases=True)
    assert case.judged() == []


def test_a_cancelled_trial_is_an_end_where_somebody_stopped_it() -> None:
    case = Case()
    case.trial(1)["state"] = "cancelled"
    case.change(1, 1, state="cancelled", exit_code=None)
    case.files["s", 1, 1] = Kept("log1", {}, {"exit_code": None, "ended_by": "stop"})
    case.count()
    assert {breach.invariant for breach in case.judged()} == {"one end"}
    case.story = replace(case.story, cancelled={("s", 1)})
    assert case.judged() == []


# -- the model of the ledger ---------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(sorted(ledger_model.LEADS_TO)), max_size=4),
    st.sampled_from(["queued", "running", "held", "succeeded", "failed", "cancelled"]),
)
def test_one_success_and_nothing_after_it(states: Sequence[str], end: str) -> None:
    """Whatever a ledger says: what the model lets pass has one accepted attempt, the last, for a success."""
    attempts = [
        attempt(number, state, 2 * number, None if state == "running" else 2 * number + 1)
        for number, state in enumerate(states, 1)
    ]
    told = {
        "sweep": "s",
        "state": "running",
        "counts": {end: 1},
        "trials": [trial(1, end, "calm", attempts, 7)],
    }
    if not list(ledger_model.check(told)):
        good = [number for number, state in enumerate(states, 1) if state == "succeeded"]
        assert good == ([len(states)] if end == "succeeded" else [])
