"""Messages as nobody should send them, packs, failures of the head, and the service's own end."""

from __future__ import annotations

import errno
import io
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_doors import HOST, SPEC, drafts
from ledger_service import PEOPLE, FolderDesk, Head, token
from ledger_wire import ended, exchange, framed, opening, replies, tls

from sweepfw.core.deployment import Advert
from sweepfw.core.model import Outcome, Receipt
from sweepfw.errors import BusyError, DiskFullError, LedgerError, SweepError
from sweepfw.ledger import service
from sweepfw.ledger.client import HttpDesk, HttpLedger
from sweepfw.ledger.service import Service
from sweepfw.ledger.wire import answers
from sweepfw.ledger.wire.methods import METHODS


@pytest.fixture
def head(tmp_path) -> Iterator[Head]:
    head = Head(tmp_path)
    yield head
    head.stop()


@pytest.fixture
def desk(head) -> HttpDesk:
    return HttpDesk(head.client())


@pytest.fixture
def worker_desk(head) -> HttpDesk:
    return HttpDesk(head.client("here"))


# -- garbage -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lasting() -> Iterator[Head]:
    """One for many examples."""
    with tempfile.TemporaryDirectory() as folder:
        head = Head(Path(folder))
        head.ledger.submit(SPEC, "s", drafts(3))
        yield head
        head.stop()


LINES = st.one_of(
    st.binary(max_size=40).map(lambda b: b.replace(b"\r\n\r\n", b"")),
    st.sampled_from(
        [
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: -1",
            b"Content-Length: 1e3",
            b"Content-Length: 99999999999999999999",
            b"Content-Length: 2\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked",
            b" folded: line",
            b"no colon",
            b"Sweepfw-Arguments: {",
            b"Sweepfw-Request: x",
        ]
    ),
)
PATHS = st.sampled_from([f"/{path}" for path in METHODS] + ["/", "*", "//", "/%00"])


@settings(max_examples=120)
@given(path=PATHS, lines=st.lists(LINES, max_size=3), body=st.binary(max_size=60))
def test_no_message_is_our_fault(lasting, path, lines, body) -> None:
    head = opening(path, "Connection: close")
    with tls(lasting.connect()) as stream:
        stream.sendall(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)
        with suppress(OSError):  # it broke off, as the message did
            socket.socket.shutdown(stream, socket.SHUT_WR)
        assert all(reply.status < 500 for reply in replies(stream))
    assert lasting.reports == []


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["host", "boot", "n", "x", "metric", "state"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_SLOW = {"ledger/changed", "desk/orders", "desk/read_log"}


@settings(max_examples=15)
@pytest.mark.parametrize("path", sorted(METHODS))
@given(data=st.data())
def test_no_arguments_are_our_fault(lasting, path, data) -> None:
    """Whatever stands where something else should: an answer, or a line that says so."""
    method = METHODS[path]
    uid = lasting.ledger.sweeps()[0].uid if lasting.ledger.sweeps() else ""
    known = {"uid": st.just(uid), "name": st.just(uid), "trial": st.just(1), "wait": st.just(0)}
    known |= {"worker": st.just({"host": "here", "boot": "b"}), "spec": st.just({"project": "p"})}
    arguments = {name: data.draw(JSONS | known.get(name, JSONS), name) for name in method.takes}
    if path in _SLOW:
        arguments["wait"] = 0
    told = json.dumps(arguments)
    body, more = told.encode(), []
    if method.body[0] == "drafts":
        body += b"\n" + json.dumps(data.draw(JSONS)).encode()
    elif method.body[0]:
        body, more = b"bytes", [f"Sweepfw-Arguments: {told}"]
    shown = token("here") if method.who == "worker" else PEOPLE
    with tls(lasting.connect()) as stream:
        lines = ("Connection: close", f"Content-Length: {len(body)}", *more)
        [reply] = exchange(stream, opening(f"/{path}", *lines, shown=shown) + b"\r\n" + body)
    assert reply.status in (200, 204, 400, 403, 409), reply
    assert lasting.reports == []


def test_deep_and_long_numbers_are_refused(head) -> None:
    for body in (b"[" * 100_000, b"1" * 10_000, b'{"name":' * 50_000):
        with tls(head.connect()) as stream:
            [reply] = exchange(stream, opening("/ledger/sweep", "Connection: close") + framed(body))
            assert reply.status == 400
    assert head.reports == []


# -- packs and pieces ----------------------------------------------------------------------------------


def test_packs_arrive_and_come_back(head, desk, worker_desk, tmp_path) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB
    desk.put_contents(io.BytesIO(data))
    assert b"".join(worker_desk.contents(["a"])) == data
    read, write = socket.socketpair()

    def feed() -> None:
        write.sendall(data)
        write.close()

    threading.Thread(target=feed).start()
    with read.makefile("rb") as pipe:  # can't be read twice
        assert worker_desk.put_checkpoint("t", pipe) is True
    assert b"".join(worker_desk.checkpoint("t")) == data
    assert worker_desk.checkpoint("none") is None
    with pytest.raises(SweepError, match="no content nosuch"):
        worker_desk.contents(["nosuch"])


def test_a_pack_that_breaks_off_is_not_stored(head, tmp_path, wait_until) -> None:
    with tls(head.connect()) as stream:
        stream.sendall(opening("/desk/put_contents", "Transfer-Encoding: chunked") + b"\r\n5\r\nhello\r\n")
    wait_until(lambda: not head.service._crowd)
    assert not (tmp_path / "desk/contents").exists()
    with tls(head.connect()) as stream:
        stream.sendall(opening("/desk/put_contents", "Content-Length: 9") + b"\r\nhello")
    wait_until(lambda: not head.service._crowd)
    assert not (tmp_path / "desk/contents").exists()


def test_an_answer_that_breaks_off_is_asked_again(tmp_path) -> None:
    class Flaky(FolderDesk):
        asked = 0

        def file(self, uid: str, trial: int, attempt: int, path: str) -> Iterator[bytes]:
            self.asked += 1
            yield b"one"
            if self.asked == 1:
                raise OSError(errno.EIO, "I/O error")
            yield b"two"

    head = Head(tmp_path, desk=Flaky(tmp_path / "desk"))
    assert b"".join(HttpDesk(head.client()).file("u", 1, 1, "p")) == b"onetwo"
    head.stop()


def test_the_desk_over_http(head, desk, worker_desk) -> None:
    advert = Advert(2, 1.5, None, (), ("a",), ("/data",), "1", "3.13", 5, "q")
    worker_desk.announce(HOST, advert)
    orders = worker_desk.orders(HOST, 4, 0.5, connected=False)
    assert (orders.seen, orders.stop, orders.drain, orders.forget) == (
        5,
        {"t": "stop now"},
        True,
        ("digits-1",),
    )
    assert head.desk.calls == [("announce", HOST, advert), ("orders", HOST, 4, 0.5, False)]
    with pytest.raises(SweepError, match="runs no trial of that sweep"):
        worker_desk.environment_lock("u", "s", None)
    uid = head.ledger.submit(SPEC, "s", drafts(1)).uid
    head.ledger.claim(uid, 1, HOST, "0", "claim")
    assert worker_desk.environment_lock(uid, "s", None) is None
    assert worker_desk.environment_lock(uid, "s", "numpy==1") == "numpy==1"
    assert worker_desk.environment_lock(uid, "s", "numpy==2") == "numpy==1"
    assert desk.lacks(["a", "b"]) == {"a", "b"}
    desk.put_manifest("i\x7f\u00e9", b"\x00\xff")
    assert worker_desk.manifest("i\x7f\u00e9") == b"\x00\xff"
    with pytest.raises(SweepError, match="no such snapshot"):
        desk.manifest("x")
    assert desk.read_log("u", 1, 1, 250) == (bytes(range(250, 256)), True)
    assert desk.files("u", 1, 1) == {"a b/\u00e9": 3}
    assert b"".join(desk.file("u", 1, 1, "a b/\u00e9")) == b"onetwo"
    with pytest.raises(SweepError, match="no file"):
        desk.file("u", 1, 1, "x")
    desk.forget("u")
    desk.drain("h", off=True)
    assert head.desk.calls[2:] == [("forget", "u"), ("drain", "h", True)]
    assert desk.status() == head.desk.status()


def test_a_small_end_keeps_its_bytes(head, worker_desk) -> None:
    files = {"files/\udcff \u00e9": bytes(range(256)), "params.json": b""}
    outcome = Outcome("failed", "exit code 1", 1, 5.0, {}, {"seconds": 0.5}, again=True)
    receipt = worker_desk.conclude("t", 7, b"\xff\x00\n", files, outcome)
    assert receipt == Receipt(True, False, "cancelled")
    assert head.desk.calls == [("conclude", "t", 7, b"\xff\x00\n", files, outcome)]


# -- failures of the head ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (BusyError("later"), BusyError, "^later$"),
        (DiskFullError("full"), DiskFullError, "^full$"),
        (OSError(errno.ENOSPC, "No space left"), DiskFullError, "No space"),
        (OSError(errno.EIO, "I/O error"), LedgerError, "I/O error"),
        (ValueError("a bad value"), ValueError, "a bad value"),
        (RuntimeError("the-inside"), SweepError, "RuntimeError"),
    ],
)
def test_failures_are_told_by_their_class(tmp_path, raised, kind, words) -> None:
    class Failing(FolderDesk):
        def forget(self, uid: str) -> None:
            raise raised

    head = Head(tmp_path, desk=Failing(tmp_path / "desk"))
    with pytest.raises(kind, match=words) as told:
        HttpDesk(head.client()).forget("u")
    assert type(told.value) is kind
    assert "the-inside" not in str(told.value)
    assert bool(head.reports) == isinstance(raised, RuntimeError)
    head.stop()


def test_a_worker_waits_while_the_heads_disk_is_full(tmp_path) -> None:
    class Full(FolderDesk):
        left = 2

        def keep(self, token: str, pack: Any) -> None:
            self.left -= 1
            if self.left >= 0:
                raise DiskFullError("the disk is full")
            super().keep(token, pack)

    head = Head(tmp_path, desk=Full(tmp_path / "desk"))
    lines: list[str] = []
    HttpDesk(head.client("here", patience=None, notice=lines.append)).keep("t", io.BytesIO(b"kept"))
    assert (tmp_path / "desk/kept-t").read_bytes() == b"kept"
    assert "the disk is full" in lines[0] and "answers again" in lines[1]
    head.stop()


def test_an_address_that_is_taken_and_a_torn_certificate_are_told(tmp_path, head) -> None:
    with pytest.raises(SweepError, match="can't listen there"):
        Head(tmp_path, port=head.address[1], ledger=head.ledger)
    (tmp_path / "torn.pem").write_text("torn")
    torn = Service(
        head.ledger,
        head.desk,
        address=("127.0.0.1", 0),
        certificate=tmp_path / "torn.pem",
        key=tmp_path / "torn.pem",
        people="p",
        workers={},
    )
    with pytest.raises(SweepError, match="no certificate"):
        torn.start()


def test_stop_is_soon_done_and_what_is_under_way_is_answered(tmp_path, monkeypatch) -> None:
    class Slow(FolderDesk):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.entered = threading.Event()

        def drain(self, host: str, *, off: bool = False) -> None:
            self.entered.set()
            time.sleep(0.3)

    monkeypatch.setattr(service, "_LAST", 250)
    slow = Slow(tmp_path / "desk")
    head = Head(tmp_path, desk=slow)
    desk = HttpDesk(head.client())
    done: list[str] = []

    def ask() -> None:
        desk.drain("quick")
        done.append("quick")

    asking = threading.Thread(target=ask)
    asking.start()
    assert slow.entered.wait(60)
    idle = tls(head.connect())
    began = time.monotonic()
    head.service.stop()
    head.service.stop()
    assert time.monotonic() - began < 100, "it waits only for what is under way"
    asking.join(60)
    assert done == ["quick"]
    assert ended(idle)
    with pytest.raises(OSError):
        head.connect()
    head.ledger.disconnect()


def test_what_does_not_end_keeps_no_stop(tmp_path, monkeypatch) -> None:
    class Stuck(FolderDesk):
        entered, leave = threading.Event(), threading.Event()

        def drain(self, host: str, *, off: bool = False) -> None:
            self.entered.set()
            self.leave.wait(250)

    monkeypatch.setattr(service, "_LAST", 0.1)
    head = Head(tmp_path, desk=Stuck(tmp_path / "desk"))
    with tls(head.connect()) as stream:
        stream.sendall(opening("/desk/drain") + framed(b'{"host": "h", "off": false}'))
        assert Stuck.entered.wait(60)
        head.service.stop()
        assert ended(stream)
    Stuck.leave.set()
    head.ledger.disconnect()


def test_wait_is_limited(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(answers, "LONGEST_WAIT", 0.2)
    head = Head(tmp_path)
    ledger = HttpLedger(head.client())
    seen = ledger.changed()
    assert ledger._client.call("ledger/changed", seen=seen, wait=1e9) == seen
    ledger.disconnect()
    head.stop()


def test_the_door_costs_nothing_where_it_is_not_used() -> None:
    import subprocess
    import sys

    script = "import sys, sweepfw.cli.main, sweepfw.ledger.store; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"ssl", "http.client", "sweepfw.ledger.client"} & set(loaded.stdout.split())
