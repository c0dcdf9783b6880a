"""logs: what a trial printed, byte for byte, and as it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from workspaces import SPEC, Made, call, digits, make

from sweepfw.cli.log import Log
from sweepfw.core.model import Outcome
from sweepfw.engine.lock import SweepLock
from sweepfw.errors import SweepError
from sweepfw.trial.guard.log import BoundedLog


@pytest.fixture
def made(workspace_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.chdir(workspace_folder)
    made = make(workspace_folder)
    yield made
    made.ledger.disconnect()


EVERY_BYTE = bytes(range(256)) * 3 + b"\x1b]0;owned\x07\x1b[2J no end"


def test_bytes_are_as_they_were(made: Made, workspace_folder: Path) -> None:
    sweep = made.sweep([{"x": 1}])
    made.attempt(sweep, 1, log=EVERY_BYTE)
    command = [sys.executable, "-m", "sweepfw", "logs", f"{sweep.name}/1"]
    assert subprocess.run(command, cwd=workspace_folder, capture_output=True, check=True).stdout == EVERY_BYTE


def test_a_terminal_is_not_harmed(made: Made, workspace_folder: Path) -> None:
    sweep = made.sweep([{"x": 1}])
    made.attempt(
        sweep, 1, log=b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J\x07 bar\rdone \xe2\x80\xaeevil\xff\n"
    )
    child = pexpect.spawn(
        sys.executable, ["-m", "sweepfw", "logs", f"{sweep.name}/1"], cwd=str(workspace_folder), timeout=60
    )
    child.expect(pexpect.EOF)
    assert child.before == (
        "\x1b[31mred\x1b[0m \\x07 bar\r\ndone \\u202eevil\N{REPLACEMENT CHARACTER}\r\n".encode()
    )


def test_which_attempt(made: Made) -> None:
    sweep = digits(made)
    made.ledger.reopen(sweep.uid, ["failed"])
    made.attempt(sweep, 3, log=b"second\n")
    assert call("logs", "digits-1/3").stdout == "second\n"
    assert call("logs", "digits-1/3", "--attempt", "1").stdout == "Traceback\nValueError\n"
    with pytest.raises(SweepError, match="no attempt 3; it had 2"):
        call("logs", "digits-1/3", "--attempt", "3")


def test_before_the_first_attempt(made: Made) -> None:
    made.sweep([{"x": 1}])
    with pytest.raises(SweepError, match="has not started"):
        call("logs", "digits-1/1")
    with pytest.raises(SweepError, match="expected SWEEP/N"):
        call("logs", "digits-1")


def test_following_goes_on_to_the_next_attempt(
    made: Made, start_sweepfw: Callable, wait_until: Callable, tmp_path: Path
) -> None:
    sweep = made.sweep([{"x": 1}])
    lock = SweepLock.acquire(made.place, sweep.uid)
    seen = tmp_path / "seen"
    with seen.open("wb") as out:
        following = start_sweepfw("logs", "-f", f"{sweep.name}/1", stdout=out)
        for end, again in (("failed", True), ("succeeded", False)):
            grant = made.attempt(sweep, 1, state=None)
            log = made.place.attempt(sweep.name, 1, grant.attempt) / "output.log"
            for word in (b"one ", b"two\n"):
                with log.open("ab") as file:
                    file.write(word)
                wait_until(lambda word=word: seen.read_bytes().endswith(word), what=f"{end}: {word!r}")
            made.ledger.finish(grant.token, Outcome(end, "exit 1" if again else "", again=again))
        assert following.wait(120) == 0
    lock.release()
    assert seen.read_bytes() == b"one two\none two\n"
    assert "begins its attempt 2" in following.stderr.read()


def test_following_what_nobody_runs_ends(made: Made, sweepfw: Callable) -> None:
    sweep = made.sweep([{"x": 1}])
    done = sweepfw("logs", "-f", f"{sweep.name}/1")
    assert done.returncode == 3 and f"`sweepfw resume {sweep.name}` does" in done.stderr


def test_following_what_has_ended(made: Made) -> None:
    digits(made)
    assert call("logs", "-f", "digits-1/1").stdout == "epoch 1\nepoch 2\n"


def text(count: int, begin: int = 0) -> bytes:
    """Output in which every place is recognised."""
    return b"".join(b"%07d\n" % n for n in range(begin, begin + count))


@given(
    limit=st.integers(2, 400),
    steps=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=20),
)
@example(limit=400, steps=[(38, True), (20, False)])  # seen up to byte 304; the last half begins before that
@example(limit=400, steps=[(38, True), (80, True), (9, False)])  # and after it
def test_a_log_that_turns_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, limit: int, steps: list[tuple[int, bool]]
) -> None:
    """Whenever it was looked at: what was handed on is the output, with one gap at most, which is told."""
    path = tmp_path_factory.mktemp("log") / "output.log"
    writer, reader = BoundedLog(os.fspath(path), limit), Log(path, limit)
    seen: list[bytes] = []
    written = b""
    for count, look in steps:
        data = text(count, begin=len(written) // 8)
        writer.write(data)
        written += data
        while look and reader.read(seen.append, ended=False):
            pass
    writer.close()
    reader.read(seen.append, ended=True)
    assert not reader.read(seen.append, ended=True)
    shown = b"".join(seen)
    before, mark, after = shown.partition(b"\n[sweepfw: ")
    if not mark:
        assert shown == written
        return
    told, _, last = after.partition(b" bytes left out here; log_limit is %d]\n" % limit)
    assert len(before) >= limit // 2 and len(last) <= limit - limit // 2
    assert written == before + written[len(before) : len(before) + int(told)] + last


def test_the_log_limit_is_the_sweeps(made: Made) -> None:
    sweep = made.sweep([{"x": 1}], replace(SPEC, log_limit=100))
    grant = made.attempt(sweep, 1, state=None)
    path = made.place.attempt(sweep.name, 1, grant.attempt) / "output.log"
    path.unlink()
    log = BoundedLog(os.fspath(path), 100)
    log.write(text(100))
    assert call("logs", f"{sweep.name}/1").stdout.encode() == text(100)[:50]  # the rest still turns
    log.close()
    made.ledger.finish(grant.token, Outcome("succeeded"))
    shown = call("logs", f"{sweep.name}/1").stdout.encode()
    assert (
        shown.startswith(text(100)[:50])
        and shown.endswith(text(100)[-50:])
        and b"700 bytes left out" in shown
    )


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_a_trial_put_in_the_place_of_its_log_counts_as_not_there(made: Made, kind: str) -> None:
    """It must not end what shows the logs of all the others."""
    sweep = made.sweep([{"x": 1}])
    grant = made.attempt(sweep, 1, log=b"its own\n")
    path = made.place.attempt(sweep.name, 1, grant.attempt) / "output.log"
    path.unlink()
    make = {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    shown = Log(path, 1000)
    assert not shown.read(lambda _: pytest.fail("shown"), ended=False)
    assert not shown.read(lambda _: pytest.fail("shown"), ended=True)
    done = call("logs", f"{sweep.name}/1")
    assert (done.exit_code, done.stdout) == (0, "")
