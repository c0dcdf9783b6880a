"""Too much, and too slow: the service takes no more than it should, and waits for nobody."""

from __future__ import annotations

import io
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from ledger_doors import SPEC, drafts
from ledger_service import PEOPLE, Head, token
from ledger_wire import ended, opening, replies, tls

from sweepfw.errors import SweepError
from sweepfw.ledger import service
from sweepfw.ledger.client import HttpDesk, HttpLedger
from sweepfw.ledger.wire import answers
from sweepfw.ledger.wire.methods import METHODS


@pytest.fixture
def head(tmp_path) -> Iterator[Head]:
    head = Head(tmp_path)
    yield head
    head.stop()


# -- too much ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shown", "limit"), [(PEOPLE, 64_000_000), (token("here"), 16_000_000)])
def test_large_calls_are_refused_before_they_are_sent(head, shown, limit) -> None:
    with tls(head.connect()) as stream:
        stream.sendall(opening("/ledger/sweep", f"Content-Length: {limit + 1}", shown=shown) + b"\r\n")
        assert [each.status for each in replies(stream)] == [413]


def test_endless_calls_are_refused(head, monkeypatch) -> None:
    monkeypatch.setattr(answers, "JSON_LIMIT", {"people": 100_000, "worker": 100_000})
    with tls(head.connect()) as stream:
        stream.sendall(opening("/ledger/sweep", "Transfer-Encoding: chunked") + b"\r\n")
        with pytest.raises(OSError):  # it stops listening
            for _ in range(100_000):
                stream.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    assert HttpLedger(head.client()).sweeps() == []


def test_endless_heads_are_refused(head) -> None:
    with tls(head.connect()) as stream:
        stream.sendall(b"POST / HTTP/1.1\r\nX: " + b"x" * 70_000)
        assert [each.status for each in replies(stream)] == [431]


def test_a_worker_keeps_only_so_much(head, tmp_path, monkeypatch) -> None:
    worker_desk = HttpDesk(head.client("here"))
    monkeypatch.setitem(METHODS, "desk/keep", METHODS["desk/keep"]._replace(limit=1_000_000))
    with pytest.raises(SweepError, match="larger than 1000000"):
        worker_desk.keep("t", io.BytesIO(b"x" * 5_000_000))
    assert not (tmp_path / "desk/kept-t").exists()
    worker_desk.keep("t", io.BytesIO(b"x" * 900_000))
    assert (tmp_path / "desk/kept-t").stat().st_size == 900_000


def test_a_large_submit_arrives_whole(head) -> None:
    ledger = HttpLedger(head.client())
    wide = [draft._replace(params=dict(draft.params) | {"text": "v" * 2000}) for draft in drafts(5_000)]
    sweep = ledger.submit(SPEC, "s", iter(wide))  # more than is held in memory
    assert sweep.total == 5_000
    assert [trial.params for trial in ledger.trials(sweep.uid)] == [draft.params for draft in wide]


# -- too slow ------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch) -> None:
    for name in ("_HEAD", "_BODY", "_IDLE", "_LINGER"):
        monkeypatch.setattr(service, name, 0.3)


def greeted(head: Head) -> ssl.SSLSocket:
    """A connection with TLS. On a slow machine that itself may take the service too long: then another."""
    while True:
        with suppress(OSError):
            return tls(head.connect())


@pytest.mark.parametrize("sent", [b"", b"P", opening("/ledger/sweep", "Content-Length: 5") + b"\r\n{"])
def test_who_falls_silent_is_left(head, hurried, sent) -> None:
    with greeted(head) as stream:
        with suppress(OSError):  # it is left by now
            stream.sendall(sent)
        assert ended(stream)


def test_who_never_speaks_tls_is_left(head, hurried) -> None:
    with head.connect() as stream:
        assert ended(stream)


def test_a_head_that_drips_is_left(head, hurried) -> None:
    with greeted(head) as stream, pytest.raises(OSError):
        for _ in range(1000):
            stream.sendall(b"x")
            time.sleep(0.05)


def test_nobody_waits_for_a_silent_neighbour(head) -> None:
    silent = [head.connect() for _ in range(20)]
    assert HttpLedger(head.client()).sweeps() == []  # who waits for them is not answered within its patience
    for connection in silent:
        connection.close()
