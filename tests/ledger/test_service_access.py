"""Who may call what at the service."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ledger_doors import SPEC, drafts
from ledger_service import PEOPLE, Head, token

from sweepfw.core.model import Outcome, Worker
from sweepfw.errors import SweepError
from sweepfw.ledger.client import HttpDesk, HttpLedger
from sweepfw.ledger.desk import Desk
from sweepfw.ledger.interface import Ledger
from sweepfw.ledger.wire.access import Access, Caller, may_ask
from sweepfw.ledger.wire.methods import METHODS

ME, OTHER = Worker("here", "b1"), Worker("elsewhere", "b2")

# What each may call at all. All that isn't here is for people.
WORKERS_ALONE = {
    *("register", "claim", "renew", "append_log", "finish"),
    *("announce", "orders", "keep", "conclude", "put_checkpoint", "secrets", "environment_lock"),
}
BOTH = {"granted", "sweep", "running_on", "manifest", "contents", "checkpoint"}


@pytest.fixture
def head(tmp_path) -> Iterator[Head]:
    head = Head(tmp_path)
    yield head
    head.stop()


def ask(head: Head, shown: str | None, path: str = "/ledger/sweeps", **options: Any) -> tuple[int, Any]:
    """What one message gets for an answer."""
    verb, host = options.get("verb", "POST"), options.get("host", "head")
    lines = f"{verb} {path} {options.get('version', 'HTTP/1.1')}\r\n"
    lines += f"Host: {host}\r\n" if host else ""
    lines += f"Authorization: {shown}\r\n" if shown is not None else ""
    body = options.get("body", b"{}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(head.connect()) as tls:
        tls.sendall(f"{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        answer = b""
        while piece := tls.recv(65_536):
            answer += piece
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), json.loads(rest)


def test_every_method_of_ledger_and_desk_is_in_the_table() -> None:
    ours = {f"ledger/{name}" for name in vars(Ledger) if name[0] != "_" and name != "disconnect"}
    ours |= {f"desk/{name}" for name in vars(Desk) if name[0] != "_"}
    assert set(METHODS) == ours
    for path in METHODS:
        door = HttpLedger if path.startswith("ledger/") else HttpDesk
        assert path.split("/")[1] in vars(door), path


@pytest.mark.parametrize("path", sorted(METHODS))
def test_each_method_is_for_whom_it_should_be(head, path) -> None:
    name = path.split("/")[1]
    people, _ = ask(head, f"Bearer {PEOPLE}", f"/{path}", body=b"[]")
    worker, told = ask(head, f"Bearer {token('here')}", f"/{path}", body=b"[]")
    assert (people == 403) == (name in WORKERS_ALONE)
    assert (worker == 403) == (name not in WORKERS_ALONE | BOTH), told
    assert {people, worker} <= {200, 204, 400, 403}


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {PEOPLE}", f"Bearer {PEOPLE}x", PEOPLE]
)
def test_nobody_gets_in_without_a_token(head, shown) -> None:
    for path in ("/", "/ledger/sweeps", "/nosuch"):
        status, told = ask(head, shown, path)
        assert (status, told["kind"]) == (401, "SweepError")
        assert PEOPLE not in told["error"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 200),
        ({"path": "/nosuch"}, 404),
        ({"path": "/ledger/disconnect"}, 404),
        ({"path": "/ledger/_people"}, 404),
        ({"path": "/ledger/trial_rows"}, 404),  # there, but no call
        ({"verb": "GET"}, 405),
        ({"verb": "PUT"}, 405),
        ({"verb": "POST", "path": "/"}, 405),
        ({"version": "HTTP/1.0"}, 505),
        ({"version": "HTTP/2"}, 505),
        ({"host": "evil.example"}, 421),
        ({"host": "head.evil.example:7443"}, 421),
        ({"host": ""}, 400),
        ({"host": "127.0.0.1:7443"}, 200),
        ({"host": "[::1]:7443"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "172.18.0.2"}, 200),
    ],
)
def test_what_is_no_call_of_ours_is_refused(head, options, status) -> None:
    path = options.pop("path", "/ledger/sweeps")
    assert ask(head, f"Bearer {PEOPLE}", path, **options)[0] == status


@pytest.fixture
def ledgers(head) -> Callable[[str | None], HttpLedger]:
    return lambda host: HttpLedger(head.client(host))


@pytest.fixture
def grant(head, ledgers) -> Any:
    uid = ledgers(None).submit(SPEC, "s", drafts(2)).uid
    return ledgers("here").claim(uid, 1, ME, "0", "c1")


def test_a_worker_speaks_for_its_own_host_only(ledgers, grant) -> None:
    other = ledgers("elsewhere")
    for ask_for in (
        lambda: other.register(ME),
        lambda: other.claim(grant.uid, 2, ME, "0", "c2"),
        lambda: other.running_on(ME),
        lambda: HttpDesk(other._client).orders(ME, 0, 0),
    ):
        with pytest.raises(SweepError, match="another host's"):
            ask_for()
    other.register(OTHER)
    assert other.running_on(OTHER) == []


def test_a_worker_speaks_of_its_own_attempts_only(head, ledgers, grant, tmp_path) -> None:
    mine, other = ledgers("here"), ledgers("elsewhere")
    desk = HttpDesk(other._client)
    for ask_for in (
        lambda: other.granted(grant.token),
        lambda: other.renew(grant.token),
        lambda: other.append_log(grant.token, 0, b"x"),
        lambda: other.finish(grant.token, Outcome("failed")),
        lambda: desk.keep(grant.token, (tmp_path / "key.pem").open("rb")),
        lambda: desk.conclude(grant.token, 0, b"", {}, Outcome("failed")),
        lambda: desk.put_checkpoint(grant.token, (tmp_path / "key.pem").open("rb")),
        lambda: desk.checkpoint(grant.token),
        lambda: desk.secrets(grant.token),
    ):
        with pytest.raises(SweepError, match="another host's"):
            ask_for()
    assert mine.renew(grant.token) == "go on"
    assert mine.finish(grant.token, Outcome("succeeded", ended=5.0)).accepted
    with pytest.raises(SweepError, match="another host's"):  # also when it has ended
        other.finish(grant.token, Outcome("failed"))


def test_secrets_are_for_the_attempt_that_runs_on_the_host_that_asks(head, ledgers, grant) -> None:
    people, mine = (HttpDesk(ledgers(host)._client) for host in (None, "here"))
    people.put_secrets("0" * 16, {"KEY": bytes(range(256)), "pip.conf": b""})
    assert mine.secrets(grant.token) == {"KEY": bytes(range(256)), "pip.conf": b""}
    assert repr(mine.secrets(grant.token)) == "Secrets(KEY=***, pip.conf=***)"
    for host, name, given in (
        (None, "secrets", {"token": grant.token}),
        ("here", "put_secrets", {"uid": "0" * 16, "values": {}}),
        ("elsewhere", "secrets", {"token": grant.token}),
        ("here", "secrets", {"token": "0" * 16}),
    ):
        shown = f"Bearer {PEOPLE if host is None else token(host)}"
        assert ask(head, shown, f"/desk/{name}", body=json.dumps(given).encode())[0] == 403
    ledgers("here").finish(grant.token, Outcome("failed", ended=5.0, again=True))
    status, told = ask(
        head, f"Bearer {token('here')}", "/desk/secrets", body=b'{"token": "%b"}' % grant.token.encode()
    )
    assert (status, told["error"]) == (403, "this token's attempt does not run any more")


def test_as_many_secrets_as_there_may_be_pass(head, ledgers, grant) -> None:
    values = {f"A{number}": bytes([number]) * 1_000_000 for number in range(16)}
    HttpDesk(ledgers(None)._client).put_secrets("0" * 16, values)
    assert HttpDesk(ledgers("here")._client).secrets(grant.token) == values


def test_a_token_that_nobody_has_is_answered_as_the_ledger_does(ledgers) -> None:
    assert ledgers("here").renew("0" * 16) == "stop"
    assert ledgers("here").granted("0" * 16) is None


def test_a_head_started_anew_knows_whose_a_token_is(tmp_path, grant, head) -> None:
    head.stop()
    again = Head(tmp_path)
    try:
        with pytest.raises(SweepError, match="another host's"):
            HttpLedger(again.client("elsewhere")).renew(grant.token)
        assert HttpLedger(again.client("here")).renew(grant.token) == "go on"
    finally:
        again.stop()


def test_tokens_must_differ() -> None:
    for people, workers in (("x", {"a": "x"}), ("x", {"a": "y", "b": "y"}), ("", {}), ("x", {"a": ""})):
        with pytest.raises(ValueError, match="tokens"):
            Access(people, workers)


def test_people_may_ask_about_every_token() -> None:
    assert may_ask(Caller(None), {"token": "t", "worker": ME}, lambda token: "elsewhere")
    assert not may_ask(Caller("here"), {"token": "t"}, lambda token: "elsewhere")
