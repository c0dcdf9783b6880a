"""What chaos stands on beside its judges: the schedule of faults, trials that bear witness, the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import schedule
import witness
from here_processes import ours
from hypothesis import given
from hypothesis import strategies as st
from invariants import Breach
from report import Report, Strike, chosen

# -- the schedule --------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 7))
def test_faults_follow_from_the_seed(seed: int, number: int, kinds: int) -> None:
    names = [f"kind{n}" for n in range(kinds)]
    faults = schedule.plan(seed, names, number, 100)
    assert faults == schedule.plan(seed, names, number, 100)
    assert len(faults) == number and all(0 <= fault.at <= 100 for fault in faults)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    often = [sum(fault.kind == name for fault in faults) for name in names]
    assert max(often) - min(often) <= 1


# -- the witness ---------------------------------------------------------------------------------------


def test_a_witness_tells_and_is_read(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """The trial's own program, run twice at once: both tell, and the second that it is the second."""
    (tmp_path / "out").mkdir()
    env = dict(os.environ) | {
        "SWEEPFW_SWEEP": "s",
        "SWEEPFW_TRIAL": "4",
        "CHAOS_WITNESS": str(tmp_path),
        "SWEEPFW_OUTPUT": str(tmp_path / "out"),
        "SWEEPFW_CHECKPOINT": str(tmp_path / "out"),
        "SWEEPFW_METRICS": str(tmp_path / "metrics"),
    }
    program = [sys.executable, witness.__file__, witness.case("daemon", 0.05, 4)]
    first = subprocess.run(program, env=env | {"SWEEPFW_ATTEMPT": "1"}, stdout=subprocess.PIPE, check=True)
    second = subprocess.run(
        [*program[:2], witness.case("fail", 0.05, 4)],
        env=env | {"SWEEPFW_ATTEMPT": "2"},
        stdout=subprocess.PIPE,
    )
    wait_until(lambda: any(line["what"] == "beat" for line in witness.lines(tmp_path)), 60, "its daemons")
    with (tmp_path / "witness.jsonl").open("ab") as torn:
        torn.write(b'{"what": "end", "tri')
    for daemon in ours(tmp_path):
        daemon.send(signal.SIGKILL)
    one, two = witness.read(tmp_path)
    assert (one.kind, one.attempt, one.exit, one.overlaps) == ("daemon", 1, 0, ())
    assert one.beats and one.reached == 5 and one.ended is not None and one.ended > one.started
    assert (two.kind, two.attempt, two.exit, two.resumed_from) == ("fail", 2, 3, 5)
    assert len(two.overlaps) == 1 and two.overlaps[0].startswith("attempt 1 on ")
    assert first.stdout.count(one.nonce.encode()) == 6 and second.returncode == 3
    assert json.loads((tmp_path / "metrics").read_text().splitlines()[-1])["proof"] == one.proof


# -- the report ----------------------------------------------------------------------------------------


def test_a_report_says_how_to_run_it_again(tmp_path: Path) -> None:
    found = Report(
        "here", 7, 100, ["--trials", "100", "--seed", "7"], [Strike(1.5, "kill-cli", "pid 3", "exit -9")]
    )
    assert "100 trials, 1 faults: no promise broken" in found.text()
    assert "scripts/chaos here --trials 100 --seed 7" in found.text()
    found.breaches.append(Breach("one end", "ended as queued", "s", 4))
    found.write(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["breaches"][0]["trial"] == 4 and told["command"] == found.command
    assert "one end: s/4: ended as queued" in (tmp_path / "report.md").read_text()
    assert "1 breaches (one end: 1)" in found.verdict
    found.strikes.append(Strike(2.5, "kill-cli", "nobody", "the run had ended", struck=False))
    assert "2 faults (1 missed): 1 breaches" in found.verdict


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(SystemExit, match="there is no 'flood'; there are: a, b"):
        chosen({"a": "", "b": ""}, "a,flood")
    assert chosen({"a": "", "b": ""}, None) == ["a", "b"]
