"""Every call with values made from its own shape, right and wrong, by people and by workers, in any order, on
a real ledger and the head's own desk: no failure of ours, and the ledger's invariants hold.

The same examples in every run. For others, and more of them: SWEEPFW_FUZZ=2000 (examples).
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from attacked_head import A, AttackedHead, B
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ledger_doors import SPEC, drafts
from ledger_service import PEOPLE, token
from ledger_wire import Reply, framed, one_reply, opening
from shape_values import BYTES, JSON, Known, arguments, values

from sweepfw.core.model import Grant
from sweepfw.ledger.wire import answers
from sweepfw.ledger.wire.methods import METHODS

MORE = int(os.environ.get("SWEEPFW_FUZZ", 0))
EXAMPLES = MORE or 40
CALLS = 12  # one after the other, in each example
# The ledger goes on from one example to the next, so that a failure can't be made smaller.
_QUIET: dict[str, Any] = {
    "derandomize": not MORE,
    "database": None,
    "phases": (Phase.explicit, Phase.generate),
    "deadline": None,
}
PATHS = sorted(METHODS)
DEEP = {f"ledger/{name}" for name in ("claim", "finish", "renew", "expire", "requeue", "reopen", "register")}
DEEP |= {"desk/conclude"}  # the ledger's protocol: where something can be doubled or lost


@pytest.fixture(scope="module")
def head() -> Iterator[AttackedHead]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "LONGEST_WAIT", 0.01)
        found = AttackedHead(Path(folder))
        yield found
        found.stop()


class Talk:
    """Calls on one kept connection for each caller, as clients make them."""

    def __init__(self, head: AttackedHead) -> None:
        self.head = head
        self._lines: dict[str, tuple[ssl.SSLSocket, IO[bytes]]] = {}

    def ask(self, path: str, shown: str, told: str, body: bytes | None) -> Reply:
        lines = opening(f"/{path}", shown=shown)
        message = lines + framed(told.encode() if body is None else body)
        if body is not None and METHODS[path].body[0] != "drafts":
            message = lines + f"Sweepfw-Arguments: {told}\r\n".encode() + framed(body)
        if shown not in self._lines:
            stream = self.head.tls()
            self._lines[shown] = stream, stream.makefile("rb")
        stream, file = self._lines[shown]
        stream.sendall(message)
        reply = one_reply(file) or Reply(0)
        if not reply.lasting:
            self._close(shown)
        return reply

    def close(self) -> None:
        for shown in list(self._lines):
            self._close(shown)

    def _close(self, shown: str) -> None:
        for end in self._lines.pop(shown):
            end.close()


class There(NamedTuple):
    """Stands for something that the ledger has when it is asked: what is drawn does not depend on that."""

    what: str
    at: int


def there(what: str) -> st.SearchStrategy[There]:
    return st.integers(0, 30).map(lambda at: There(what, at))


def resolved(told: Any, head: AttackedHead) -> Any:
    if isinstance(told, There):
        sweeps = head.ledger.sweeps()
        found = {
            "uid": [sweep.uid for sweep in sweeps],
            "name": [sweep.name for sweep in sweeps],
            "token": [each.token for sweep in sweeps for each in head.ledger.running(sweep.uid)]
            + [each.token for sweep in sweeps[:2] for each in head.ledger.attempts(sweep.uid)][-3:],
        }[told.what] or ["0" * 16]
        return found[told.at % len(found)]
    if isinstance(told, dict):
        return {name: resolved(value, head) for name, value in told.items()}
    return [resolved(value, head) for value in told] if isinstance(told, list) else told


OUTCOME = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["succeeded", "failed", "cancelled", "interrupted", "lost", "running"]),
        "reason": st.sampled_from(["", "host lost", "x"]),
        "exit_code": st.sampled_from([0, 1, None]),
        "ended": st.sampled_from([0, 5.0]),
        "metrics": st.just({}),
        "details": st.just({}),
        "again": st.booleans(),
    }
)


def known(path: str) -> Known:
    """What is there: so that calls reach what they are about."""
    new = path == "ledger/submit"
    workers = [worker._asdict() for worker in (A, B)]
    few = st.integers(1, 6)
    return {
        "uid": st.none() if new else there("uid"),
        "token": there("token"),
        "name": st.none() if new else there("uid") | there("name"),
        "spec": st.just({"project": "p", "task": "t", "command": ["true"]}),
        "provenance": st.just({}),
        "outcome": OUTCOME,
        "log": st.sampled_from(["", "eA=="]),
        "files": st.sampled_from([{}, {"f": "eA=="}, {"a/b": ""}]),
        "trial": few,
        "attempt": st.integers(1, 2),
        "worker": st.sampled_from(workers),
        "host": st.sampled_from(["a", "b"]),
        "boot": st.sampled_from(["a1", "b1", "c1"]),
        "state": st.sampled_from(["succeeded", "failed", "cancelled", "interrupted", "lost"]),
        "states": st.lists(st.sampled_from(["failed", "cancelled", "held", "queued", "succeeded"])),
        "only": st.none() | st.lists(few),
        "trials": st.none() | st.lists(few),
        "numbers": st.none() | st.lists(few),
        "snapshot": st.just("5" * 24),
        "offset": st.just(0) | st.integers(0, 3),
        "claim_id": st.sampled_from(["c1", "c2", "c3", "x"]),
        "slot": st.just("0"),
        "ended": st.just(5.0),
        "wait": st.just(0),
        "seen": st.just(0),
        "path": st.sampled_from(["output.log", "f"]),
    }


def settle(head: AttackedHead) -> None:
    """There is always something to attack: two new attempts run, beside what the examples before left."""
    for sweep in head.ledger.sweeps()[:-3]:
        head.desk.forget(sweep.uid)
    uid = head.ledger.submit(SPEC, "5" * 24, drafts(6)).uid
    head.desk.put_secrets(uid, {"NAME": b"a value that nobody may see"})
    for number, worker in ((1, A), (2, B)):
        assert isinstance(head.ledger.claim(uid, number, worker, "0", f"c{number}"), Grant)


def text(told: Any, *, plain: bool) -> str:
    """JSON as it is sent; in a field of the message's head it can be ASCII alone."""
    return json.dumps(told).replace("\x7f", "\\u007f") if plain else json.dumps(told)


def one(talk: Talk, data: st.DataObject, path: str) -> None:
    method, head = METHODS[path], talk.head
    told = resolved(data.draw(ARGUMENTS[path], path), head)
    kind, body = method.body[0], None
    said = text(told, plain=bool(kind))
    if kind == "drafts":
        rows = data.draw(st.just([[{"x": "1"}, 1]]) | DRAFTS | JSON)
        body = said.encode() + b"\n" + json.dumps(rows).encode() + b"\n"
    elif kind:
        body = data.draw(st.binary(max_size=60) | BYTES.map(lambda t: t.encode("utf-8", "replace")))
    shown = data.draw(st.sampled_from(CALLERS[method.who]))
    if shown == OWN:
        shown = token(host_of(told, head))
    reply = talk.ask(path, shown, said, body)
    assert reply.status in (200, 204, 400, 403, 409, 413), (path, reply)
    assert b"Traceback" not in reply.body and b'File "' not in reply.body
    if path != "desk/secrets":
        assert b"YSB2YWx1ZSB0aGF0IG5vYm9keQ" not in reply.body  # the secret, as it crosses the wire


def host_of(told: Any, head: AttackedHead) -> str:
    """The host that may ask this."""
    told = told if isinstance(told, dict) else {}
    worker, shown = told.get("worker"), told.get("token")
    host = worker.get("host") if isinstance(worker, dict) else None
    if isinstance(shown, str):
        with suppress(ValueError):  # a text that the ledger can't hold
            host = head.ledger.host_of(shown)
    return host if host in ("a", "b") else "a"


OWN = ""  # stands for the token of the host that the call is about
CALLERS = {
    "people": (PEOPLE, PEOPLE, PEOPLE, token("a")),
    "worker": (OWN, OWN, OWN, token("a"), PEOPLE),
    "both": (PEOPLE, OWN, token("b")),
}
ARGUMENTS = {path: arguments(method.takes, known(path)) | JSON for path, method in METHODS.items()}
DRAFTS = values(answers.forms.DRAFTS, {})


def test_every_argument_has_values() -> None:
    for path, method in METHODS.items():
        for name, form in method.takes.items():
            assert values(form, {}) is not None, (path, name)


@settings(max_examples=EXAMPLES, **_QUIET)
@given(data=st.data())
def test_no_calls_in_any_order_are_our_fault(head: AttackedHead, data: st.DataObject) -> None:
    head.reports.clear()
    settle(head)
    talk = Talk(head)
    try:
        for path in data.draw(st.lists(st.sampled_from(PATHS), min_size=CALLS, max_size=CALLS)):
            one(talk, data, path)
    finally:
        talk.close()
    head.check()


@pytest.mark.parametrize("path", PATHS)
def test_each_call_is_answered_whatever_it_is_given(head: AttackedHead, path: str) -> None:
    """So that none is left out by luck."""

    @settings(max_examples=max(30 if path in DEEP else 5, MORE // 10), **_QUIET)
    @given(data=st.data())
    def each(data: st.DataObject) -> None:
        if path in DEEP:
            settle(head)
        one(talk, data, path)

    head.reports.clear()
    settle(head)
    talk = Talk(head)
    try:
        each()
    finally:
        talk.close()
    head.check()
    head.well()
