"""What every door to a ledger promises of trials and attempts (sweepfw/ledger/interface.py)."""

from __future__ import annotations

import math
import threading

import pytest

from sweepfw.core.model import Denial, Grant, MetricSummary, Outcome, Worker
from sweepfw.errors import SweepError
from sweepfw.ledger.interface import Ledger

DONE = Outcome("succeeded", exit_code=0, ended=5.0)
FAILED = Outcome("failed", "exit 3", 3, ended=5.0)


def state(ledger: Ledger, uid: str, number: int = 1) -> str:
    (trial,) = ledger.trials(uid, numbers=[number])
    return trial.state


# -- claims --------------------------------------------------------------------------------------------


def test_a_trial_is_granted_once(ledger, uid, worker) -> None:
    grant = ledger.claim(uid, 1, worker, "gpu0", "c1")
    assert (grant.sweep, grant.trial, grant.attempt, grant.snapshot) == ("digits-1", 1, 1, "snap")
    assert ledger.claim(uid, 1, worker, "gpu0", "c1") == grant  # its answer was lost
    assert ledger.claim(uid, 1, worker, "gpu1", "c2").answer == "no"
    (attempt,) = ledger.running(uid)
    assert (attempt.host, attempt.slot, attempt.token) == ("here", "gpu0", grant.token)


def test_a_claim_that_arrives_late_is_not_granted_again(ledger, uid, worker) -> None:
    grant = ledger.claim(uid, 1, worker, "0", "c1")
    ledger.finish(grant.token, FAILED._replace(again=True))
    assert ledger.claim(uid, 1, worker, "0", "c1").answer == "no"
    assert ledger.claim(uid, 1, worker, "0", "c2").attempt == 2


def test_threads_that_race_get_one_grant_a_trial(ledger, spec, worker, make_drafts) -> None:
    uid = ledger.submit(spec, "s", make_drafts(40)).uid
    grants: list[Grant] = []

    def run(k: int) -> None:
        for trial in range(1, 41):
            answer = ledger.claim(uid, trial, worker, str(k), f"{k}-{trial}")
            if isinstance(answer, Grant):
                grants.append(answer)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(grant.trial for grant in grants) == list(range(1, 41))


def test_paused_and_stopped_sweeps_grant_nothing(ledger, uid, worker) -> None:
    ledger.pause(uid, "setup failed")
    assert ledger.claim(uid, 1, worker, "0", "c1") == Denial("later", "the sweep is paused")
    assert ledger.runnable(uid) == []
    assert ledger.sweep(uid).reason == "setup failed"
    assert (ledger.open(uid).state, ledger.open(uid).reason) == ("running", "")
    assert ledger.runnable(uid) == [1, 2, 3]
    ledger.stop(uid)
    assert ledger.claim(uid, 1, worker, "0", "c1").answer == "no"
    assert ledger.runnable(uid) == []


def test_runnable_goes_on_after_a_number(ledger, uid, take) -> None:
    take(2)
    assert ledger.runnable(uid) == [1, 3]
    assert ledger.runnable(uid, after=1) == [3]
    assert ledger.runnable(uid, limit=1) == [1]


# -- ends ----------------------------------------------------------------------------------------------


def test_the_first_outcome_stands_and_is_told_again(ledger, uid, take) -> None:
    grant = take()
    first = ledger.finish(grant.token, DONE)
    assert (first.recorded, first.accepted, first.trial_state) == (True, True, "succeeded")
    assert ledger.finish(grant.token, FAILED) == first
    assert state(ledger, uid) == "succeeded"


def test_the_first_answer_is_told_again_after_the_trial_went_on(ledger, take) -> None:
    grant = take()
    first = ledger.finish(grant.token, FAILED._replace(again=True))
    take()
    assert ledger.finish(grant.token, DONE) == first
    assert first.trial_state == "queued"


def test_an_end_of_an_old_attempt_is_kept_as_stale(ledger, uid, take) -> None:
    old = take()
    assert ledger.requeue(uid, state="lost", why="the host is gone") == [1]
    new = take()
    receipt = ledger.finish(old.token, DONE)
    assert (receipt.recorded, receipt.accepted, receipt.trial_state) == (False, False, "running")
    assert state(ledger, uid) == "running"
    assert ledger.finish(new.token, FAILED).trial_state == "failed"
    assert ledger.finish(old.token, FAILED) == receipt
    assert [(a.state, a.accepted) for a in ledger.attempts(uid, 1)] == [("stale", False), ("failed", False)]


def test_what_an_attempt_told_is_kept(ledger, uid, take) -> None:
    metrics = {"loss": MetricSummary(math.nan, 0.1, math.inf, 7, 3, 2, None)}
    outcome = Outcome("failed", "exit 3\udcff", 3, 5.5, metrics, {"argv": ["x", "\udcff"], "gpu": None})
    ledger.finish(take().token, outcome)
    (attempt,) = ledger.attempts(uid)
    (trial,) = ledger.trials(uid, numbers=[1])
    assert attempt.reason == trial.reason == "exit 3?"
    assert (attempt.exit_code, attempt.ended, trial.ended) == (3, 5.5, 5.5)
    assert attempt.outcome == outcome.details
    for told in (attempt.metrics["loss"], trial.metrics["loss"]):
        assert repr(told) == repr(metrics["loss"])  # NaN equals nothing


def test_a_trial_shows_the_metrics_of_the_last_attempt_that_has_some(ledger, uid, take) -> None:
    first = {"loss": MetricSummary(1.0, 1.0, 1.0)}
    ledger.finish(take().token, FAILED._replace(metrics=first, again=True))
    ledger.finish(take().token, FAILED._replace(again=True))
    assert next(ledger.trials(uid)).metrics == first
    ledger.finish(take().token, DONE)  # what is accepted told none
    assert next(ledger.trials(uid)).metrics == {}


@pytest.mark.parametrize("end", ["running", "stale", "done"])
def test_only_ends_are_ends(ledger, take, end) -> None:
    with pytest.raises(ValueError, match=end):
        ledger.finish(take().token, Outcome(end))


def test_failures_and_losses_are_counted_until_the_trial_is_reopened(ledger, uid, take) -> None:
    ledger.finish(take().token, FAILED._replace(again=True))
    ledger.finish(take().token, FAILED._replace(again=True))
    take()
    ledger.requeue(uid, state="lost", why="gone")
    take()
    ledger.requeue(uid, state="interrupted", why="Ctrl-C")
    grant = take()
    assert (grant.attempt, grant.failures, grant.losses) == (5, {"exit 3": 2}, 1)
    ledger.finish(grant.token, FAILED)
    assert ledger.reopen(uid, ["failed"]) == [1]
    grant = take()
    assert (grant.attempt, grant.failures, grant.losses) == (6, {}, 0)


def test_ends_are_read_in_their_order(ledger, uid, take) -> None:
    grants = [take(1), take(2), take(3)]
    assert ledger.last_end(uid) == 0
    ledger.finish(grants[2].token, DONE)
    cursor, ended = ledger.ended_since(uid, 0)
    assert ledger.last_end(uid) == cursor
    assert [attempt.trial for attempt in ended] == [3]
    assert ledger.ended_since(uid, cursor) == (cursor, [])
    ledger.finish(grants[0].token, FAILED)
    ledger.requeue(uid, state="lost", why="")
    _, ended = ledger.ended_since(uid, cursor)
    assert [(attempt.trial, attempt.state) for attempt in ended] == [(1, "failed"), (2, "lost")]


# -- stop, pause, reopen -------------------------------------------------------------------------------


def test_stop_cancels_queued_trials_and_asks_running_ones(ledger, uid, take) -> None:
    grant = take(1)
    assert ledger.renew(grant.token) == "go on"
    assert ledger.stop(uid) == 3
    assert ledger.renew(grant.token) == "stop"
    ledger.stop(uid, now=True)
    assert ledger.renew(grant.token) == "stop now"
    assert ledger.sweep(uid).state == "stopped"
    assert ledger.finish(grant.token, Outcome("cancelled")).trial_state == "cancelled"
    assert ledger.sweep(uid).counts == {"cancelled": 3}


def test_stop_of_one_trial_leaves_the_others(ledger, uid, take) -> None:
    grant = take(3)
    assert ledger.stop(uid, [2]) == 1
    assert ledger.renew(grant.token) == "go on"
    assert ledger.sweep(uid).state == "running"
    assert ledger.sweep(uid).counts == {"queued": 1, "running": 1, "cancelled": 1}


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        (DONE, "succeeded"),  # it was in time
        (FAILED._replace(again=True), "cancelled"),
        (Outcome("interrupted", again=True), "cancelled"),
        (FAILED, "cancelled"),
    ],
)
def test_an_end_after_stop(ledger, uid, take, outcome, after) -> None:
    grant = take()
    ledger.stop(uid)
    assert ledger.finish(grant.token, outcome).trial_state == after


def test_requeue_cancels_what_was_asked_to_stop(ledger, uid, take) -> None:
    take(1), take(2)
    ledger.stop(uid, [1])
    assert ledger.requeue(uid, state="interrupted", why="killed") == [1, 2]
    assert (state(ledger, uid, 1), state(ledger, uid, 2)) == ("cancelled", "queued")
    assert ledger.running(uid) == []


def test_tokens_that_are_not_current_are_told_to_stop(ledger, uid, take) -> None:
    grant = take()
    ledger.requeue(uid, state="lost", why="")
    assert ledger.renew(grant.token) == "stop"
    assert ledger.renew("nobody's") == "stop"


def test_reopened_trials_run_the_new_snapshot(ledger, uid, take) -> None:
    ledger.finish(take(1).token, FAILED)
    ledger.finish(take(2).token, DONE)
    assert ledger.reopen(uid, ["failed"], [1, 2], snapshot="newer") == [1]
    assert ledger.snapshots() == {"snap", "newer"}
    assert take(1).snapshot == "newer"
    assert take(3).snapshot == "snap"


def test_successes_are_never_reopened(ledger, uid, take) -> None:
    ledger.finish(take().token, DONE)
    with pytest.raises(SweepError, match="succeeded"):
        ledger.reopen(uid, ["failed", "succeeded"])
    assert ledger.stop(uid, [1]) == 0
    assert state(ledger, uid) == "succeeded"


def test_reopening_makes_a_done_sweep_queued(ledger, uid, take) -> None:
    for number in (1, 2, 3):
        ledger.finish(take(number).token, FAILED)
    assert ledger.close(uid)
    assert ledger.sweep(uid).state == "done"
    assert ledger.reopen(uid, ["failed"], [2]) == [2]
    assert ledger.sweep(uid).state == "queued"


# -- the run -------------------------------------------------------------------------------------------


def test_close_waits_for_every_trial(ledger, uid, take) -> None:
    ledger.open(uid)
    grants = [take(1), take(2), take(3)]
    for grant in grants:
        assert ledger.close(uid) is False
        ledger.finish(grant.token, DONE)
    assert ledger.close(uid) is True
    assert ledger.sweep(uid).state == "done"
    ledger.leave(uid)
    assert ledger.sweep(uid).state == "done"


def test_a_stopped_sweep_stays_stopped(ledger, uid) -> None:
    ledger.open(uid)
    ledger.stop(uid)
    ledger.leave(uid)
    assert ledger.close(uid) is True
    assert ledger.sweep(uid).state == "stopped"
    assert ledger.sweep(uid).ended is not None
    assert (ledger.open(uid).state, ledger.sweep(uid).ended) == ("running", None)


def test_leave_makes_a_running_sweep_queued(ledger, uid) -> None:
    ledger.open(uid)
    ledger.leave(uid)
    assert ledger.sweep(uid).state == "queued"


def test_a_worker_started_anew_ends_its_predecessors_attempts(ledger, uid, worker) -> None:
    ledger.register(worker)
    grant = ledger.claim(uid, 1, worker, "0", "c1")
    other = ledger.claim(uid, 2, Worker("elsewhere", "boot-9"), "0", "c2")
    ledger.register(worker)
    assert ledger.renew(grant.token) == "go on"
    ledger.register(Worker("here", "boot-2"))
    assert (ledger.renew(grant.token), ledger.renew(other.token)) == ("stop", "go on")
    assert state(ledger, uid, 1) == "queued"


# -- logs ----------------------------------------------------------------------------------------------


def test_log_bytes_are_stored_once(ledger, take) -> None:
    token = take().token
    assert ledger.append_log(token, 0, b"one\xff\x00") == 5
    assert ledger.append_log(token, 0, b"one\xff\x00") == 5
    assert ledger.append_log(token, 3, b"\xff\x00two") == 8
    assert ledger.append_log(token, 1, b"ne") == 8
    for gap in (9, -1):
        with pytest.raises(SweepError, match="join"):
            ledger.append_log(token, gap, b"x")
    with pytest.raises(SweepError):
        ledger.append_log("nobody's", 0, b"x")


def test_the_log_is_a_file_that_people_find(ledger, take, tmp_path) -> None:
    ledger.append_log(take(2).token, 0, b"hello\n")
    assert (tmp_path / "runs/digits-1/trials/2/1/output.log").read_bytes() == b"hello\n"
