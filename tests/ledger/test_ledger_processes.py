"""Several processes at one ledger, and processes that die in the middle of it."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ledger_doors import HOST, SPEC, drafts

from sweepfw.core.model import Grant, Outcome
from sweepfw.ledger.store import SqliteLedger

PROLOGUE = """
import json, sys, time
from pathlib import Path
from sweepfw.core.model import Grant, Outcome, Worker
from sweepfw.ledger.store import SqliteLedger
folder, uid, me = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
ledger = SqliteLedger(folder / "ledger.db", folder / "runs")
"""
RACE = """
print("ready", flush=True)
sys.stdin.readline()
grants = []
for trial in range(1, 201):
    answer = ledger.claim(uid, trial, Worker("here", me), "0", f"{me}-{trial}")
    if isinstance(answer, Grant):
        grants.append(trial)
print(json.dumps(grants))
"""
LOOP = """
for trial in ledger.runnable(uid, limit=1000):
    sys.stdin.readline()
    grant = ledger.claim(uid, trial, Worker("here", me), "0", f"{me}-{trial}")
    if isinstance(grant, Grant):
        assert ledger.finish(grant.token, Outcome("succeeded")).accepted
        print(trial, flush=True)
"""
STOP = "ledger.stop(uid, [1]); ledger.disconnect()"


def child(script: str, folder: Path, uid: str, name: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROLOGUE + script, str(folder), uid, name]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def opened(folder: Path) -> SqliteLedger:
    return SqliteLedger(folder / "ledger.db", folder / "runs")


def test_processes_that_race_get_one_grant_a_trial(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(200)).uid
        racers = [child(RACE, tmp_path, uid, f"p{k}") for k in range(3)]
        for racer in racers:
            assert racer.stdout and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        granted = [trial for racer in racers for trial in json.loads(racer.communicate(timeout=200)[0])]
        assert sorted(granted) == list(range(1, 201))
        assert len(ledger.running(uid)) == 200


def test_changes_of_other_processes_are_seen(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(2)).uid
        grant = ledger.claim(uid, 1, HOST, "0", "c")
        assert isinstance(grant, Grant)
        before = ledger.changed()
        assert ledger.changed() == before
        assert child(STOP, tmp_path, uid, "p").wait(timeout=200) == 0
        assert ledger.changed() != before
        assert ledger.renew(grant.token) == "stop"


MAKE = """
import os, time
lost = 0
for k in range(25):
    pids = []
    start = time.monotonic() + 0.01
    for _ in range(4):
        if pid := os.fork():
            pids.append(pid)
            continue
        while time.monotonic() < start:
            pass
        try:
            sweeps = SqliteLedger(folder / f"{k}.db", folder / "runs").sweeps()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    lost += sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
print(lost)
"""


def test_processes_that_make_the_same_ledger_at_once(tmp_path: Path) -> None:
    # Many tries: what can go wrong here lies between two reads of one of them.
    script = PROLOGUE.partition("ledger =")[0] + MAKE
    argv = [sys.executable, "-c", script, str(tmp_path), "-", "p"]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=250).stdout == "0\n"


def test_kill_9_in_the_middle_loses_nothing_that_was_told(tmp_path: Path) -> None:
    luck = random.Random(7)
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(400)).uid
    told: list[int] = []
    for round_ in range(4):
        worker = child(LOOP, tmp_path, uid, f"p{round_}")
        assert worker.stdout and worker.stdin
        count = luck.randint(1, 60)
        worker.stdin.write("go\n" * (count + 20))  # how far it may come before it is killed: never to its end
        worker.stdin.flush()
        told += [int(worker.stdout.readline()) for _ in range(count)]
        worker.kill()
        told += [int(line) for line in worker.communicate()[0].splitlines()]
        raw = sqlite3.connect(tmp_path / "ledger.db")
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        raw.close()
        with opened(tmp_path) as ledger:
            again = ledger.requeue(uid, state="interrupted", why="killed")
            assert not set(again) & set(told)
    assert len(told) == len(set(told))
    with opened(tmp_path) as ledger:
        succeeded = {trial.number for trial in ledger.trials(uid, states=["succeeded"])}
        assert set(told) <= succeeded
        accepted = [attempt.trial for attempt in ledger.attempts(uid) if attempt.accepted]
        assert sorted(accepted) == sorted(succeeded)


def test_ends_are_synced_soon_without_being_asked(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(1)).uid
    with opened(tmp_path) as ledger:
        grant = ledger.claim(uid, 1, HOST, "0", "c")
        assert isinstance(grant, Grant)
        disk = ledger._db._disk
        assert disk._unsynced and disk._thread is None  # a claim alone waits for the next sync
        ledger.finish(grant.token, Outcome("succeeded"))
        wait_until(lambda: not disk._unsynced, what="the end is synced")


def test_the_wal_does_not_grow_for_ever(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(10)).uid
        wal = tmp_path / "ledger.db-wal"
        for _ in range(3):
            ledger._db._disk._since_checkpoint = 10**6  # as after a thousand transactions
            ledger.pause(uid)
            wait_until(lambda: ledger._db._disk._since_checkpoint < 10**6, what="a checkpoint began")
            ledger.open(uid)
        size = wal.stat().st_size
        for _ in range(3):
            ledger.pause(uid)
            ledger.open(uid)
        assert wal.stat().st_size <= size + 100_000


def test_100_000_trials_are_submitted_in_flat_memory(tmp_path: Path) -> None:
    submit = """
import resource
from sweepfw.core.model import Draft, Spec
from sweepfw.core.values import Number
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ledger.submit(Spec("p", "t", ("x",)), "s", [Draft({"i": Number("0")})])
before = peak()
drafts = (Draft({"i": Number(str(i)), "opt": "adam"}) for i in range(100_000))
total = ledger.submit(Spec("p", "t", ("x",)), "s", drafts).total
print(json.dumps([total, peak() - before]))
"""
    total, grown = json.loads(child(submit, tmp_path, "-", "p").communicate(timeout=250)[0])
    assert total == 100_000
    assert grown < 15_000  # KB
