"""What every door to a ledger promises of sweeps as they come in, and as they are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweepfw.core.model import Denial, Draft, Grant, Needs, Outcome, Spec
from sweepfw.core.values import Number
from sweepfw.errors import SweepError
from sweepfw.ledger.interface import Ledger

DONE = Outcome("succeeded", exit_code=0, ended=5.0)


# -- submitting ----------------------------------------------------------------------------------------


def test_trials_left_out_are_held_until_they_are_reopened(ledger, spec, make_drafts, worker) -> None:
    sweep = ledger.submit(spec, "snap", make_drafts(4), only=[2, 4])
    assert dict(sweep.counts) == {"queued": 2, "held": 2}
    assert ledger.runnable(sweep.uid) == [2, 4]
    assert isinstance(ledger.claim(sweep.uid, 1, worker, "0", "c1"), Denial)
    assert ledger.hold(sweep.uid, [4]) == 1
    assert ledger.runnable(sweep.uid) == [4]
    assert ledger.reopen(sweep.uid, ["held"], [1, 2]) == [1, 2]
    assert ledger.runnable(sweep.uid) == [1, 2, 4]
    assert isinstance(ledger.claim(sweep.uid, 1, worker, "0", "c2"), Grant)


def test_submit_stores_the_sweep_and_its_trials(ledger, spec) -> None:
    params = {"lr": Number("0.10"), "opt": "a b", "on": True, "none": None, "layers": (Number("64"), "x")}
    spec = replace(spec, needs=Needs(gpus=2, paths=("/data",)), space={"lr": [1, 2]})
    drafts = [Draft(params), Draft(params, repeat=2)]
    sweep = ledger.submit(spec, "snap", drafts, note="first\U0001f600", provenance={"git": {"commit": "abc"}})
    assert ledger.sweep(sweep.name) == ledger.sweep(sweep.uid) == sweep
    assert (sweep.name, sweep.state, sweep.snapshot, sweep.note) == (
        "digits-1",
        "queued",
        "snap",
        "first\U0001f600",
    )
    assert (sweep.spec, sweep.provenance, sweep.counts) == (spec, {"git": {"commit": "abc"}}, {"queued": 2})
    trials = list(ledger.trials(sweep.uid))
    assert [(t.number, t.repeat, t.state, t.params) for t in trials] == [
        (1, 1, "queued", params),
        (2, 2, "queued", params),
    ]


def test_a_uid_that_was_drawn_before_is_taken_once(ledger, spec) -> None:
    uid = "0123456789abcdef"
    assert ledger.submit(spec, "s", [], uid=uid).uid == uid
    for wrong in (uid, "", "../../../../etc", uid.upper(), uid + "\n", "0" * 15):
        with pytest.raises(ValueError, match="16 hex digits that no other sweep has"):
            ledger.submit(spec, "s", [], uid=wrong)
    assert [sweep.name for sweep in ledger.sweeps()] == ["digits-1"]


def test_names_count_up_and_are_never_used_again(ledger, spec) -> None:
    first = ledger.submit(spec, "s", [])
    ledger.submit(spec, "s", [], name="digits-2")
    ledger.remove(first.uid)
    assert ledger.submit(spec, "s", []).name == "digits-3"
    for name in ("digits-1", "DIGITS-2"):
        with pytest.raises(SweepError, match="used before"):
            ledger.submit(spec, "s", [], name=name)


@pytest.mark.parametrize("name", ["", "-rf", "../x", "a/b", "a b", ".hidden", "x" * 101, "a\n", "é"])
def test_names_that_are_no_folder_are_refused(ledger, spec, name) -> None:
    with pytest.raises(SweepError, match="sweep name"):
        ledger.submit(spec, "s", [], name=name)


def test_a_folder_left_by_a_lost_ledger_keeps_its_name(ledger, spec, tmp_path) -> None:
    (tmp_path / "runs/digits-1").mkdir(parents=True)
    assert ledger.submit(spec, "s", []).name == "digits-2"
    with pytest.raises(SweepError, match="there already"):
        ledger.submit(spec, "s", [], name="digits-1")


@pytest.mark.parametrize("project", ["a b", "-rf", "..", "日本", "x" * 200])
def test_any_project_gets_a_name_that_can_be_given(ledger, spec, project) -> None:
    name = ledger.submit(replace(spec, project=project), "s", []).name
    ledger.submit(spec, "s", [], name=name + "x")


def test_a_submit_that_fails_leaves_nothing(ledger, spec) -> None:
    def drafts():
        yield Draft({"a": "1"})
        raise SweepError("halfway")

    with pytest.raises(SweepError, match="halfway"):
        ledger.submit(spec, "s", drafts())
    assert ledger.sweeps() == []
    assert ledger.submit(spec, "s", []).name == "digits-1"


def test_extend_adds_what_is_missing_by_meaning(ledger, spec) -> None:
    uid = ledger.submit(spec, "s", [Draft({"lr": Number("0.1"), "opt": "1"})]).uid
    assert ledger.close(uid) is False
    ledger.stop(uid, [1])
    assert ledger.close(uid) is True
    wider = replace(spec, space={"lr": ["0.10", "1"]})
    drafts = [
        Draft({"opt": "1", "lr": Number("0.10")}),  # the same
        Draft({"lr": Number("0.1"), "opt": Number("1")}),  # a number is no string
        Draft({"lr": Number("0.1"), "opt": "1"}, repeat=2),
        Draft({"lr": Number("1e-1"), "opt": "1"}, repeat=2),  # the same as the one before
    ]
    assert ledger.extend(uid, wider, drafts) == 2
    assert ledger.extend(uid, wider, drafts) == 0
    assert [t.number for t in ledger.trials(uid)] == [1, 2, 3]
    sweep = ledger.sweep(uid)
    assert (sweep.state, sweep.ended, sweep.spec) == ("queued", None, wider)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1e3", "1000.0", True),
        ("-0", "0.0", True),
        ("010", "10", True),
        ("1e400", "1e401", False),
        ("0.1" + "0" * 40 + "1", "0.1" + "0" * 40 + "2", False),  # beyond any float
    ],
)
def test_extend_compares_numbers_exactly(ledger, spec, one, other, same) -> None:
    uid = ledger.submit(spec, "s", [Draft({"a": (Number(one), "x")})]).uid
    assert ledger.extend(uid, spec, [Draft({"a": (Number(other), "x")})]) == (0 if same else 1)


# -- asking --------------------------------------------------------------------------------------------


def test_sweeps_come_oldest_first_with_their_counts(ledger, spec, make_drafts) -> None:
    uids = [ledger.submit(spec, "s", make_drafts(n)).uid for n in range(3)]
    assert [(s.uid, s.counts, s.total) for s in ledger.sweeps()] == [
        (uids[0], {}, 0),
        (uids[1], {"queued": 1}, 1),
        (uids[2], {"queued": 2}, 2),
    ]


def test_trials_can_be_chosen(ledger, uid, take) -> None:
    ledger.finish(take(2).token, DONE)
    assert [t.number for t in ledger.trials(uid, states=["queued"])] == [1, 3]
    assert [t.number for t in ledger.trials(uid, states=["queued"], numbers=[2, 3])] == [3]
    assert [t.number for t in ledger.trials(uid, after=2)] == [3]
    assert list(ledger.trials(uid, states=[])) == []


def test_long_lists_are_whole(ledger, spec, worker, make_drafts) -> None:
    uid = ledger.submit(spec, "s", make_drafts(2500)).uid
    assert [t.number for t in ledger.trials(uid)] == list(range(1, 2501))
    for number in range(1, 1102):
        ledger.claim(uid, number, worker, "0", f"c{number}")
    assert [a.trial for a in ledger.attempts(uid)] == list(range(1, 1102))


def test_unknown_sweeps_and_trials_are_named(ledger, uid, worker) -> None:
    with pytest.raises(SweepError) as told:
        ledger.sweep("digits-9")
    assert str(told.value) == 'no sweep "digits-9"; did you mean digits-1? (sweepfw ls shows all)'
    for ask in (ledger.open, ledger.close, ledger.stop, ledger.trials, ledger.remove, ledger.running):
        with pytest.raises(SweepError, match="no sweep"):
            ask("nosuch")
    for number in (0, 4, -1, 10**30):
        with pytest.raises(SweepError, match=f"no trial digits-1/{number}; it has trials 1 to 3"):
            ledger.trials(uid, numbers=[number])
        with pytest.raises(SweepError, match="no trial"):
            ledger.claim(uid, min(number, 10**9), worker, "0", "c")
        with pytest.raises(SweepError, match="no trial"):
            ledger.stop(uid, [number])


def test_a_removed_sweep_is_forgotten(ledger, uid, take) -> None:
    grant = take()
    ledger.remove(uid)
    assert ledger.sweeps() == []
    assert ledger.snapshots() == set()
    assert ledger.renew(grant.token) == "stop"
    assert ledger.finish(grant.token, DONE).recorded is False


def test_flush_and_disconnect_may_be_called_again(ledger, uid) -> None:
    ledger.flush()
    ledger.flush()
    ledger.disconnect()
    ledger.disconnect()


def test_spec_of_the_interface_is_complete(ledger) -> None:
    """Every method of the interface is there."""
    for name in vars(Ledger):
        if not name.startswith("_"):
            assert callable(getattr(ledger, name)), name


def test_large_params_and_specs(ledger) -> None:
    spec = Spec("p", "t", ("x" * 5000,))
    uid = ledger.submit(spec, "s", [Draft({f"p{i}": "v" * 100 for i in range(100)})]).uid
    assert ledger.sweep(uid).spec == spec
    assert len(next(ledger.trials(uid)).params) == 100
