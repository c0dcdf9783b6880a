"""Connections that break, services that go away and come back, and what was asked in between."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_doors import HOST, SPEC, drafts
from ledger_gate import Gate
from ledger_service import Head, certificate

from sweepfw.core.model import Outcome
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.ledger.client import Client, HttpLedger
from sweepfw.ledger.wire import caller


@pytest.fixture
def head(tmp_path) -> Iterator[Head]:
    head = Head(tmp_path)
    yield head
    head.stop()


@pytest.fixture
def gate(head) -> Iterator[Gate]:
    gate = Gate(head.address)
    yield gate
    gate.close()


@pytest.fixture
def people(head, gate) -> Iterator[HttpLedger]:
    """Through the gate, with a connection that stands."""
    ledger = HttpLedger(head.client(connect=gate.connect))
    ledger.sweeps()
    yield ledger
    ledger.disconnect()


# -- the pinned certificate ----------------------------------------------------------------------------


class Impostor:
    """Takes connections and keeps what it is told."""

    def __init__(self, folder: Path | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.told = b""
        self.asked = threading.Event()
        self.context = None
        if folder is not None:
            pem, key = certificate("impostor")
            (folder / "other.pem").write_text(pem + key)
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(folder / "other.pem")
        threading.Thread(target=self.listen, daemon=True).start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=60)

    def listen(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(60)
        try:
            stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
            if not self.context:
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            while piece := stream.recv(65_536):
                self.told += piece
        except OSError:
            pass
        self.asked.set()
        self.listener.close()


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_nothing_is_sent_to_one_with_another_certificate(tmp_path, speaks_tls) -> None:
    impostor = Impostor(tmp_path if speaks_tls else None)
    patience = 60 if speaks_tls else 0.3  # it is told at once of a certificate, and asks the other again
    client = Client(impostor.connect, certificate()[0], "the-secret-token", patience=patience)
    with pytest.raises(UnreachableError) as told:
        client.call("ledger/submit", body=b"the-project")
    assert impostor.asked.wait(60)
    assert b"the-secret-token" not in impostor.told and b"the-project" not in impostor.told
    if speaks_tls:
        assert impostor.told == b""
        assert "another certificate" in str(told.value)


TORN = [f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----" for text in ("!", "AAAA")]


@pytest.mark.parametrize("pem", ["", "x", *TORN])
def test_what_is_no_certificate_is_refused(pem) -> None:
    with pytest.raises(SweepError, match="certificate"):
        Client(lambda: socket.socket(), pem, "t")


# -- calls that are made again -------------------------------------------------------------------------


def lose_answer(gate: Gate, call: Callable[[], Any]) -> Any:
    """Make the call; its first answer gets lost."""
    gate.swallowed.clear()
    gate.swallow = 1
    found = call()
    assert gate.swallowed.is_set()
    return found


def test_a_submit_whose_answer_was_lost_is_done_once(head, gate, people) -> None:
    sweep = lose_answer(gate, lambda: people.submit(SPEC, "s", iter(drafts(3))))
    assert sweep.counts == {"queued": 3}
    assert [found.uid for found in head.ledger.sweeps()] == [sweep.uid]


def test_repetitions_get_the_first_answer(head, gate, people) -> None:
    uid = people.submit(SPEC, "s", drafts(3)).uid
    assert lose_answer(gate, lambda: people.extend(uid, SPEC, drafts(5))) == 2
    assert lose_answer(gate, lambda: people.stop(uid, [1])) == 1
    assert lose_answer(gate, lambda: people.reopen(uid, ["cancelled"])) == [1]
    lose_answer(gate, lambda: people.remove(uid))  # done again it would know no such sweep
    with pytest.raises(SweepError, match="no sweep") as told:
        lose_answer(gate, lambda: people.remove(uid))
    assert not isinstance(told.value, UnreachableError)


def test_the_protocol_is_safe_to_repeat(head, gate, people) -> None:
    uid = people.submit(SPEC, "s", drafts(1)).uid
    worker = HttpLedger(head.client("here", connect=gate.connect))
    worker.renew("x")
    grant = lose_answer(gate, lambda: worker.claim(uid, 1, HOST, "0", "c1"))
    assert head.ledger.granted(grant.token) == grant
    assert lose_answer(gate, lambda: worker.append_log(grant.token, 0, b"out")) == 3
    assert lose_answer(gate, lambda: worker.finish(grant.token, Outcome("succeeded"))).accepted
    worker.disconnect()


def test_a_connection_that_was_cut_is_made_again(gate, people) -> None:
    for _ in range(3):
        gate.cut()
        assert people.sweeps() == []


def test_a_client_goes_on_after_a_restart(tmp_path, head, gate, people) -> None:
    head.stop()
    again = Head(tmp_path)
    gate.target = again.address
    try:
        assert people.submit(SPEC, "s", []).name == "digits-1"
    finally:
        again.stop()


def test_what_a_dead_head_may_have_done_is_not_done_again(tmp_path, head, gate, people) -> None:
    """The answer is lost, and the head that knows whether it was done dies: nobody must guess."""
    gate.swallowed.clear()
    gate.swallow = 1
    heads: list[Head] = []

    def replace() -> None:
        assert gate.swallowed.wait(60)
        head.stop()
        heads.append(Head(tmp_path))
        gate.target = heads[0].address

    gate.target = ("127.0.0.1", 1)  # nobody: until the new one is there
    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        with pytest.raises(UnreachableError, match="nobody knows whether it was done"):
            people.submit(SPEC, "s", drafts(1))
        replacing.join()
        assert len(heads[0].ledger.sweeps()) == 1
    finally:
        replacing.join()
        heads[0].stop()


def test_many_threads_share_a_client(people, gate) -> None:
    uid = people.submit(SPEC, "s", drafts(30)).uid
    failures: list[Exception] = []

    def work(k: int) -> None:
        try:
            for n in range(20):
                assert people.sweep(uid).uid == uid
                assert [t.number for t in people.trials(uid, numbers=[n + 1])] == [n + 1]
                if k == 0 and n % 7 == 3:
                    gate.cut()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_of_all_connections_over_a_link_that_is_gone_only_one_costs_a_wait(
    head, gate, wait_until, monkeypatch
) -> None:
    client = head.client(connect=gate.connect, patience=None)
    seen = client.call("ledger/changed", seen=None, wait=0)
    wait = partial(client.call, "ledger/changed", seen=seen, wait=60)
    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(client._busy) == 4)
    head.ledger.submit(SPEC, "s", [])  # which all of them hear of
    for thread in threads:
        thread.join()
    gate.hush()
    monkeypatch.setattr(caller, "_PATIENCE", 1)
    assert len(client.call("ledger/sweeps")) == 1
    assert len(gate.unheard) == 1
    client.close()


# -- no answer -----------------------------------------------------------------------------------------


def refused() -> socket.socket:
    raise ConnectionRefusedError(111, "Connection refused")


def test_nobody_there_is_told_soon_and_by_name() -> None:
    tries: list[int] = []

    def connect() -> socket.socket:
        tries.append(1)
        return refused()

    client = Client(connect, certificate()[0], "t", place='deployment "lab"', patience=0.3)
    with pytest.raises(UnreachableError) as told:
        HttpLedger(client).sweeps()
    assert len(tries) <= 4  # pauses double: a fifth would come after its patience
    assert str(told.value).startswith('deployment "lab": can\'t be reached (Connection refused)')
    assert told.value.exit_code == 4


def test_one_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        client = Client(lambda: socket.create_connection(address), certificate()[0], "t", patience=0.3)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="took too long"):
            HttpLedger(client).submit(SPEC, "s", [])
        assert time.monotonic() - began < 25  # with the usual patience: 15 s for each of two tries


def test_what_the_way_there_says_is_told(head) -> None:
    def no_way() -> socket.socket:
        raise UnreachableError("gpu1: no route")

    with pytest.raises(UnreachableError, match=r"^gpu1: no route$"):
        HttpLedger(Client(no_way, certificate()[0], "t")).sweeps()


def test_a_worker_waits_until_there_is_an_answer(tmp_path, wait_until) -> None:
    target: list[Head] = []
    lines: list[str] = []
    ledger = HttpLedger(
        Client(
            lambda: target[0].connect() if target else refused(),
            certificate()[0],
            "token of here",
            patience=None,
            notice=lines.append,
        )
    )
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ledger.renew("x")))
    asking.start()
    wait_until(lambda: lines)
    target.append(Head(tmp_path))
    asking.join(60)
    assert answers == ["stop"]
    assert [("asked again" in line, "answers again" in line) for line in lines] == [
        (True, False),
        (False, True),
    ]
    ledger.disconnect()
    target[0].stop()


def test_a_worker_that_closes_waits_no_longer(wait_until) -> None:
    closing, lines = threading.Event(), []
    client = Client(refused, certificate()[0], "t", patience=None, closing=closing, notice=lines.append)
    told: list[BaseException] = []

    def ask() -> None:
        try:
            HttpLedger(client).renew("x")
        except UnreachableError as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: lines)
    closing.set()
    asking.join(60)
    assert len(told) == 1


def test_close_ends_calls_that_wait(head, wait_until) -> None:
    ledger = HttpLedger(head.client())
    told: list[BaseException] = []

    def ask() -> None:
        try:
            ledger._client.call("ledger/changed", seen=ledger.changed(), wait=250)
        except UnreachableError as error:
            told.append(error)

    ledger.changed()
    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: len(ledger._client._busy) == 2)
    ledger.disconnect()
    ledger.disconnect()
    asking.join(60)
    assert len(told) == 1
    with pytest.raises(UnreachableError):
        ledger.sweeps()


def test_close_ends_a_call_that_connects_just_then(head) -> None:
    def connect() -> socket.socket:
        client.close()
        return head.connect()

    client = head.client(connect=connect)
    with pytest.raises(UnreachableError, match="was closed"):
        client.call("ledger/changed", seen=None, wait=0)
    assert not client._busy


# -- news ----------------------------------------------------------------------------------------------


def test_changes_are_seen_soon(head, people, wait_until) -> None:
    seen = people.changed()
    time.sleep(0.3)
    assert people.changed() == seen
    head.ledger.submit(SPEC, "s", [])
    wait_until(lambda: people.changed() != seen)


def test_news_go_on_after_a_restart(tmp_path, head, gate, people, wait_until) -> None:
    seen = people.changed()
    head.stop()
    again = Head(tmp_path)
    gate.target = again.address
    try:
        wait_until(lambda: people.changed() != seen)
    finally:
        again.stop()
