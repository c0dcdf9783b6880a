"""Sweeps that come home: everything that counts is the same there, once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_doors import HOST, SPEC, drafts

from sweepfw.core.model import Draft, Grant, MetricSummary, Needs, Outcome, Sweep
from sweepfw.core.values import Number
from sweepfw.errors import SweepError
from sweepfw.ledger.store import SqliteLedger
from sweepfw.ledger.transfer import dump, read, save


@pytest.fixture
def there(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "there.db", tmp_path / "there") as ledger:
        yield ledger


@pytest.fixture
def here(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "here.db", tmp_path / "here") as ledger:
        yield ledger


def grant(ledger: SqliteLedger, uid: str, trial: int) -> Grant:
    answer = ledger.claim(uid, trial, HOST, "0", f"c{time.monotonic_ns()}")
    assert isinstance(answer, Grant), answer
    return answer


@pytest.fixture
def lived(there: SqliteLedger) -> Sweep:
    """A sweep in which everything has happened: 7 trials, most in a state of their own, and 6 attempts."""
    spec = replace(SPEC, needs=Needs(gpus=2), on_lost="hold", space={"lr": ["0.10"]})
    first = Draft({"lr": Number("0.10"), "on": True, "layers": (Number("64"), "x")})
    sweep = there.submit(
        spec, "s0", [first, *drafts(6)], note="it\u00e9", provenance={"git": {"commit": "a"}}
    )
    loss = {"loss": MetricSummary(math.nan, 0.1, math.inf, 7, 3, 2, None)}
    there.finish(grant(there, sweep.uid, 1).token, Outcome("failed", "exit 3", 3, again=True))
    there.finish(grant(there, sweep.uid, 1).token, Outcome("succeeded", "", 0, 5.0, loss, {"seconds": 1.5}))
    there.finish(grant(there, sweep.uid, 2).token, Outcome("failed", "exit 1", 1))
    there.stop(sweep.uid, [3])
    grant(there, sweep.uid, 4)
    there.expire(grant(there, sweep.uid, 5).token)
    there.finish(grant(there, sweep.uid, 6).token, Outcome("failed", "exit 1", 1))
    there.reopen(sweep.uid, ["failed"], [6], snapshot="s1")
    return there.sweep(sweep.uid)


def test_all_is_the_same_at_home(there: SqliteLedger, here: SqliteLedger, lived: Sweep) -> None:
    assert here.adopt(dump(there, lived.uid), place="lab") is True
    home = here.sweep(lived.name)
    assert home == lived._replace(state="queued", provenance={"git": {"commit": "a"}, "brought_from": "lab"})
    assert home.counts == {
        "queued": 2,
        "running": 1,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 1,
        "held": 1,
    }
    for one, other in zip(here.trials(lived.uid), there.trials(lived.uid), strict=True):
        assert repr(one) == repr(other)  # NaN equals nothing
    for mine, theirs in zip(here.attempts(lived.uid), there.attempts(lived.uid), strict=True):
        assert repr(mine._replace(token=theirs.token)) == repr(theirs)
    assert here.snapshots(lived.uid) == there.snapshots(lived.uid) == {"s0", "s1"}


def test_tokens_stay_behind(there: SqliteLedger, here: SqliteLedger, lived: Sweep) -> None:
    records = list(dump(there, lived.uid))
    here.adopt(records, place="lab")
    for attempt in there.attempts(lived.uid):
        assert attempt.token not in json.dumps(records)
        assert here.renew(attempt.token) == "stop"
        assert here.finish(attempt.token, Outcome("succeeded")).recorded is False
    assert here.adopt(dump(here, lived.uid), place="lab") is False


def test_a_sweep_goes_on_at_home(there: SqliteLedger, here: SqliteLedger, lived: Sweep) -> None:
    here.adopt(dump(there, lived.uid), place="lab")
    assert here.requeue(lived.uid, state="interrupted", why="it came home") == [4]
    assert here.reopen(lived.uid, ["failed", "cancelled", "held"]) == [2, 3, 5]
    assert grant(here, lived.uid, 6).snapshot == "s1"
    for number in (2, 3, 4, 5, 7):
        assert here.finish(grant(here, lived.uid, number).token, Outcome("succeeded")).accepted
    _, ended = here.ended_since(lived.uid, 0)
    assert len(ended) == len({(a.trial, a.number) for a in ended}) == len(list(here.attempts(lived.uid))) - 1
    assert here.submit(SPEC, "s", []).name == "digits-2"  # its name is used here too


def test_a_second_time_changes_nothing(there: SqliteLedger, here: SqliteLedger, lived: Sweep) -> None:
    here.adopt(dump(there, lived.uid), place="lab")
    grant(here, lived.uid, 7)
    before, version = here.sweep(lived.uid), here.version
    assert here.adopt(dump(there, lived.uid), place="elsewhere", name="other") is False
    assert (here.sweep(lived.uid), here.version) == (before, version)


def test_a_name_that_is_taken_is_refused_or_replaced(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep
) -> None:
    here.remove(here.submit(SPEC, "s", []).uid)
    with pytest.raises(SweepError, match=r'"digits-1" was used before; choose another'):
        here.adopt(dump(there, lived.uid), place="lab")
    with pytest.raises(SweepError, match="sweep name"):
        here.adopt(dump(there, lived.uid), place="lab", name="../digits")
    assert here.sweeps() == []
    (here._runs / "digits-lab").mkdir(parents=True)  # its files came first
    assert here.adopt(dump(there, lived.uid), place="lab", name="digits-lab") is True
    assert here.sweep("digits-lab").uid == lived.uid


@pytest.mark.parametrize(("state", "home"), [("pause", "paused"), ("stop", "stopped")])
def test_the_sweeps_state_comes_home(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep, state: str, home: str
) -> None:
    getattr(there, state)(lived.uid)
    here.adopt(dump(there, lived.uid), place="lab")
    assert here.sweep(lived.uid).state == home
    here.requeue(lived.uid, state="interrupted", why="it came home")
    (trial,) = here.trials(lived.uid, numbers=[4])
    assert trial.state == ("cancelled" if home == "stopped" else "queued")  # it was asked to stop


@pytest.mark.parametrize("cut", range(15))
def test_records_that_are_cut_off_are_refused(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep, cut: int
) -> None:
    records = list(dump(there, lived.uid))
    assert len(records) == 15
    with pytest.raises(SweepError, match="not whole"):
        here.adopt(records[:cut], place="lab")
    assert here.sweeps() == []
    assert here.adopt(records, place="lab") is True


@pytest.mark.parametrize("lost", [*range(1, 7), *range(8, 14)])
def test_records_that_lack_one_are_refused(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep, lost: int
) -> None:
    records = list(dump(there, lived.uid))
    kind = f"{records.pop(lost)['kind']}s"
    records[-1] |= {kind: records[-1][kind] - 1}
    with pytest.raises(SweepError):
        here.adopt(records, place="lab")
    assert here.sweeps() == []


def test_a_sweep_that_changes_while_it_is_read_is_refused(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep
) -> None:
    def changing() -> Iterator[dict[str, object]]:
        for record in dump(there, lived.uid):
            yield record
            if record["kind"] == "trial" and record["number"] == 7:
                (running,) = there.running(lived.uid)
                there.finish(running.token, Outcome("succeeded"))

    with pytest.raises(SweepError, match="digits-1/4: changed while it was read"):
        here.adopt(changing(), place="lab")
    assert here.sweeps() == []


def test_records_pass_through_a_file(
    there: SqliteLedger, here: SqliteLedger, lived: Sweep, tmp_path: Path
) -> None:
    file = tmp_path / "digits-1.jsonl"
    save(there, lived.uid, file)
    assert [path.name for path in tmp_path.glob("digits-1*")] == [file.name]
    assert repr(list(read(file))) == repr(list(dump(there, lived.uid)))
    file.write_text(file.read_text().replace('{"kind":"trial"', '{"kind":', 1))
    with pytest.raises(SweepError, match=r"digits-1\.jsonl:2: is no record"):
        here.adopt(read(file), place="lab")


def test_a_file_is_whole_or_not_there(there: SqliteLedger, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="no sweep"):
        save(there, "nosuch", tmp_path / "x.jsonl")
    assert list(tmp_path.glob("x.jsonl*")) == []


@pytest.mark.parametrize("junk", [{}, {"kind": "sweep"}, {"kind": "sweep", "uid": "u", "state": "done"}])
def test_junk_is_one_line(here: SqliteLedger, junk: dict[str, object]) -> None:
    with pytest.raises(SweepError, match="not whole"):
        here.adopt([junk], place="lab")
