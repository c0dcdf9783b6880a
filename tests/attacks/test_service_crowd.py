"""Too many connections, and too much on them, by those who have no token and by one who has a worker's:
others are answered all the same. (Limits of one message, and silence: test_service_limits.py.)"""

from __future__ import annotations

import json
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from attacked_head import A, AttackedHead
from ledger_service import token
from ledger_wire import opening

from sweepfw.core.model import Worker
from sweepfw.ledger.client import HttpDesk, HttpLedger
from sweepfw.ledger.wire import answers, crowd
from sweepfw.ledger.wire.access import Caller

WaitUntil = Callable[..., None]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[AttackedHead]:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 8000:
        pytest.skip("this account may open too few files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # both sides are in this process
    found = AttackedHead(tmp_path)
    yield found
    found.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def all_are_served(head: AttackedHead, *hosts: str) -> None:
    """People and workers, new and old. Who has to wait for others waits longer than our sockets do (see
    conftest.py)."""
    for host in (None, *hosts):
        ledger = HttpLedger(head.client(host, patience=60))
        assert ledger._client.call("ledger/sweep", name=head.ledger.sweeps()[0].uid)
        ledger.disconnect()


def closed(stream: socket.socket) -> bool:
    """Whether the other side closed it, now."""
    stream.setblocking(False)
    try:
        return stream.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return "did not complete" not in str(error) and "want" not in str(error).lower()


def test_thousands_that_say_nothing_hinder_nobody(head: AttackedHead, held: ExitStack) -> None:
    head.populate()
    working = HttpLedger(head.client("a"))
    assert working.running_on(A)
    for _ in range(2_300):
        held.enter_context(head.connect())
    all_are_served(head, "a", "b")
    assert working._client._idle and not working._client._idle[0].stale()  # who has shown a token is kept
    assert len(head.service._crowd) <= crowd.NEWCOMERS + 20


def test_many_that_speak_tls_and_ask_nothing_hinder_nobody(
    head: AttackedHead, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "NEWCOMERS", 60)
    head.populate()
    first = [held.enter_context(head.tls()) for _ in range(100)]
    for stream in first[::3]:
        with suppress(OSError):
            stream.sendall(b"POST /led")  # and drips from then on
    all_are_served(head, "a", "b")
    assert len(head.service._crowd) <= 80
    assert closed(first[0]) and not closed(first[-1])


def a_newcomer(head: AttackedHead) -> ssl.SSLSocket:
    """One that came through TLS within the second that it has, where this machine lets it."""
    deadline = time.monotonic() + 100
    while True:
        try:
            return head.tls()
        except OSError:
            assert time.monotonic() < deadline


def test_a_newcomer_is_not_waited_for(
    head: AttackedHead, held: ExitStack, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """One that has shown its token may be idle for minutes."""
    from sweepfw.ledger import service

    known = held.enter_context(head.tls())
    known.sendall(opening("/ledger/sweeps") + b"Content-Length: 2\r\n\r\n{}")
    assert known.recv(12) == b"HTTP/1.1 200"
    monkeypatch.setattr(service, "_HEAD", 1.0)
    new = held.enter_context(a_newcomer(head))
    wait_until(lambda: len(head.service._crowd) == 1, 60)
    wait_until(lambda: closed(new), 60)
    known.sendall(opening("/ledger/sweeps") + b"Content-Length: 2\r\n\r\n{}")
    assert b"HTTP/1.1 200" in known.recv(65_536) + known.recv(65_536)


def test_a_worker_has_its_own_number_of_connections(
    head: AttackedHead, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "EACH", 20)
    head.populate()
    streams = []
    for _ in range(50):
        stream = held.enter_context(head.tls())
        stream.sendall(opening("/ledger/sweep", shown=token("a")) + b"Content-Length: 2\r\n\r\n{}")
        assert b"400" in stream.recv(65_536)
        streams.append(stream)
    assert len(head.service._crowd) <= 20
    assert closed(streams[0]) and not closed(streams[-1])
    all_are_served(head, "a", "b")


def test_a_worker_that_keeps_all_its_connections_busy_hinders_itself(
    head: AttackedHead, held: ExitStack, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(crowd, "EACH", 10)
    head.populate()
    slow = opening("/ledger/append_log", 'Sweepfw-Arguments: {"token": "x", "offset": 0}', shown=token("a"))
    for _ in range(10):
        held.enter_context(head.tls()).sendall(slow + b"Content-Length: 1000\r\n\r\nx")
    wait_until(lambda: len(head.service._crowd._places.get(Caller("a"), ())) == 10, 60)
    assert head.ask("ledger/sweep", {"name": "x"}, token("a")).status == 503
    all_are_served(head, "b")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_length_that_is_only_said_takes_no_memory(
    head: AttackedHead, held: ExitStack, wait_until: WaitUntil
) -> None:
    head.populate()
    slow = opening("/ledger/append_log", 'Sweepfw-Arguments: {"token": "x", "offset": 0}', shown=token("a"))
    begun = resident()
    for _ in range(12):
        held.enter_context(head.tls()).sendall(slow + b"Content-Length: 64000000\r\n\r\nx")
    wait_until(lambda: len(head.service._crowd._places.get(Caller("a"), ())) == 12, 60)
    time.sleep(0.5)
    assert resident() - begun < 60_000_000
    all_are_served(head, "a", "b")


def test_large_messages_of_one_caller_wait_for_each_other(
    head: AttackedHead, held: ExitStack, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """Four are in memory at once; small ones, and those of others, pass by."""
    monkeypatch.setattr(answers, "_PATIENCE", 1.0)
    mine, other = head.populate()
    told = {"token": mine.token, "offset": 0}
    slow = opening("/ledger/append_log", f"Sweepfw-Arguments: {json.dumps(told)}", shown=token("a"))
    for _ in range(4):
        held.enter_context(head.tls()).sendall(slow + b"Content-Length: 2000000\r\n\r\n" + bytes(1000))
    room = head.service._answers._rooms
    wait_until(lambda: Caller("a") in room and room[Caller("a")]._value == 0, 60)
    assert head.ask("ledger/append_log", told, token("a"), bytes(2_000_000)).status == 503
    assert head.ask("ledger/append_log", told, token("a"), bytes(1000)).told == 1000
    large = head.ask("ledger/append_log", {"token": other.token, "offset": 0}, token("b"), bytes(2_000_000))
    assert large.told == 2_000_000
    held.close()  # the four break off
    wait_until(lambda: room[Caller("a")]._value == 4, 60)
    told["offset"] = 1000
    assert head.ask("ledger/append_log", told, token("a"), bytes(2_000_000)).told == 2_001_000
    head.check()


def test_a_body_without_end_ends_at_its_limit(head: AttackedHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunked, and each chunk well-formed: as a log, as arguments."""
    from sweepfw.ledger import service

    monkeypatch.setattr(service, "_LINGER", 2.0)
    monkeypatch.setattr(answers, "BYTES_LIMIT", 3_000_000)
    monkeypatch.setattr(answers, "JSON_LIMIT", {"people": 3_000_000, "worker": 3_000_000})
    told = 'Sweepfw-Arguments: {"token": "x", "offset": 0}'
    for path in ("/ledger/append_log", "/ledger/renew"):
        with head.tls() as stream:
            stream.sendall(opening(path, told, "Transfer-Encoding: chunked", shown=token("a")) + b"\r\n")
            begun = time.monotonic()
            with pytest.raises((ConnectionError, ssl.SSLError)):  # it stops listening, and not: it is slow
                while time.monotonic() < begun + 200:
                    stream.sendall(b"40000\r\n" + bytes(262_144) + b"\r\n")
    head.well()


def test_a_thread_that_can_not_be_started_is_not_the_end(
    head: AttackedHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failed = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "call" and len(failed) < 3:
            failed.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        with head.connect() as stream:
            assert stream.recv(1) == b""
    head.well()
    assert head.reports == ["no connection can be served (can't start new thread)"] * 3


def test_slow_heads_and_bodies_of_many_hinder_nobody(head: AttackedHead, held: ExitStack) -> None:
    head.populate()
    calls = [b"", b"P", opening("/ledger/sweep"), opening("/ledger/sweep", shown=token("a"))]
    calls += [opening("/ledger/sweep", "Content-Length: 50", shown=token("a")) + b"\r\n{"]
    calls += [opening("/ledger/submit", "Transfer-Encoding: chunked") + b"\r\n1\r\n{\r\n"]
    streams = [held.enter_context(head.tls()) for _ in range(60)]
    for at, stream in enumerate(streams):
        stream.sendall(calls[at % len(calls)])
    for _ in range(3):
        for stream in streams:
            with suppress(OSError):
                stream.sendall(b" ")
    all_are_served(head, "a", "b")


def test_a_worker_that_lies_about_itself_takes_no_part_of_others(head: AttackedHead) -> None:
    """What it announces decides what it is sent, and nothing else: not where, and not whether others work."""
    head.populate()
    advert: dict[str, Any] = {"slots": 2, "cpus": 2, "memory": None, "gpus": [], "labels": [], "mounts": []}
    advert |= {"version": "", "python": "", "disk_free": None}
    asked: dict[str, Any] = {"worker": {"host": "a", "boot": "a1"}}
    for queue in ("sweepfw.012345.b.b1", "b-b1@sweepfw.celery.pidbox", "celeryev.x", "", "x" * 300):
        told = asked | {"advert": advert | {"queue": queue}}
        assert head.ask("desk/announce", told, token("a")).status == 200
        [seen] = [each for each in HttpDesk(head.client()).status().workers if each.worker.host == "a"]
        assert seen.advert.queue == "sweepfw.012345.a.a1"
    gpu = {"index": 0, "uuid": "x", "name": "x", "memory": 1, "used": 1, "pids": []}
    for lie in (
        {"slots": 10**30},
        {"slots": 10_001},
        {"slots": -1},
        {"cpus": float("nan")},
        {"cpus": float("inf")},
        {"cpus": -1},
        {"gpus": [gpu] * 1001},
    ):
        told = asked | {"advert": advert | {"queue": "q"} | lie}
        assert head.ask("desk/announce", told, token("a")).status in (400, 409), lie
    for boot in ("", "b.b1", "a1\n", "A1", "*", "a" * 33, "\u0661"):
        told = {"worker": {"host": "a", "boot": boot}, "advert": advert | {"queue": "q"}}
        assert head.ask("desk/announce", told, token("a")).status in (400, 409), boot
    assert head.sent.queues <= {"sweepfw.012345.a.a1", "sweepfw.012345.b.b1"}
    assert head.ledger.running_on(A) and head.ledger.running_on(Worker("b", "b1"))
    head.check()


@pytest.mark.parametrize("ended", ["NaN", "Infinity", "-Infinity", "-1", "1e300", "253402300800"])
def test_an_end_that_no_clock_shows_is_refused(head: AttackedHead, ended: str) -> None:
    """It would be in every list that people look at."""
    mine, _ = head.populate()
    outcome = f'{{"state":"failed","reason":"","exit_code":1,"ended":{ended},"metrics":{{}},"details":{{}}}}'
    told = f'{{"token":"{mine.token}","outcome":{outcome}}}'
    assert head.ask("ledger/finish", told, token("a")).status == 400
    more = f'{{"token":"{mine.token}","offset":0,"log":"","files":{{}},"outcome":{outcome}}}'
    assert head.ask("desk/conclude", more, token("a")).status == 400
    assert head.ledger.renew(mine.token) == "go on"


@pytest.mark.parametrize("wait", ["NaN", "Infinity", "-Infinity", "1e308", "-5", "1" * 400])
def test_no_question_waits_longer_than_it_may(
    head: AttackedHead, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    monkeypatch.setattr(answers, "LONGEST_WAIT", 0.2)
    mine, _ = head.populate()
    seen = head.desk.orders(A, 0, 0).seen
    orders = f'{{"worker":{{"host":"a","boot":"a1"}},"seen":{seen},"wait":{wait},"connected":true}}'
    where = f'{{"uid":"{mine.uid}","trial":1,"attempt":1,"offset":0,"wait":{wait}}}'
    asked = [("desk/orders", orders, token("a")), ("desk/read_log", where, None)]
    asked += [("ledger/changed", f'{{"seen":5,"wait":{wait}}}', None)]
    for path, told, shown in asked:
        answer = head.ask(path, told, shown) if shown else head.ask(path, told)
        assert answer.status in (200, 400), (path, answer)  # and it came: our sockets do not wait for ever
    head.check()


def test_a_crowd_lets_the_longest_idle_go() -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    crowded = crowd.Crowd()
    with ExitStack() as stack:
        for near, _ in pairs:
            stack.enter_context(crowded.held(near))
        caller = Caller("a")
        assert all(crowded.busy(near, caller) for near, _ in pairs[:3])
        assert crowded.shut(idle_only=True)  # three are under way
        assert closed(pairs[3][1]) and not closed(pairs[0][1])
        assert len(crowded) == 4
    assert len(crowded) == 0
    crowded.make_room()  # there is nobody
    for pair in pairs:
        for end in pair:
            end.close()
