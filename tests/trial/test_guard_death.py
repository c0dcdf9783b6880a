"""What dies is dead: no end of a trial, and no death of ours, leaves a process of it behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guard_lab import Lab, alive, children_of, gone, lab_in, mark

from sweepfw.trial.guard.client import KeeperDied

HERD = str(Path(__file__).with_name("herd.py"))
CLIENT = str(Path(__file__).with_name("herd_client.py"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_in(tmp_path, slots=2)


def test_normal_end(lab: Lab) -> None:
    word = mark()
    outcome, folder = lab.run(sys.executable, HERD, word, "exit")
    assert not alive(word), "at once: the end is told after the last one died"
    assert outcome["exit_code"] == 0
    assert outcome["survivors"] == []
    assert (folder / "output.log").read_text() == "ready\n"


def test_timeout(lab: Lab) -> None:
    word = mark()
    for timeout in (2, 10, 50):  # until the whole herd lives by then
        lab.setup(timeout=timeout, grace=0.3)
        outcome, folder = lab.run(sys.executable, HERD, word, "hang")
        assert not alive(word)
        if printed := (folder / "output.log").read_text():
            break
    assert (printed, outcome["ended_by"], outcome["signal"]) == ("ready\n", "timeout", 9)
    assert timeout + 0.2 < outcome["seconds"] < timeout + 50


def test_stop(lab: Lab) -> None:
    word = mark()
    folder = lab.start(sys.executable, HERD, word, "hang")
    lab.wait_for(b"ready", folder)
    assert len(alive(word)) > 5
    lab.keeper.stop("the user's wish", 0.2)
    outcome = lab.end()
    assert not alive(word)
    assert (outcome["ended_by"], outcome["why"], outcome["signal"]) == ("stop", "the user's wish", 9)


def test_a_second_stop_shortens_the_first(lab: Lab) -> None:
    folder = lab.start("sh", "-c", "trap '' TERM; echo ready; for i in $(seq 2000); do sleep 0.1; done")
    lab.wait_for(b"ready", folder)
    lab.keeper.stop("first", 1000)
    lab.keeper.stop("second", 0)
    outcome = lab.end()
    assert (outcome["why"], outcome["signal"]) == ("first", 9)


def test_a_stop_lets_the_trial_save_its_work_though_its_shell_dies_at_once(lab: Lab) -> None:
    program = (
        "import os, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.3); open('../files/saved', 'w').close(); print('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save); print('ready', flush=True); time.sleep(250)\n"
    )
    folder = lab.start("sh", "-c", '"$0" -c "$1"; echo never', sys.executable, program)
    lab.wait_for(b"ready", folder)
    lab.keeper.stop("pause", 200)
    outcome = lab.end(seconds=100)  # the grace ends when all have ended
    assert (folder / "files/saved").exists()
    assert (folder / "output.log").read_text() == "ready\nsaved\n"
    assert outcome["signal"] == signal.SIGTERM


def test_a_stop_while_the_trial_is_prepared(lab: Lab) -> None:
    lab.start("sleep", "600")
    lab.keeper.stop("early", 0)
    assert lab.end()["ended_by"] == "stop"


def test_a_fork_bomb(lab: Lab) -> None:
    """Whose dead take no place: what the machine has room for is everybody's."""
    word = mark()
    bomb = (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "end = time.monotonic() + 60\nfor _ in range(7): os.fork()\nprint(flush=True)\n"
        "while time.monotonic() < end: os.fork() or os._exit(0)"
    )
    folder = lab.start(sys.executable, "-c", bomb, word)
    lab.wait_for(b"\n", folder)
    lab.keeper.stop("bomb", 0)
    assert lab.end(seconds=120)["survivors"] == []
    assert not alive(word)


def test_orphans_that_ended_are_not_left_as_zombies_to_the_next(lab: Lab) -> None:
    lab.sh("for i in 1 2 3; do (setsid true &) ; done; (sleep 0.01 &)")
    assert all(not children_of(pid) for pid in children_of(lab.guardian.pid))


def test_a_dead_keeper_takes_its_trial_along_and_no_other(lab: Lab) -> None:
    word, neighbour = mark(), mark()
    folder = lab.start(sys.executable, HERD, word, "hang")
    other = lab.start(
        "sh",
        "-c",
        f"echo ready; for i in $(seq 20000); do test -e go && break; sleep 0.01; done; : {neighbour}",
        keeper=lab.keepers[1],
    )
    lab.wait_for(b"ready", folder)
    lab.wait_for(b"ready", other)
    os.kill(_keeper_of(lab, word), signal.SIGKILL)
    with pytest.raises(KeeperDied):
        while lab.keeper.receive(60):
            pass
    assert not alive(word), "at once: the death is told after the last one died"
    assert not (folder / "outcome.json").exists()
    assert alive(neighbour)
    (other / "work/go").touch()
    assert lab.end(lab.keepers[1])["exit_code"] == 0
    lab.keeper = lab.guardian.revive(0)
    assert lab.sh("true")[0]["exit_code"] == 0


def _keeper_of(lab: Lab, word: str) -> int:
    return next(
        keeper for keeper in children_of(lab.guardian.pid) if set(children_of(keeper)) & set(alive(word))
    )


def test_the_death_of_the_guardian_is_told_and_kills(lab: Lab, wait_until: Callable[..., None]) -> None:
    word, told = mark(), list[int]()
    lab.guardian.watch(lambda: told.append(1))
    folder = lab.start(sys.executable, HERD, word, "hang")
    lab.wait_for(b"ready", folder)
    os.kill(lab.guardian.pid, signal.SIGKILL)
    gone(word)
    with pytest.raises(KeeperDied):
        while lab.keeper.receive(60):
            pass
    wait_until(lambda: told)


def test_close_kills_and_is_quick(lab: Lab) -> None:
    word = mark()
    folder = lab.start(sys.executable, HERD, word, "hang")
    lab.wait_for(b"ready", folder)
    lab.guardian.close()
    assert not alive(word)


STOOD_STILL = """
import subprocess, time
from itertools import count
from sweepfw.trial.guard import reap
leaps = count(0, 1000)
reap.time.monotonic = lambda: next(leaps)
for _ in range(30):
    subprocess.Popen(["sleep", "600"])
print(reap.kill_children(seconds=1))
"""


def test_a_machine_that_stood_still_does_not_end_the_killing() -> None:
    """What could not die meanwhile is not given up for that."""
    told = subprocess.run([sys.executable, "-c", STOOD_STILL], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


class Client:
    """`herd_client.py` in a process of its own: two trials hang, and it holds a lock."""

    def __init__(self, root: Path) -> None:
        self.word, self.lock = mark(), root / "lock"
        self.process = subprocess.Popen(
            [sys.executable, CLIENT, str(root), self.word, HERD], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.guardian = int(self.process.stdout.readline())
        self.keepers = children_of(self.guardian)

    def holds_the_lock(self) -> bool:
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path)
    assert len(alive(client.word)) > 12
    assert client.holds_the_lock()
    yield client
    client.process.kill()
    client.process.wait()
    while left := alive(client.word):  # the test failed
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "victims",
    [
        lambda c: [c.process.pid],
        lambda c: [c.guardian],
        lambda c: [c.process.pid, c.guardian],
        lambda c: [c.guardian, c.process.pid],
        lambda c: [c.guardian, c.keepers[0]],
        lambda c: [c.process.pid, *c.keepers],
        lambda c: [c.guardian, *c.keepers],
    ],
    ids=[
        "client",
        "guardian",
        "client guardian",
        "guardian client",
        "guardian keeper",
        "client keepers",
        "all ours",
    ],
)
def test_killed(
    client: Client, victims: Callable[[Client], list[int]], wait_until: Callable[..., None]
) -> None:
    for victim in victims(client):
        with contextlib.suppress(ProcessLookupError):  # it went with the one before
            os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not client.holds_the_lock(), what="the lock is free, since nothing can live")
    client.process.wait(60)
    gone(client.word)


def test_the_lock_outlives_a_killed_client_as_long_as_a_trial_may_live(
    client: Client, wait_until: Callable[..., None]
) -> None:
    def is_free() -> bool:
        free = not client.holds_the_lock()
        assert not (free and alive(client.word)), "it was free while a trial lived"
        return free

    for keeper in client.keepers:
        os.kill(keeper, signal.SIGSTOP)
    client.process.kill()
    client.process.wait()
    is_free()
    for keeper in client.keepers:
        with contextlib.suppress(ProcessLookupError):  # the guardian does not wait for ever
            os.kill(keeper, signal.SIGCONT)
    wait_until(is_free)


def test_frozen_keepers_do_not_save_their_trials(client: Client) -> None:
    for keeper in client.keepers:
        os.kill(keeper, signal.SIGSTOP)
    client.process.kill()
    gone(client.word)
