"""What every door promises of attempts that nobody hears of any more, one test a promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweepfw.core.model import Grant, Outcome, Trial, Worker
from sweepfw.core.states import TRIES_WHEN_LOST
from sweepfw.errors import SweepError
from sweepfw.ledger.interface import Ledger

DONE = Outcome("succeeded", exit_code=0, ended=5.0)
NEXT_BOOT = Worker("here", "boot-2")
ELSEWHERE = Worker("elsewhere", "boot-9")


@pytest.fixture
def held(ledger, spec, make_drafts) -> str:
    """A sweep whose trials wait for a person when a host falls silent."""
    return ledger.submit(replace(spec, on_lost="hold"), "snap", make_drafts(2)).uid


def trial(ledger: Ledger, uid: str, number: int = 1) -> Trial:
    (found,) = ledger.trials(uid, numbers=[number])
    return found


def ends(ledger: Ledger, uid: str) -> list[tuple[int, int, str]]:
    return [(a.trial, a.number, a.state) for a in ledger.ended_since(uid, 0)[1]]


# -- a lease runs out ----------------------------------------------------------------------------------


def test_a_trial_whose_lease_ran_out_is_queued_again(ledger, uid, take) -> None:
    grant = take()
    assert ledger.expire(grant.token) == "queued"
    found = trial(ledger, uid)
    assert (found.state, found.reason, found.ended) == ("queued", "its host fell silent", None)
    assert (ledger.runnable(uid), ledger.running(uid)) == ([1, 2, 3], [])
    assert ledger.sweep(uid).counts == {"queued": 3}
    (attempt,) = ledger.attempts(uid)
    assert (attempt.state, attempt.ended, ends(ledger, uid)) == ("running", None, [])


def test_an_attempt_expires_once(ledger, uid, take) -> None:
    grant = take()
    assert [ledger.expire(grant.token) for _ in range(3)] == ["queued"] * 3
    assert take().losses == 1


def test_only_a_running_attempt_expires(ledger, uid, take) -> None:
    old = take()
    ledger.expire(old.token)
    new = take()
    assert ledger.expire(old.token) == "running"
    ledger.finish(new.token, DONE)
    assert ledger.expire(new.token) == "succeeded"
    assert ledger.expire("nobody's") == "cancelled"
    assert ends(ledger, uid) == [(1, 1, "lost"), (1, 2, "succeeded")]


def test_a_renewal_revives_it(ledger, uid, take) -> None:
    grant = take()
    ledger.expire(grant.token)
    assert ledger.renew(grant.token) == "go on"
    found = trial(ledger, uid)
    assert (found.state, found.reason) == ("running", "")
    assert [a.token for a in ledger.running(uid)] == [grant.token]
    assert ledger.granted(grant.token) == grant  # no loss is counted
    assert ledger.finish(grant.token, DONE).accepted
    assert ends(ledger, uid) == [(1, 1, "succeeded")]


def test_it_may_expire_and_come_back_again_and_again(ledger, uid, take) -> None:
    grant = take()
    for _ in range(2 * TRIES_WHEN_LOST):
        assert ledger.expire(grant.token) == "queued"
        assert ledger.renew(grant.token) == "go on"
    ledger.expire(grant.token)
    assert take().losses == 1


def test_another_grant_ends_it(ledger, uid, take) -> None:
    old = take()
    ledger.expire(old.token)
    new = take()
    assert (new.attempt, new.losses) == (2, 1)
    assert (ledger.renew(old.token), ledger.renew(new.token)) == ("stop", "go on")
    assert ends(ledger, uid) == [(1, 1, "lost")]
    receipt = ledger.finish(old.token, DONE)
    assert (receipt.recorded, receipt.accepted, receipt.trial_state) == (False, False, "running")
    assert [a.token for a in ledger.running(uid)] == [new.token]
    assert ledger.finish(new.token, DONE).accepted
    assert ends(ledger, uid) == [(1, 1, "stale"), (1, 2, "succeeded")]
    assert [a.accepted for a in ledger.attempts(uid, 1)] == [False, True]


def test_readers_see_each_end_once(ledger, uid, take) -> None:
    old = take()
    ledger.expire(old.token)
    cursor, ended = ledger.ended_since(uid, 0)
    assert ended == []
    new = take()
    cursor, ended = ledger.ended_since(uid, cursor)
    assert [a.token for a in ended] == [old.token]
    ledger.finish(old.token, DONE)  # too late
    assert ledger.ended_since(uid, cursor) == (cursor, [])
    ledger.finish(new.token, DONE)
    assert [a.token for a in ledger.ended_since(uid, cursor)[1]] == [new.token]


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        (DONE, "succeeded"),
        (Outcome("failed", "exit 3", 3), "failed"),
        (Outcome("failed", "exit 3", 3, again=True), "queued"),
        (Outcome("interrupted", again=True), "queued"),
    ],
)
def test_a_late_end_counts_while_no_other_was_granted(ledger, uid, take, outcome, after) -> None:
    grant = take()
    ledger.expire(grant.token)
    receipt = ledger.finish(grant.token, outcome)
    assert (receipt.recorded, receipt.trial_state) == (True, after)
    assert trial(ledger, uid).state == after
    assert ends(ledger, uid) == [(1, 1, outcome.state)]
    assert ledger.renew(grant.token) == "stop"
    if after == "queued":
        assert take().losses == 0


def test_a_late_loss_is_counted_once(ledger, uid, take) -> None:
    grant = take()
    ledger.expire(grant.token)
    ledger.finish(grant.token, Outcome("lost", "its keeper was killed", again=True))
    assert take().losses == 1


def test_its_grant_stands_until_it_ends(ledger, uid, take) -> None:
    grant = take()
    ledger.expire(grant.token)
    assert ledger.granted(grant.token) == grant
    take()
    assert ledger.granted(grant.token) is None


@pytest.mark.parametrize("which", ["uid", "held"])
def test_the_same_claim_revives_it(ledger, worker, request, which) -> None:
    uid = request.getfixturevalue(which)
    grant = ledger.claim(uid, 1, worker, "0", "c1")  # its answer was lost, for longer than the lease
    ledger.expire(grant.token)
    assert ledger.claim(uid, 1, worker, "0", "c1") == grant
    assert trial(ledger, uid).state == "running"
    assert ledger.renew(grant.token) == "go on"


def test_a_trial_that_loses_every_host_is_poison(ledger, uid, take) -> None:
    for losses in range(TRIES_WHEN_LOST):
        grant = take()
        assert grant.losses == losses
        assert ledger.expire(grant.token) == "queued"
    alone = take()
    assert alone.losses == TRIES_WHEN_LOST
    assert ledger.expire(alone.token) == "failed"
    found = trial(ledger, uid)
    assert (found.state, found.reason, found.ended is None) == ("failed", "host lost", False)
    assert ends(ledger, uid) == [(1, n, "lost") for n in range(1, TRIES_WHEN_LOST + 2)]
    assert ledger.renew(alone.token) == "stop"
    assert ledger.finish(alone.token, DONE).recorded is False
    assert ledger.reopen(uid, ["failed"]) == [1]
    assert take().losses == 0


# -- held ----------------------------------------------------------------------------------------------


def test_a_held_trial_waits_for_a_person(ledger, held, take, worker) -> None:
    grant = take(1, held)
    assert ledger.expire(grant.token) == "held"
    assert ledger.claim(held, 1, worker, "0", "other").answer == "no"
    assert (ledger.runnable(held), ledger.sweep(held).counts) == ([2], {"queued": 1, "held": 1})
    assert ledger.reopen(held, ["held"]) == [1]
    assert take(1, held).attempt == 2
    assert ledger.renew(grant.token) == "stop"


def test_a_held_trial_goes_on_where_it_ran(ledger, held, take) -> None:
    grant = take(1, held)
    ledger.expire(grant.token)
    assert ledger.renew(grant.token) == "go on"
    assert trial(ledger, held).state == "running"
    ledger.expire(grant.token)
    assert ledger.finish(grant.token, DONE).accepted


def test_a_held_trial_that_was_queued_again_may_still_come_back(ledger, held, take) -> None:
    grant = take(1, held)
    ledger.expire(grant.token)
    ledger.reopen(held, ["held"])
    assert ledger.renew(grant.token) == "go on"
    assert ledger.granted(grant.token) == grant


def test_held_trials_are_held_however_often(ledger, held, take) -> None:
    for _ in range(TRIES_WHEN_LOST + 2):
        assert ledger.expire(take(1, held).token) == "held"
        ledger.reopen(held, ["held"])


# -- orders --------------------------------------------------------------------------------------------


def test_what_was_asked_to_stop_is_cancelled_when_its_lease_runs_out(ledger, uid, take) -> None:
    grant = take()
    ledger.stop(uid, [1])
    assert ledger.expire(grant.token) == "cancelled"
    assert (trial(ledger, uid).reason, ends(ledger, uid)) == ("stopped", [(1, 1, "lost")])
    assert ledger.renew(grant.token) == "stop"
    assert ledger.finish(grant.token, DONE).recorded is False


@pytest.mark.parametrize("which", ["uid", "held"])
@pytest.mark.parametrize("trials", [None, [1]])
def test_stop_ends_what_had_expired(ledger, take, request, which, trials) -> None:
    uid = request.getfixturevalue(which)
    grant, other = take(1, uid), take(2, uid)
    ledger.expire(grant.token), ledger.expire(other.token)
    assert ledger.stop(uid, trials) == (1 if trials else ledger.sweep(uid).total)
    assert trial(ledger, uid, 1).state == "cancelled"
    assert ledger.renew(grant.token) == "stop"
    receipt = ledger.finish(grant.token, DONE)
    assert (receipt.recorded, receipt.trial_state) == (False, "cancelled")
    assert (1, 1, "stale") in ends(ledger, uid)
    assert ledger.renew(other.token) == ("go on" if trials else "stop")


def test_an_expired_attempt_comes_back_while_the_sweep_is_paused(ledger, uid, take) -> None:
    grant = take()
    ledger.expire(grant.token)
    ledger.pause(uid)
    assert ledger.renew(grant.token) == "go on"
    assert ledger.finish(grant.token, DONE).accepted
    assert ledger.sweep(uid).state == "paused"


def test_close_waits_for_what_expired(ledger, uid, take) -> None:
    grant = take()
    ledger.stop(uid, [2, 3])
    ledger.expire(grant.token)
    assert ledger.close(uid) is False
    ledger.finish(grant.token, DONE)
    assert ledger.close(uid) is True
    assert ledger.sweep(uid).state == "done"


def test_a_sweep_with_held_trials_is_not_done(ledger, held, take) -> None:
    grant = take(1, held)
    ledger.stop(held, [2])
    ledger.expire(grant.token)
    assert ledger.close(held) is True  # a run has nothing left to do
    assert (ledger.sweep(held).state, ledger.sweep(held).ended) == ("queued", None)
    ledger.pause(held)
    assert (ledger.close(held), ledger.sweep(held).state) == (True, "paused")
    assert ledger.renew(grant.token) == "go on"
    assert ledger.close(held) is False
    ledger.finish(grant.token, DONE)
    assert ledger.close(held) is True
    assert ledger.sweep(held).state == "done"


def test_requeue_ends_what_had_expired(ledger, held, take) -> None:
    grant, other = take(1, held), take(2, held)
    ledger.expire(grant.token)
    assert ledger.requeue(held, state="interrupted", why="down") == [2]
    assert [trial(ledger, held, n).state for n in (1, 2)] == ["held", "queued"]
    assert ends(ledger, held) == [(1, 1, "interrupted"), (2, 1, "interrupted")]
    assert (ledger.renew(grant.token), ledger.renew(other.token)) == ("stop", "stop")


def test_a_sweep_with_an_expired_attempt_can_be_removed(ledger, uid, take) -> None:
    grant = take()
    ledger.expire(grant.token)
    ledger.remove(uid)
    assert (ledger.sweeps(), ledger.renew(grant.token)) == ([], "stop")
    assert ledger.running_on(Worker("here", "")) == []


def test_the_first_grant_makes_a_queued_sweep_running(ledger, uid, take) -> None:
    assert ledger.sweep(uid).state == "queued"
    grant = take()
    assert ledger.sweep(uid).state == "running"
    ledger.pause(uid)
    ledger.finish(grant.token, DONE)
    assert ledger.sweep(uid).state == "paused"  # no later word of a run undoes it


# -- workers -------------------------------------------------------------------------------------------


def test_a_worker_started_anew_loses_what_its_predecessor_ran(ledger, uid, take, worker) -> None:
    ledger.register(worker)
    running, expired, elsewhere = take(1), take(2), take(3, by=ELSEWHERE)
    ledger.expire(expired.token)
    ledger.register(NEXT_BOOT)
    assert [trial(ledger, uid, n).state for n in (1, 2, 3)] == ["queued", "queued", "running"]
    assert ends(ledger, uid) == [(1, 1, "lost"), (2, 1, "lost")]
    for grant in (running, expired):
        assert ledger.renew(grant.token) == "stop"
        assert ledger.finish(grant.token, DONE).recorded is False
    assert ledger.renew(elsewhere.token) == "go on"
    assert (take(1).losses, take(2).losses) == (1, 1)  # each counts once


def test_a_worker_started_anew_is_a_loss_like_any(ledger, uid, held, take, worker) -> None:
    for n in range(TRIES_WHEN_LOST):
        ledger.register(Worker("here", f"try-{n}"))
        take(1, by=Worker("here", f"try-{n}"))
    take(1, held, by=Worker("here", f"try-{n}"))
    take(2, held, by=Worker("here", f"try-{n}"))
    ledger.stop(held, [2])
    ledger.register(Worker("here", "last"))
    assert trial(ledger, uid).state == "queued"
    assert [trial(ledger, held, n).state for n in (1, 2)] == ["held", "cancelled"]
    take(1, by=Worker("here", "last"))
    ledger.register(worker)
    assert (trial(ledger, uid).state, trial(ledger, uid).reason) == ("failed", "host lost")


def test_a_worker_that_was_replaced_does_not_come_back(ledger, uid, take, worker) -> None:
    ledger.register(worker)
    ledger.register(NEXT_BOOT)
    grant = take(1, by=NEXT_BOOT)
    with pytest.raises(SweepError, match="worker on here: another was started there since"):
        ledger.register(worker)
    assert ledger.renew(grant.token) == "go on"
    ledger.register(NEXT_BOOT)
    ledger.register(ELSEWHERE)
    assert ledger.renew(grant.token) == "go on"


def test_a_worker_asks_what_it_ran(ledger, uid, held, take) -> None:
    first, old = take(1), take(1, held, by=NEXT_BOOT)
    take(2, by=ELSEWHERE)
    ledger.finish(take(3).token, DONE)
    ledger.expire(old.token)  # it has no end yet

    def found(worker: Worker) -> list[tuple[str, str]]:
        return [(uid, attempt.token) for uid, attempt in ledger.running_on(worker)]

    assert found(Worker("here", "boot-1")) == [(uid, first.token)]
    assert found(NEXT_BOOT) == [(held, old.token)]
    assert found(Worker("here", "")) == [(uid, first.token), (held, old.token)]
    assert found(Worker("nowhere", "")) == []
    assert isinstance(take(2, held), Grant)
