"""What the lab's side of chaos makes of faults and lives; with a lab: test_chaos_lab.py."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster
import cluster_evidence as evidence
import cluster_kinds
import pytest
from cluster_bed import LEASE, Bed
from cluster_evidence import COULD_NOT, Strike
from cluster_faults import KINDS
from cluster_kinds import Act, BrokenError, Kind, MissedError
from cluster_scene import Options, Scene
from lab_host import Host
from lab_site import Site
from schedule import Fault
from witness import Life

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import Deployment


def life(
    trial: int, attempt: int, host: str, started: float, ended: float | None, case: str = "calm 1 1"
) -> Life:
    return Life("s", trial, attempt, host, 1, case, f"{trial}.{attempt}", started, 0.0, 0, ended, exit=0)


def strike(kind: str, host: str, began: float, ended: float, result: str = "") -> Strike:
    return Strike(Fault(began, kind, 0, 0.5), host, began, ended, result)


def sweep(*states: str, reason: str = "") -> dict[str, Any]:
    attempts = [{"attempt": n, "state": state, "reason": reason} for n, state in enumerate(states, 1)]
    return {"sweep": "s", "trials": [{"trial": 1, "state": "failed", "reason": reason, "attempts": attempts}]}


def test_every_kind_says_what_it_does_and_where() -> None:
    assert len(KINDS) >= 40
    assert all(kind.what and kind.costs in ("nobody", "host", "all") for kind in KINDS.values())
    here = {name for name, kind in KINDS.items() if kind.where == "head"}
    assert {name for name in KINDS if name.startswith(("head", "ledger", "disk", "broker", "tunnel"))} <= here


def test_whom_a_fault_excuses() -> None:
    found = evidence.struck(
        [
            strike("worker-kill", "host2", 10, 11),
            strike("head-kill", "host1", 20, 21),
            strike("keeper-kill", "host3", 30, 31, "trial s/7"),
            strike("cable-out-long", "host1", 40, 60),
            strike("cable-out-long", "host2", 70, 90),
        ],
        [life(1, 1, "host3", 5, None, "poison 1 1")._replace(killed=80.0)],
    )
    told = [(each.kind, each.host, each.trial) for each in found]
    assert told == [
        ("worker-kill", "host2", None),
        ("keeper-kill", "host3", ("s", 7)),  # and none of its neighbours
        ("cable-out-long", None, None),  # the head's: all are cut off
        ("cable-out-long", "host2", None),
        ("poison", "host3", None),
    ]
    assert found[0].since == 10 and found[0].until >= 11 + LEASE
    assert found[-1].since == 80 and found[-1].until >= 80 + LEASE
    assert evidence.struck([], [life(1, 1, "host3", 5, None, "poison 1 1")]) == []  # it did not come to that


def test_a_fault_that_struck_nobody_explains_nothing() -> None:
    missed = strike("keeper-kill", "host3", 10, 11, "none ran")._replace(struck=False)
    assert evidence.struck([missed], []) == []
    halfway = strike("worker-oom", "host3", 10, 11, f"{COULD_NOT}TimeoutError")._replace(struck=False)
    assert [each.kind for each in evidence.struck([halfway], [])] == ["worker-oom"]


def test_a_short_fault_that_lasted_long_explains_what_it_may_have_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it does on a machine that stands still in the midst of it."""
    now = iter([0.0, LEASE / 2, 0.0, LEASE])
    clock = SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(now))
    monkeypatch.setattr(cluster_kinds, "time", clock)
    short, long = (cluster_kinds.briefly(4.0, lambda: None) for _ in range(2))
    cuts = [strike("cut-short", "host2", 10, 14, short), strike("cut-short", "host3", 10, 20, long)]
    assert [each.host for each in evidence.struck(cuts, [])] == ["host3"]
    assert [each.host for each in evidence.struck([strike("cable-out", "host1", 10, 20, long)], [])] == [None]
    [stall] = evidence.stalled([(30, 37)])
    assert stall.since == 30 and stall.until >= 37 + LEASE and stall.host is None


def test_only_what_a_command_itself_says_is_a_bug_of_it() -> None:
    bed = Bed(SimpleNamespace(), {})  # type: ignore[arg-type]  # nobody asks for it
    bed.heed(["run"], 'Traceback (most recent call last):\n  File "/w/witness.py", line 1, in <module>\n')
    assert bed.complaints == []
    bed.heed(["run"], 'Traceback (most recent call last):\n  File "<frozen runpy>", line 198, in _run\n')
    bed.heed(["ls"], "sweepfw: KeyError: 1 (this is a bug)\n")
    assert [each.partition(" said")[0] for each in bed.complaints] == ["`run`", "`ls`"]


def test_a_late_result_is_no_other_truth() -> None:
    """A lost attempt turns stale whenever its result comes; nothing else changes after the end."""
    told = [
        {"counts": {}, "trials": [{"trial": 1, "state": "succeeded", "metrics": {}, "attempts": [one]}]}
        for one in ({"attempt": 1, "state": state} for state in ("lost", "stale", "succeeded"))
    ]
    lost, stale, succeeded = map(cluster._facts, told)
    assert lost == stale != succeeded


def test_a_scene_tells_who_was_struck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What raises is told as well, and strikes nobody."""

    def miss(bed: Bed, host: Host, detail: float) -> str:
        raise MissedError("none ran")

    def fail(bed: Bed, host: Host, detail: float) -> str:
        raise AssertionError("no such container")

    def see(bed: Bed, host: Host, detail: float) -> str:
        raise BrokenError("it was not refused")

    acts: dict[str, Act] = {"a": lambda bed, host, detail: "2 s", "b": miss, "c": fail, "d": see}
    for name, act in acts.items():
        monkeypatch.setitem(KINDS, name, Kind(act, "", "head", "nobody"))
    head, lost = Host("host1", "", tmp_path, ""), Host("host2", "", tmp_path, "")
    lab: Any = SimpleNamespace(hosts=[head, lost])
    site: Any = SimpleNamespace(lab=lab)
    scene = Scene(Bed(site, {}, {lost.name}), Options(1), lambda text: None)
    told = [scene._act(Fault(0, kind, 0, 0.5), head) for kind in "abcd"]
    assert told == [
        ("2 s", "", True),
        ("none ran", "", False),
        ("could not: AssertionError: no such container", "", False),
        ("", "it was not refused", True),
    ]
    assert scene._act(Fault(0, "a", 0, 0.5), lost) == ("it is lost", "", False)


def test_asking_for_the_state_leaves_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Faults strike in parallel threads, and each asks for the containers' names."""
    lab: Any = SimpleNamespace(ssh_config=tmp_path / "ssh_config")
    site = Site(lab, tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", site.environment["XDG_STATE_HOME"])
        uid = DeploymentState.create(Deployment("t", (), "", ())).uid

    class Untouched(dict[str, str]):
        def __setitem__(self, name: str, value: str) -> None:
            raise AssertionError(f"{name} was set")

    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", Untouched(os.environ))
        assert Bed(site, {}).container("head") == f"sweepfw-t-{uid[:6]}-head"


def test_who_may_fail_for_good() -> None:
    killed = strike("trial-kill", "host1", 10, 11, "trial s/3")
    assert evidence.may_fail([killed], [], []) == {("s", 3)}
    lost = ["lost"] * 4
    assert evidence.may_fail([], [], [sweep(*lost, reason="host lost")]) == {("s", 1)}
    assert evidence.may_fail([], [], [sweep(*lost[1:], reason="host lost")]) == set()
    assert evidence.may_fail([], [], [sweep(*lost, reason="exit 3")]) == set()


def test_how_soon_a_trial_is_sent_again() -> None:
    lives = [life(1, 1, "host2", 5, None), life(2, 1, "host2", 6, 9), life(1, 2, "host1", 25, 30)]
    assert evidence.redispatch([strike("host-reboot", "host2", 10, 12)], lives) == [15]
    assert evidence.redispatch([strike("head-kill", "host1", 10, 12)], lives) == []
    assert evidence.resumed([strike("broker-kill", "host1", 10, 12)], lives, "broker") == [13]


def test_what_ran_through_a_fall_of_the_head() -> None:
    fall = strike("head-kill", "host1", 10, 12)
    lives = [life(1, 1, "host2", 5, 15), life(2, 1, "host3", 5, 15), life(3, 1, "host3", 11, 15)]
    assert evidence.through([fall], lives, [sweep("succeeded")]) == (2, [])
    lost = sweep("lost", reason="killed")
    told = "s/1/1 lost (killed; ran 5.0 s on host2 before head-kill)"
    assert evidence.through([fall], lives, [lost]) == (2, [told])
    untold = [life(1, 1, "host2", 5, 15), life(1, 2, "host3", 40, 45)]
    late = strike("worker-kill", "host2", 16, 17)  # before its end was told, as the head was away
    assert evidence.through([fall, late], untold, [sweep("lost", "succeeded")]) == (0, [])
    other = strike("worker-kill", "host2", 11, 12)  # explains what became of the first
    assert evidence.through([fall, other], lives, [lost]) == (1, [])
