"""Who calls, and whether they may: people all but what workers alone do, workers what their attempts need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, NamedTuple

from sweepfw.ledger.wire.methods import METHODS


class Caller(NamedTuple):
    """People, or the worker of a host."""

    host: str | None  # None: people

    @property
    def role(self) -> str:
        return "people" if self.host is None else "worker"


class Access:
    """The tokens that were given out."""

    def __init__(self, people: str, workers: Mapping[str, str]) -> None:
        given = [(people, Caller(None)), *((token, Caller(host)) for host, token in workers.items())]
        if not all(token for token, _ in given) or len({token for token, _ in given}) != len(given):
            raise ValueError("tokens must differ, and none may be empty")
        # Looked up by its digest, which tells a guesser nothing about the token.
        self._given = {sha256(token.encode()).digest(): (token.encode(), caller) for token, caller in given}

    def caller(self, authorization: str | None) -> Caller | None:
        """Who shows this `Authorization`; None for nobody."""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return None
        shown = token.strip().encode("utf-8", "replace")
        expected, caller = self._given.get(sha256(shown).digest(), (b"", None))
        return caller if compare_digest(expected, shown) else None


def may_call(caller: Caller, path: str) -> bool:
    """Whether this method is for them at all; asked before anything of the call is read."""
    return METHODS[path].who in (caller.role, "both")


def may_ask(caller: Caller, arguments: Mapping[str, Any], host_of: Callable[[str], str | None]) -> bool:
    """Whether a worker speaks for itself, and of attempts that were granted to its host.

    A token that nobody has is no secret: the ledger answers it as one of a sweep that was removed.
    """
    if caller.host is None:
        return True
    if (worker := arguments.get("worker")) is not None and worker.host != caller.host:
        return False
    token = arguments.get("token")
    return token is None or host_of(token) in (caller.host, None)
