"""Secrets on a worker that says all it can: trials get them, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_lab
from canary import Cage, hard, word
from canary_project import sha
from packages import wheel
from worker_fixtures import Work, ended
from worker_lab import HeadLab, WorkerLab, requirements, until

from sweepfw.core.model import Sweep
from sweepfw.core.secrets import Need

TALKATIVE = "import logging, sys; logging.basicConfig(stream=sys.stdout, level=logging.DEBUG)\n"
WHEEL = "tiny-1.0-py3-none-any.whl"
NEEDS = (Need("TOKEN", "env"), Need("HARD", "env", variable="OTHER"), Need("key.pem", "file"))
TELL = """
printf '%s' "$TOKEN" | sha256sum
printf '%s' "$OTHER" | sha256sum
sha256sum <"$SWEEPFW_SECRETS/key.pem"
stat -c %a "$SWEEPFW_SECRETS" "$SWEEPFW_SECRETS/key.pem"
echo "this is $TOKEN, $OTHER"; cat "$SWEEPFW_SECRETS/key.pem" >&2
echo "$SWEEPFW_SECRETS" >>"$WITNESS"
"""


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers log all that Celery, kombu and amqp have to say."""
    monkeypatch.setattr(worker_lab, "START", TALKATIVE + worker_lab.START)


@pytest.fixture
def values() -> dict[str, str]:
    return {"TOKEN": f"sk-{word()}", "HARD": hard(), "key.pem": f"--- KEY ---\n{word()}\n{hard()}\n"}


@pytest.fixture
def cage(values: dict[str, str]) -> Cage:
    return Cage({name: value.removeprefix("--- KEY ---\n") for name, value in values.items()})


def give(head: HeadLab, sweep: Sweep, values: dict[str, str]) -> None:
    head.desk.put_secrets(sweep.uid, {name: value.encode() for name, value in values.items()})


def submit(head: HeadLab, values: dict[str, str], script: str = TELL, **more: object) -> Sweep:
    witness = (("WITNESS", str(head.folder / "witness")),)
    return head.submit(script, secrets=NEEDS, variables=witness, values=values, **more)


def look_everywhere(cage: Cage, head: HeadLab, *workers: WorkerLab) -> None:
    """On the disks of head and workers, but for the place where the head keeps them."""
    cage.look_at_files("disk of the head", head.place.root, but=[head.place.state / "secrets"])
    cage.look("what the head said", "log", "\n".join(head.said))
    for worker in workers:
        cage.look_at_files("disk of a worker", worker.root)


def folders(head: HeadLab) -> list[str]:
    return (head.folder / "witness").read_text().split()


def test_trials_get_them_and_nothing_else_does(
    head: HeadLab, work: Work, talkative: None, values: dict[str, str], cage: Cage
) -> None:
    worker = work("a")
    with cage.watching_processes(lambda environment: b"SWEEPFW_SECRETS" in environment):
        sweep = submit(head, values, TELL + f"sleep 0.5\n: {cage.control}", trials=3)
        ended(head, sweep)
    assert head.states(sweep) == ["succeeded"] * 3
    for trial in (1, 2, 3):
        log = head.log(sweep, trial).decode()
        for name in ("TOKEN", "HARD", "key.pem"):
            assert sha(values[name]) in log, log
        assert log.endswith("\n700\n400\nthis is ***, ***\n***\n"), log
    assert len(set(folders(head))) == 3
    assert not any(os.path.exists(folder) for folder in folders(head))  # texts
    worker.stop()
    look_everywhere(cage, head, worker)
    assert b"DEBUG" in worker.log.read_bytes()
    cage.empty()
    assert cage.seen >= {"disk of the head", "disk of a worker"}  # the script is in the snapshot


def test_the_next_attempt_gets_what_was_given_last(
    head: HeadLab, work: Work, values: dict[str, str], cage: Cage
) -> None:
    """Also where it runs in the same slot of the same worker."""
    worker = work("a", slots=1)
    sweep = submit(head, values, 'printf %s "$TOKEN" | sha256sum; exit 3')
    ended(head, sweep)
    newer = values | {"TOKEN": f"sk-{word()}"}
    give(head, sweep, newer)
    head.ledger.reopen(sweep.uid, ["failed"])
    head.ledger.open(sweep.uid)
    until(
        lambda: len(head.attempts(sweep)) == 2 and head.states(sweep) == ["failed"], what="a second attempt"
    )
    assert sha(values["TOKEN"]) in head.log(sweep, 1, 1).decode()
    assert sha(newer["TOKEN"]) in head.log(sweep, 1, 2).decode()
    worker.stop()
    cage.needles |= Cage(newer).needles
    look_everywhere(cage, head, worker)
    cage.empty()


def test_without_them_it_does_not_begin_and_says_what_to_do(
    head: HeadLab, work: Work, values: dict[str, str]
) -> None:
    work("a")
    sweep = head.submit(TELL, secrets=NEEDS)
    ended(head, sweep)
    (attempt,) = head.attempts(sweep)
    assert (attempt.state, attempt.reason) == ("failed", "setup failed")
    said = f"secrets of {sweep.name} are not at the head; send them with: sweepfw retry {sweep.name}"
    assert attempt.outcome["error"]["text"] == said
    assert head.log(sweep).decode() == f"sweepfw: {said}\n"
    other = submit(head, {name: value for name, value in values.items() if name != "HARD"})
    ended(head, other)
    assert "are not at the head: HARD; send" in head.attempts(other)[0].outcome["error"]["text"]


def test_a_worker_that_was_killed_leaves_none_and_its_successor_asks_again(
    head: HeadLab, work: Work, values: dict[str, str], cage: Cage
) -> None:
    worker = work("a", slots=1)
    sweep = submit(head, values, TELL + 'test "$SWEEPFW_ATTEMPT" = 2 || sleep 600')
    witness = head.folder / "witness"
    until(lambda: witness.exists() and witness.read_text().endswith("\n"), what="a trial with secrets")
    worker.kill()
    until(lambda: not worker.locked(), what="an end of all that it started")
    (folder,) = folders(head)
    until(lambda: not Path(folder).exists(), what="an end of the folder in memory")
    look_everywhere(cage, head, worker)
    worker.start()
    ended(head, sweep)
    assert head.states(sweep) == ["succeeded"]
    cage.empty()


@pytest.fixture
def pip_conf() -> Iterator[tuple[str, str]]:
    """A configuration of pip's, and the password in it."""
    password = word()
    yield (
        f"[global]\nindex-url = http://u:{password}@127.0.0.1:9/simple/\nverbose = 3\nretries = 0\n",
        password,
    )


def test_environments_are_built_with_them(
    head: HeadLab, work: Work, talkative: None, pip_conf: tuple[str, str]
) -> None:
    """One is built; of the other, what pip says of its end shows the index and no password."""
    conf, password = pip_conf
    cage = Cage({"the password in pip.conf": password})
    worker = work("a", path="/usr/bin:/bin")  # no uv
    needs = (Need("pip.conf", "file"),)
    script = 'set -e; test -r "$PIP_CONFIG_FILE"; python -c "import tiny"; cat "$SWEEPFW_SECRETS/pip.conf"'

    def built(wanted: str, **files: bytes) -> Sweep:
        return head.submit(
            script,
            files={"requirements.txt": wanted, **files},
            environment=requirements(),
            secrets=needs,
            values={"pip.conf": conf},
        )

    with cage.watching_processes(lambda environment: b"SWEEPFW_SECRETS" in environment):
        good = built(f"./{WHEEL}\n", **{WHEEL: wheel()})
        bad = built("no-such-package-of-ours\n")
        ended(head, good, bad, seconds=120)
    assert head.states(good) == ["succeeded"], head.log(good)
    assert head.log(good) == b"***\n", head.log(good)
    assert head.attempts(bad)[0].reason == "setup failed"
    assert b"127.0.0.1:9" in head.log(bad)  # pip was sent there
    worker.stop()
    look_everywhere(cage, head, worker)
    assert b"DEBUG" in worker.log.read_bytes()
    cage.empty()


def test_what_a_lost_attempt_reported_comes_to_the_head_masked(
    head: HeadLab, work: Work, values: dict[str, str], cage: Cage
) -> None:
    worker = work("a", slots=1)
    report = 'printf \'{"%s": 1}\\n{"loss": 2}\\n\' "$TOKEN" >>"$SWEEPFW_METRICS"\n'
    sweep = submit(head, values, report + '[ "$SWEEPFW_ATTEMPT" = 2 ] || kill -9 $PPID')
    ended(head, sweep)
    assert [attempt.state for attempt in head.attempts(sweep)] == ["lost", "succeeded"]
    for attempt in (1, 2):
        told = (head.kept(sweep, 1, attempt) / "metrics.jsonl").read_text()
        assert told == f'{{"{"*" * len(values["TOKEN"])}": 1}}\n{{"loss": 2}}\n', attempt
    worker.stop()
    look_everywhere(cage, head, worker)
    cage.empty()
