"""Workers, links, broker and head that die: no trial is lost, doubled or stuck, and nothing lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from broker_lab import Broker
from worker_fixtures import MARK, SLEEP, Work, announced, ended
from worker_lab import HeadLab, WorkerLab, processes, until

from sweepfw.core.model import Sweep

COUNT = "for n in $(seq 1 40); do echo line $n; sleep 0.1; done"
LINES = b"".join(b"line %d\n" % n for n in range(1, 41))


def starts(sweep: Sweep, head: HeadLab) -> list[str]:
    return [f"{attempt.trial}/{attempt.number} {attempt.state}" for attempt in head.attempts(sweep)]


def begun(head: HeadLab, sweep: Sweep, text: bytes, *, trial: int = 1, attempt: int = 1) -> None:
    until(lambda: head.log(sweep, trial, attempt).startswith(text), what=f"{text!r} in the log")


def family(pid: int) -> list[tuple[int, str]]:
    """The guardian and the keepers below a worker: pid and name."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True).stdout
    rows = [row.split(maxsplit=2) for row in told.splitlines()[1:]]
    guards = [row for row in rows if int(row[1]) == pid and row[2].startswith("sweepfw-guard")]
    keepers = [row for row in rows if row[1] in [guard[0] for guard in guards]]
    return [(int(row[0]), row[2]) for row in guards + keepers]


def expire(head: HeadLab, sweep: Sweep) -> None:
    """Wait until the lease has run out of its one attempt, of which nobody hears any more."""
    leases = head.ledger.leases
    whole, leases.length = leases.length, 8
    [attempt] = head.attempts(sweep)
    leases.hold(attempt.token)
    until(lambda: head.states(sweep) == ["queued"], what="the end of its lease")
    leases.length = whole


# -- the worker ----------------------------------------------------------------------------------------


def test_nothing_outlives_a_killed_worker_and_its_trial_runs_again(head: HeadLab, work: Work) -> None:
    worker = work("a", slots=1)
    hidden = f"setsid -f env -i {SLEEP}; ({SLEEP} &)"
    sweep = head.submit(f'[ "$SWEEPFW_ATTEMPT" = 2 ] || {{ {hidden}; echo here; {SLEEP}; }}')
    begun(head, sweep, b"here")
    until(lambda: len(processes(MARK)) == 3, what="all that it hides")
    worker.kill()
    until(lambda: not processes(MARK), what="the end of all that it ran")
    worker.start()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 lost", "1/2 succeeded"]


def test_an_end_that_was_written_and_not_told_is_told_by_the_successor(head: HeadLab, work: Work) -> None:
    """Killed after its trial's end, while the head can't be reached: the trial does not run again."""
    worker = work("a", slots=1)
    go = head.folder / "go"
    sweep = head.submit(
        f'echo here; until [ -e {go} ]; do sleep 0.05; done; seq 1 1000; echo x > "$SWEEPFW_OUTPUT/f"; exit 3'
    )
    begun(head, sweep, b"here")
    head.line.freeze()
    go.touch()
    until((worker.place.attempt(sweep.name, 1, 1) / "outcome.json").exists, what="the outcome")
    worker.kill()
    head.line.thaw()
    worker.start()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 failed"]
    assert head.attempts(sweep)[0].exit_code == 3
    assert head.log(sweep) == b"here\n" + b"".join(b"%d\n" % n for n in range(1, 1001))
    assert (head.kept(sweep) / "files/f").read_text() == "x\n"


def test_a_worker_that_is_told_to_stop_gives_its_trials_back_soon(head: HeadLab, work: Work) -> None:
    worker = work("a")
    sweep = head.submit(f'[ "$SWEEPFW_ATTEMPT" = 2 ] || {{ echo here; trap "" TERM; {SLEEP}; {SLEEP}; }}', 2)
    begun(head, sweep, b"here")
    begun(head, sweep, b"here", trial=2)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert sorted(starts(sweep, head)) == ["1/1 interrupted", "2/1 interrupted"]
    assert [trial.state for trial in head.ledger.trials(sweep.uid)] == ["queued", "queued"]
    assert processes(MARK) == []
    worker.start()
    ended(head, sweep)
    assert head.states(sweep) == ["succeeded", "succeeded"]


def test_a_worker_that_can_tell_nobody_ends_all_the_same(head: HeadLab, work: Work) -> None:
    worker = work("a", slots=1, parting=4)
    sweep = head.submit(f'[ "$SWEEPFW_ATTEMPT" = 2 ] || {{ echo here; {SLEEP}; }}')
    begun(head, sweep, b"here")
    head.line.target = ("127.0.0.1", 1)
    head.line.cut()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert processes(MARK) == []
    head.line.target = head.service.address
    worker.start()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 interrupted", "1/2 succeeded"]


def test_a_drained_worker_ends_when_its_trials_do(head: HeadLab, work: Work) -> None:
    worker = work("a", slots=1)
    go = head.folder / "go"
    sweep = head.submit(f"echo here; until [ -e {go} ]; do sleep 0.05; done", 2)
    begun(head, sweep, b"here")
    worker.signal(signal.SIGUSR1)
    until(lambda: not head.desk.status().workers[0].alive, what="a head that sends nothing more")
    go.touch()
    assert worker.wait() == 0
    assert starts(sweep, head) == ["1/1 succeeded"]
    assert head.states(sweep) == ["succeeded", "queued"]


def test_a_killed_keeper_costs_its_own_trial_only(head: HeadLab, work: Work) -> None:
    worker = work("a")
    go, keeper = head.folder / "go", head.folder / "keeper"
    script = f'[ "$SWEEPFW_ATTEMPT" = 2 ] && exit; echo $PPID >{keeper}-$i; echo here; [ $i = 2 ] || {SLEEP}'
    sweep = head.submit(f"{script}; until [ -e {go} ]; do sleep 0.05; done", 2)
    begun(head, sweep, b"here")
    begun(head, sweep, b"here", trial=2)
    pid = int(Path(f"{keeper}-1").read_text())
    assert worker.process is not None and pid in dict(family(worker.process.pid))
    os.kill(pid, signal.SIGKILL)
    until(lambda: "1/1 lost" in starts(sweep, head), what="its trial's loss")
    go.touch()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 lost", "1/2 succeeded", "2/1 succeeded"]
    assert processes(MARK) == []


def test_a_worker_without_its_guardian_ends(head: HeadLab, work: Work) -> None:
    worker = work("a")
    sweep = head.submit(f'[ "$SWEEPFW_ATTEMPT" = 2 ] || {{ echo here; {SLEEP}; }}')
    begun(head, sweep, b"here")
    assert worker.process is not None
    os.kill(family(worker.process.pid)[0][0], signal.SIGKILL)
    assert worker.wait() == 1
    until(lambda: not processes(MARK), what="the end of all that it ran")
    worker.start()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 lost", "1/2 succeeded"]


def test_a_second_worker_on_the_same_state_waits_and_refuses(head: HeadLab, work: Work) -> None:
    first = work("a")
    second = WorkerLab(head, "a")
    assert second.wait() != 0
    assert "another worker runs here" in second.log.read_text()
    assert first.process is not None and first.process.poll() is None


# -- the links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_trial_does_not_notice_that_the_head_is_away(head: HeadLab, work: Work, how: str) -> None:
    work("a")
    sweep = head.submit(COUNT)
    begun(head, sweep, b"line 1\n")
    if how == "cut":
        head.line.target = ("127.0.0.1", 1)
        head.line.cut()
        time.sleep(5)
        head.line.target = head.service.address
    else:
        head.line.freeze()
        time.sleep(5)
        head.line.thaw()
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 succeeded"]
    assert head.log(sweep) == LINES


def test_a_trial_does_not_notice_that_the_head_is_restarted(head: HeadLab, work: Work) -> None:
    worker = work("a")
    sweep = head.submit(COUNT, 3)
    begun(head, sweep, b"line 1\n")
    head.stop()
    head.start()
    ended(head, sweep)
    assert starts(sweep, head) == [f"{n}/1 succeeded" for n in (1, 2, 3)]
    assert all(head.log(sweep, n) == LINES for n in (1, 2, 3)), worker.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("wiped", [False, True])
def test_a_broker_that_restarts_starts_no_second_copy(
    broker: Broker, head: HeadLab, work: Work, wiped: bool
) -> None:
    work("a")
    witness = head.folder / "witness"
    sweep = head.submit(f'echo "$i" >> {witness}; {COUNT}', 4)
    begun(head, sweep, b"line 1\n")
    broker.close_connections()
    time.sleep(1)
    broker.restart(wiped=wiped)
    ended(head, sweep)
    assert sorted(witness.read_text().split()) == ["1", "2", "3", "4"]
    assert starts(sweep, head) == [f"{n}/1 succeeded" for n in (1, 2, 3, 4)]


def test_a_frozen_worker_that_wakes_beside_its_successor_is_told_to_stop(head: HeadLab, work: Work) -> None:
    frozen = work("a", slots=1)
    sweep = head.submit(f'echo "on $SWEEPFW_ATTEMPT"; [ "$SWEEPFW_ATTEMPT" = 2 ] || {SLEEP}')
    begun(head, sweep, b"on 1")
    assert frozen.process is not None
    everyone = [frozen.process.pid, *(pid for pid, _ in family(frozen.process.pid))]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    expire(head, sweep)
    work("b", slots=1)
    ended(head, sweep)
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not processes(MARK), what="the end of the old copy")
    until(lambda: starts(sweep, head) == ["1/1 stale", "1/2 succeeded"], what="its late end is heard")
    assert [attempt.host for attempt in head.attempts(sweep) if attempt.accepted] == ["b"]
    announced(head, frozen)


# -- checkpoints ---------------------------------------------------------------------------------------

SAVING = """
n=$(cat "$SWEEPFW_CHECKPOINT/n" 2>/dev/null || echo 0)
echo "from $n"
while [ $n -lt 3 ]; do
  n=$((n + 1)); echo $n > "$SWEEPFW_CHECKPOINT/new"; mv "$SWEEPFW_CHECKPOINT/new" "$SWEEPFW_CHECKPOINT/n"
  ln -sf n "$SWEEPFW_CHECKPOINT/latest"; mkfifo "$SWEEPFW_CHECKPOINT/pipe" 2>/dev/null
  [ $n = 2 ] && [ "$SWEEPFW_ATTEMPT" = 1 ] && { echo saved; %s; }
done
cat "$SWEEPFW_CHECKPOINT/latest"
"""


def saved(head: HeadLab, sweep: Sweep) -> bytes:
    """How far the trial's checkpoint is that the head has."""
    path = head.place.trial(sweep.name, 1) / "checkpoint.tar"
    if not path.exists():
        return b""
    with tarfile.open(path) as tar:
        file = tar.extractfile("n") if "n" in tar.getnames() else None
        return file.read() if file else b""


def test_a_checkpoint_moves_to_the_other_host(head: HeadLab, work: Work) -> None:
    first = work("a", slots=1)
    sweep = head.submit(SAVING % SLEEP, checkpoint_every=0.5)
    begun(head, sweep, b"from 0\nsaved")
    until(lambda: saved(head, sweep) == b"2\n", what="the checkpoint")
    first.kill()
    head.desk.drain("a")  # else the head believes in it for some time
    expire(head, sweep)
    work("b", slots=1)
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 lost", "1/2 succeeded"]
    assert head.log(sweep, 1, 2) == b"from 2\n3\n"


def test_a_checkpoint_is_sent_when_an_attempt_ends(head: HeadLab, work: Work) -> None:
    first = work("a", slots=1)
    sweep = head.submit(SAVING % SLEEP)
    begun(head, sweep, b"from 0\nsaved")
    first.stop()
    work("b", slots=1)
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 interrupted", "1/2 succeeded"]
    assert head.log(sweep, 1, 2) == b"from 2\n3\n"


def test_the_same_host_goes_on_from_its_own_checkpoint(head: HeadLab, work: Work) -> None:
    worker = work("a", slots=1)
    sweep = head.submit(SAVING % "exit 1", retries=(("*", 1),))
    ended(head, sweep)
    assert starts(sweep, head) == ["1/1 failed", "1/2 succeeded"]
    assert head.log(sweep, 1, 2) == b"from 2\n3\n"
    until(lambda: not (worker.place.trial(sweep.name, 1) / "checkpoint").exists(), what="its end")
