"""The end of a command's channel: nothing of ours comes after it, however slow we are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from paramiko import Transport
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_OPEN, MSG_CHANNEL_REQUEST
from sshd import Sshd, needs_sshd

from sweepfw.core.command import cmd
from sweepfw.errors import UnreachableError
from sweepfw.shell.ssh import SshShell

pytestmark = needs_sshd


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[SshShell]:
    sshd = Sshd(tmp_path / "sshd").start()
    shell = SshShell.open(sshd.host(), sshd.access())
    yield shell
    shell.close()
    sshd.cut()


class Slow:
    """A command's input, and its end, are on their way out only once the command has ended; and the next
    command's message of a kind waits until they are out. `held`: what kinds of messages that befell."""

    def __init__(self, kind: int) -> None:
        self.kind, self.held, self._under_way = kind, list[int](), 0
        self._send, self._next = Transport._send_user_message, threading.Event()

    def __call__(self, transport: Any, message: Any) -> None:
        data = message.asbytes()
        if data[0] in (MSG_CHANNEL_DATA, MSG_CHANNEL_EOF) and _feeding():
            self.held.append(data[0])
            self._under_way += 1
            self._until_ended(transport, int.from_bytes(data[1:5], "big"))
            self._next.wait(1)
            self._send(transport, message)
            self._under_way -= 1
            return
        if data[0] == self.kind and self._under_way:
            self._next.set()
            while self._under_way:
                time.sleep(0.01)
            self._next.clear()
        self._send(transport, message)

    def _until_ended(self, transport: Any, number: int) -> None:
        there = transport._channels.values
        mine = [each for each in there() if each.remote_chanid == number]
        deadline = time.monotonic() + 60
        while any(each in there() for each in mine) and time.monotonic() < deadline:
            time.sleep(0.01)


def _feeding() -> bool:
    return threading.current_thread().name.endswith("(_feed)")


@pytest.fixture(params=[MSG_CHANNEL_OPEN, MSG_CHANNEL_REQUEST], ids=["before the next", "as the next begins"])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow(request.param)
    monkeypatch.setattr(Transport, "_send_user_message", lambda self, message: slow(self, message))
    return slow


def test_the_end_of_an_input_that_is_late_hits_no_other_command(shell: SshShell, slow: Slow) -> None:
    for n in range(3):
        assert shell.run(cmd("echo", str(n)), timeout=60).text == f"{n}\n"
    assert slow.held == [MSG_CHANNEL_EOF] * 3


def test_input_that_is_late_hits_no_other_command(shell: SshShell, slow: Slow) -> None:
    for _ in range(3):
        assert shell.stream(cmd("true"), BytesIO(b"echo no; exit 1\n" * 9000)).code == 0
    assert set(slow.held) == {MSG_CHANNEL_DATA}
    assert shell.run(cmd("echo", "yes"), timeout=60).text == "yes\n"


def test_a_connection_that_breaks_while_input_is_sent_is_lost(
    shell: SshShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paramiko raises EOFError there, in the thread that sends."""
    send = Transport._send_user_message

    def broken(transport: Any, message: Any) -> None:
        if _feeding():
            transport.close()
            raise EOFError
        send(transport, message)

    monkeypatch.setattr(Transport, "_send_user_message", broken)
    with pytest.raises(UnreachableError, match="the connection is lost"):
        shell.stream(cmd("cat"), BytesIO(bytes(100)))
