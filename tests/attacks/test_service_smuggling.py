"""Messages that could be read in two ways, and what is no HTTP at all: refused, and the connection with them,
so that nothing behind them is taken for a call of its own."""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from attacked_head import AttackedHead
from ledger_service import PEOPLE, token
from ledger_wire import Reply, exchange, framed, opening

from sweepfw.core.model import Grant


class Target:
    def __init__(self, head: AttackedHead, grant: Grant) -> None:
        self.head, self.grant = head, grant
        pause = json.dumps({"uid": grant.uid, "reason": "smuggled"}).encode()
        self.hidden = opening("/ledger/pause") + framed(pause)  # a whole call, of people

    def untouched(self) -> bool:
        return self.head.ledger.sweep(self.grant.uid).reason != "smuggled"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    head = AttackedHead(tmp_path_factory.mktemp("smuggling"))
    grant, _ = head.populate()
    yield Target(head, grant)
    head.stop()


CALL = opening("/ledger/sweeps")
LENGTHS = {
    "both": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 200\r\n\r\n{}",
    "two lengths in one": b"Content-Length: 2, 200\r\n\r\n{}",
    "the same twice": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n{}",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "space before the name": b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": b"Content-Length:\r\n 2\r\n\r\n{}",
    "folded value": b"X: 1\r\n\tContent-Length: 2\r\n\r\n{}",
    "sign": b"Content-Length: +2\r\n\r\n{}",
    "minus": b"Content-Length: -2\r\n\r\n{}",
    "hexadecimal": b"Content-Length: 0x2\r\n\r\n{}",
    "fraction": b"Content-Length: 2.0\r\n\r\n{}",
    "empty": b"Content-Length:\r\n\r\n{}",
    "underscore": b"Content-Length: 1_0\r\n\r\n{}",
    "other digits": "Content-Length: \u0662\r\n\r\n{}".encode(),
    "NUL in a value": b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a name": b"X\0: a\r\nContent-Length: 2\r\n\r\n{}",
    "bare CR": b"X: a\rContent-Length: 200\r\nContent-Length: 2\r\n\r\n{}",
    "bare LF": b"X: a\nContent-Length: 200\r\nContent-Length: 2\r\n\r\n{}",
    "no name": b": a\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": b"Content-Length\r\n\r\n{}",
    "two hosts": b"Host: evil.example\r\nContent-Length: 2\r\n\r\n{}",
    "two tokens": b"Authorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}",
    "no ASCII": "X: \u00e9\r\nContent-Length: 2\r\n\r\n{}".encode(),
}
CHUNKS = {
    "minus": b"-1\r\n{}\r\n0\r\n\r\n",
    "sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "words": b"two\r\n{}\r\n0\r\n\r\n",
    "empty": b"\r\n{}\r\n0\r\n\r\n",
    "too short": b"1\r\n{}\r\n0\r\n\r\n",
    "bare LF": b"2\n{}\n0\n\n",
    "more digits than any": b"0" * 17 + b"2\r\n{}\r\n0\r\n\r\n",
    "overflow": b"1" * 16 + b"\r\n{}",
    "a long extension": b"2;" + b"x" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    "underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "many trailers": b"2\r\n{}\r\n0\r\n" + b"X: 1\r\n" * 100 + b"\r\n",
}
FIRST_LINES = {
    "HTTP/1.0": b"POST /ledger/sweeps HTTP/1.0",
    "HTTP/0.9": b"GET /",
    "HTTP/2": b"PRI * HTTP/2.0",
    "no version": b"POST /ledger/sweeps",
    "four words": b"POST /ledger/sweeps HTTP/1.1 x",
    "two spaces": b"POST  /ledger/sweeps HTTP/1.1",
    "tab": b"POST\t/ledger/sweeps\tHTTP/1.1",
    "small letters": b"post /ledger/sweeps http/1.1",
    "absolute": b"POST https://head/ledger/sweeps HTTP/1.1",
    "query": b"POST /ledger/sweeps?x=1 HTTP/1.1",
    "fragment": b"POST /ledger/sweeps#x HTTP/1.1",
    "dots": b"POST /ledger/../ledger/sweeps HTTP/1.1",
    "percent": b"POST /ledger%2Fsweeps HTTP/1.1",
    "two slashes": b"POST //ledger/sweeps HTTP/1.1",
    "star": b"OPTIONS * HTTP/1.1",
    "connect": b"CONNECT head:22 HTTP/1.1",
    "trace": b"TRACE / HTTP/1.1",
    "empty line first": b"\r\nPOST /ledger/sweeps HTTP/1.1",
    "NUL": b"POST /ledger/sweeps\0 HTTP/1.1",
    "private": b"POST /ledger/_db HTTP/1.1",
    "dunder": b"POST /ledger/__init__ HTTP/1.1",
    "not a call": b"POST /ledger/disconnect HTTP/1.1",
}


def refused(answers: list[Reply]) -> None:
    """One answer at most, and none that grants anything."""
    assert len(answers) <= 1, answers
    assert all(400 <= each.status < 500 or each.status == 505 for each in answers), answers


@pytest.mark.parametrize("form", LENGTHS)
def test_what_could_end_in_two_places_is_refused(target: Target, form: str) -> None:
    with target.head.tls() as stream:
        refused(exchange(stream, CALL + LENGTHS[form] + target.hidden))
    assert target.untouched() and target.head.reports == []


@pytest.mark.parametrize("form", CHUNKS)
def test_chunks_that_could_end_in_two_places_are_refused(target: Target, form: str) -> None:
    with target.head.tls() as stream:
        refused(exchange(stream, CALL + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[form] + target.hidden))
    assert target.untouched() and target.head.reports == []


@pytest.mark.parametrize("form", FIRST_LINES)
def test_what_asks_in_another_way_is_refused(target: Target, form: str) -> None:
    rest = CALL.partition(b"\r\n")[2]
    with target.head.tls() as stream:
        refused(exchange(stream, FIRST_LINES[form] + b"\r\n" + rest + framed(b"{}") + target.hidden))
    assert target.untouched() and target.head.reports == []


def test_a_call_behind_one_that_is_refused_is_not_heard(target: Target) -> None:
    """A worker's token first, people's behind it: as if somebody in between had joined two connections."""
    first = opening("/ledger/pause", shown=token("a")) + framed(target.hidden)
    with target.head.tls() as stream:
        answers = exchange(stream, first + target.hidden)
    assert [each.status for each in answers] == [403]
    assert target.untouched()


def test_calls_in_a_row_are_each_answered_in_order(target: Target) -> None:
    """What is not refused is all read: a body is never taken for a call."""
    inner = opening("/ledger/sweep") + framed(target.hidden)  # a call as another's body: no JSON
    last = opening("/ledger/changed", "Connection: close") + framed(b'{"seen": null, "wait": 0}')
    with target.head.tls() as stream:
        answers = exchange(stream, inner + CALL + framed(b"{}") + last)
    assert [each.status for each in answers] == [400, 200, 200]
    assert target.untouched()


HOSTS = ["evil.example", "head.evil.example", "head@evil", "head:x", "head:7443:1", "[::1", "", "127.0.0.1.x"]
HOSTS += ["localhost.evil", "*", "head/../", "head,evil", "xn--head", "0x7f.1", "head:999999"]


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_is_not_served(target: Target, host: str) -> None:
    """As a web page's name that was pointed at us."""
    with target.head.tls() as stream:
        answers = exchange(stream, opening("/ledger/sweeps", host=host) + framed(b"{}") + target.hidden)
    assert [each.status for each in answers] in ([421], [400])
    assert target.untouched()


ODD = {
    "nesting": b"[" * 5_000_000,
    "objects in objects": b'{"name":' * 1_000_000,
    "a long number": b'{"name":' + b"1" * 2_000_000 + b"}",
    "a long exponent": b'{"name":1e' + b"9" * 100_000 + b"}",
    "lone surrogates": rb'{"name":"\ud800\udfff\udc00"}',
    "no UTF-8": b'{"name":"\xff\xfe\xed\xa0\x80"}',
    "UTF-16": '{"name":"x"}'.encode("utf-16"),
    "UTF-32": '{"name":"x"}'.encode("utf-32"),
    "NaN": b'{"name":NaN}',
    "infinity": b'{"name":-Infinity}',
    "NUL": rb'{"name":"a\u0000b"}',
    "twice": b'{"name":1,"name":[]}',
    "more behind": b'{"name":"x"} {"name":"y"}',
    "a BOM": b'\xef\xbb\xbf{"name":"x"}',
    "comment": b'{"name":"x"} // x',
    "__proto__": b'{"__proto__":{"name":"x"},"self":1,"__class__":1}',
}


@pytest.mark.parametrize("form", ODD)
def test_odd_json_is_answered_in_a_line(target: Target, form: str) -> None:
    for path, shown in (("ledger/sweep", PEOPLE), ("ledger/sweep", token("a"))):
        lines = opening(f"/{path}", "Connection: close", shown=shown)
        reply = target.head.send(lines + framed(ODD[form]))
        assert reply.status in (400, 409), reply
        assert len(reply.told["error"]) < 1000 and "Traceback" not in reply.told["error"]
    assert target.head.reports == []


def test_keys_that_stand_twice_count_once(target: Target) -> None:
    """The last one, wherever it is looked at: what was checked is what is done."""
    other = json.dumps({"host": "a", "boot": "a1"}), json.dumps({"host": "b", "boot": "b1"})
    for first, second, status in ((*other, 403), (*other[::-1], 200)):
        told = f'{{"worker":{first},"worker":{second}}}'
        assert target.head.ask("ledger/running_on", told, token("a")).status == status


GARBAGE = {
    "HTTP without TLS": b"POST /ledger/sweeps HTTP/1.1\r\nHost: head\r\n\r\n",
    "noise": random.Random(7).randbytes(10_000),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "AMQP": b"AMQP\0\0\x09\x01",
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
    "a record that lies": b"\x16\x03\x01\xff\xff" + bytes(100),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x00",
    "heartbleed": b"\x18\x03\x02\x00\x03\x01\x40\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("form", GARBAGE)
def test_what_is_no_tls_is_left(target: Target, form: str) -> None:
    with target.head.connect() as stream:
        with suppress(OSError):
            stream.sendall(GARBAGE[form])
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(65_536):
                pass
    target.head.well()
    assert target.head.reports == []


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(target: Target, version: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"), target.head.connect() as stream:
        context.wrap_socket(stream)


def test_a_connection_that_is_cut_in_the_middle_of_a_call_changes_nothing(target: Target) -> None:
    for size in (1, 60, len(target.hidden) - 1):
        with target.head.tls() as stream:
            stream.sendall(target.hidden[:size])
            time.sleep(0.02)
    target.head.well()
    assert target.untouched() and target.head.reports == []
