"""What the service answers: from a call that may be made, through ledger and desk, to bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any, NamedTuple, Protocol

from sweepfw.core.model import Attempt, Draft, Objective, Trial, Worker
from sweepfw.errors import BusyError, DiskFullError, LedgerError, SweepError
from sweepfw.ledger.desk import Desk
from sweepfw.ledger.interface import Ledger
from sweepfw.ledger.rows import PAGE, Row
from sweepfw.ledger.wire import access, forms, packs
from sweepfw.ledger.wire.access import Caller
from sweepfw.ledger.wire.framing import PIECE, Body, BrokenError, MalformedError
from sweepfw.ledger.wire.methods import (
    BYTES_LIMIT,
    DRAFTS_LIMIT,
    JSON_LIMIT,
    LONGEST_WAIT,
    METHODS,
    Method,
)
from sweepfw.ledger.wire.once import Memory
from sweepfw.ledger.wire.shapes import MisshapenError, members

ARGUMENTS = "sweepfw-arguments"  # the field with a call's arguments, where its body is something else
REQUEST = "sweepfw-request"  # the id of a request that must not be done twice
SERVICE = "sweepfw-service"  # the service's own id; in a request: the one that was asked first
_DRAFTS_LINE = 64_000_000
_LARGE = 1_000_000  # bytes of a message that is held in memory
_LARGE_AT_ONCE = 4  # such messages of one caller
_PATIENCE = 60.0  # seconds that another of them waits
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Watched(Ledger, Protocol):
    """A ledger that tells of its changes at once, and gives trials as they are stored: a SqliteLedger."""

    def wait_changed(self, seen: int, timeout: float) -> int: ...
    def trial_rows(
        self, uid: str, states: Collection[str] | None, numbers: Collection[int] | None, after: int
    ) -> list[Row]: ...


class Call(NamedTuple):
    """A request that was let in so far: who may call this path. The body is still to be read."""

    caller: Caller
    path: str
    fields: Mapping[str, str]
    body: Body


class Answer(NamedTuple):
    """`pieces` follow instead of a body where there are any."""

    status: int
    body: bytes = b"null"
    pieces: Iterator[bytes] | None = None


class Answers:
    """Safe to ask from many threads."""

    def __init__(self, ledger: Watched, desk: Desk, report: Callable[[str], None]) -> None:
        self.service = os.urandom(8).hex()
        self._doors: Mapping[str, object] = {"ledger": _Served(ledger, self.service), "desk": desk}
        self._ledger = ledger
        self._report = report
        self._memory: Memory[Answer] = Memory()
        self._hosts: dict[str, str] = {}  # token -> host: asked for with every call of a worker's
        self._rooms: dict[Caller, threading.Semaphore] = {}

    def answer(self, call: Call) -> Answer:
        """Never raises but MalformedError and BrokenError: the connection is of no more use then."""
        try:
            return self._answer(call)
        except (MalformedError, BrokenError):
            raise
        except Exception as error:
            answer = failure(error)
            if answer.status == 500:
                self._report(f"{call.path}: {traceback.format_exc()}")
            return answer

    def _answer(self, call: Call) -> Answer:
        method = METHODS[call.path]
        with self._room(method, call), _reading(method, call) as (data, body):
            arguments = members(method.takes, data)
            if method.body[1]:
                arguments[method.body[1]] = body
            if not access.may_ask(call.caller, arguments, self._host_of):
                return refusal(403, "this token is another host's")
            if method.current and self._ledger.granted(arguments["token"]) is None:
                return refusal(403, "this token's attempt does not run any more")
            if method.involved and not self._runs(call.caller, arguments["uid"]):
                return refusal(403, "this worker runs no trial of that sweep")
            if "wait" in arguments:
                arguments["wait"] = min(max(arguments["wait"], 0.0), LONGEST_WAIT)
            request = call.fields.get(REQUEST)
            if not method.once or request is None:
                return self._do(call.path, method, arguments)
            key = (call.caller, call.path, request)
            if call.fields.get(SERVICE, self.service) != self.service:
                return refusal(
                    409,
                    "the head was started anew while it was asked, and nobody knows whether it was done; "
                    "look with: sweepfw ls",
                    "UnreachableError",
                )
            return self._memory.answer(key, lambda: self._settled(call.path, method, arguments))

    @contextmanager
    def _room(self, method: Method, call: Call) -> Iterator[None]:
        """Large messages of one caller wait for one another: no token may fill our memory."""
        length = call.body.length
        if method.body[0] in ("drafts", "pack") or (length is not None and length <= _LARGE):
            yield
            return
        room = self._rooms.setdefault(call.caller, threading.Semaphore(_LARGE_AT_ONCE))
        if not room.acquire(timeout=_PATIENCE):
            raise BusyError("too many large calls at once; ask again later")
        try:
            yield
        finally:
            room.release()

    def _settled(self, path: str, method: Method, arguments: dict[str, Any]) -> Answer:
        """The answer, also where it is a refusal: a repetition gets the same."""
        try:
            return self._do(path, method, arguments)
        except (SweepError, ValueError) as error:
            answer = failure(error)
            if answer.status == 503:
                raise
            return answer

    def _do(self, path: str, method: Method, arguments: dict[str, Any]) -> Answer:
        door, _, name = path.partition("/")
        found = getattr(self._doors[door], name)(**arguments)
        if method.stream:
            return Answer(204, b"") if found is None else _streamed(found)
        return Answer(200, _json(method.gives.dump(found)))

    def _runs(self, caller: Caller, uid: str) -> bool:
        everywhere = Worker(caller.host or "", "")
        return any(found == uid for found, _ in self._ledger.running_on(everywhere))

    def _host_of(self, token: str) -> str | None:
        host = self._hosts.get(token) or self._ledger.host_of(token)
        if host is not None:
            if len(self._hosts) > 10_000:
                self._hosts.clear()
            self._hosts[token] = host
        return host


class _Served:
    """The ledger with what is done otherwise over a wire: lists in pages, drafts from a file."""

    def __init__(self, ledger: Watched, service: str) -> None:
        self._ledger = ledger
        self._base = int(service[:8], 16) << 32  # versions of different services differ

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def changed(self, seen: int | None, wait: float) -> int:
        known = -1 if seen is None else seen - self._base
        return self._base + self._ledger.wait_changed(known, wait if known >= 0 else 0)

    def trials(self, **chosen: Any) -> list[Row]:
        return self._ledger.trial_rows(**chosen)

    def contenders(self, uid: str, objective: Objective) -> list[Trial] | None:
        """None for more than a page of them: the client ranks all trials then."""
        found = list(islice(self._ledger.contenders(uid, objective), PAGE + 1))
        return found if len(found) <= PAGE else None

    def attempts(self, uid: str, trial: int | None, after: int) -> list[Attempt]:
        """A page, and the rest of its last trial's."""
        found: list[Attempt] = []
        for attempt in self._ledger.attempts(uid, trial, after=after):
            if len(found) >= PAGE and attempt.trial != found[-1].trial and trial is None:
                break
            found.append(attempt)
        return found


def refusal(status: int, why: str, kind: str = "SweepError") -> Answer:
    return Answer(status, _json({"error": why, "kind": kind}))


def failure(error: Exception) -> Answer:
    """An error as the client gets it: the user's own failures by their class, ours without their insides."""
    if isinstance(error, SweepError):
        busy = isinstance(error, (BusyError, DiskFullError, LedgerError))
        return refusal(503 if busy else 409, str(error), type(error).__name__)
    if isinstance(error, (MisshapenError, UnicodeError, RecursionError)):
        return refusal(400, f"the head was asked in a way that it does not understand: {error}")
    if isinstance(error, ValueError):
        return refusal(400, str(error), "ValueError")
    if isinstance(error, OSError):
        kind = DiskFullError if error.errno in _FULL else LedgerError
        return refusal(503, f"the head's disk failed: {error.strerror or error}", kind.__name__)
    return refusal(500, f"the head failed ({type(error).__name__}); its log says more: please report it")


# -- reading a call ------------------------------------------------------------------------------------


@contextmanager
def _reading(method: Method, call: Call) -> Iterator[tuple[Any, Any]]:
    """A call's arguments, and what its body is to the method: bytes, a file, drafts, or nothing."""
    kind, body = method.body[0], call.body
    if kind == "":
        yield _parse(body.all(JSON_LIMIT[call.caller.role])), None
        return
    if kind == "drafts":
        # In a file first: a slow link must not keep the ledger waiting in the middle of a transaction.
        with packs.spooled(_limited(body)) as spool:
            yield _parse(spool.readline(_DRAFTS_LINE)), _drafts(spool)
        return
    arguments = _parse(call.fields.get(ARGUMENTS, "{}").encode())
    if kind == "bytes":
        yield arguments, body.all(BYTES_LIMIT)
        return
    limit = None if call.caller.host is None else method.limit
    yield arguments, io.BufferedReader(body if limit is None else _Limited(body, limit), PIECE)


class _Limited(io.RawIOBase):
    """A body of which no more than so many bytes are taken."""

    def __init__(self, body: Body, limit: int) -> None:
        self._body, self._left, self._limit = body, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, room: memoryview) -> int:  # type: ignore[override]  # the stub's Buffer is 3.12's
        size = self._body.readinto(room)
        self._left -= size
        if self._left < 0:
            raise MalformedError(413, f"the body is larger than {self._limit} bytes")
        return size


def _limited(body: Body) -> Iterator[bytes]:
    size = 0
    for piece in body.pieces():
        size += len(piece)
        if size > DRAFTS_LIMIT:
            raise MalformedError(413, f"the body is larger than {DRAFTS_LIMIT} bytes")
        yield piece


def _drafts(spool: IO[bytes]) -> Iterator[Draft]:
    """Each line holds some."""
    while line := spool.readline(_DRAFTS_LINE):
        for params, repeat in forms.DRAFTS.load(_parse(line)):
            yield Draft(forms.load_params(params), repeat)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise MisshapenError("it is no JSON") from None


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _streamed(pieces: Iterator[bytes]) -> Answer:
    """What can't be given is told before the first byte."""
    first = next(pieces, b"")
    return Answer(200, b"", chain((first,), pieces))
