"""The ledger's second door, from outside: HTTP over TLS, to a service whose certificate is pinned."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from sweepfw.core.model import (
    Attempt,
    Denial,
    Draft,
    Grant,
    Objective,
    Outcome,
    Receipt,
    Spec,
    Sweep,
    Trial,
    TrialState,
    Worker,
)
from sweepfw.errors import SweepError
from sweepfw.ledger.remote_desk import HttpDesk
from sweepfw.ledger.rows import PAGE
from sweepfw.ledger.wire import forms
from sweepfw.ledger.wire.caller import Client
from sweepfw.ledger.wire.packs import spooled

__all__ = ["Client", "HttpDesk", "HttpLedger"]

_DRAFTS_A_LINE = 500
_NEWS = 30.0  # seconds that one question for news waits
_PAUSE = 0.1  # seconds between two of them, where much happens


class HttpLedger:
    """`interface.Ledger` over a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._call = client.call
        self._news = _News(client)

    def check_name(self, name: str) -> None:
        self._call("ledger/check_name", name=name)

    def submit(
        self,
        spec: Spec,
        snapshot: str,
        drafts: Iterable[Draft],
        *,
        name: str | None = None,
        note: str = "",
        provenance: Mapping[str, Any] | None = None,
        only: Collection[int] | None = None,
        uid: str | None = None,
    ) -> Sweep:
        settings = {"spec": forms.SPEC.dump(spec), "snapshot": snapshot, "name": name, "note": note}
        settings |= {"provenance": provenance, "only": None if only is None else sorted(only), "uid": uid}
        with spooled(_lines(settings, drafts)) as body:
            sweep: Sweep = self._call("ledger/submit", body=body)
        return sweep

    def annotate(self, uid: str, provenance: Mapping[str, Any]) -> None:
        self._call("ledger/annotate", uid=uid, provenance=provenance)

    def extend(self, uid: str, spec: Spec, drafts: Iterable[Draft]) -> int:
        with spooled(_lines({"uid": uid, "spec": forms.SPEC.dump(spec)}, drafts)) as body:
            added: int = self._call("ledger/extend", body=body)
        return added

    def register(self, worker: Worker) -> None:
        self._call("ledger/register", worker=worker)

    def open(self, uid: str) -> Sweep:
        sweep: Sweep = self._call("ledger/open", uid=uid)
        return sweep

    def runnable(self, uid: str, *, after: int = 0, limit: int = 100) -> list[int]:
        numbers: list[int] = self._call("ledger/runnable", uid=uid, after=after, limit=limit)
        return numbers

    def claim(self, uid: str, trial: int, worker: Worker, slot: str, claim_id: str) -> Grant | Denial:
        answer: Grant | Denial = self._call(
            "ledger/claim", uid=uid, trial=trial, worker=worker, slot=slot, claim_id=claim_id
        )
        return answer

    def granted(self, token: str) -> Grant | None:
        grant: Grant | None = self._call("ledger/granted", token=token)
        return grant

    def renew(self, token: str) -> Literal["go on", "stop", "stop now"]:
        order: Literal["go on", "stop", "stop now"] = self._call("ledger/renew", token=token)
        return order

    def expire(self, token: str) -> TrialState:
        state: TrialState = self._call("ledger/expire", token=token)
        return state

    def append_log(self, token: str, offset: int, data: bytes) -> int:
        end: int = self._call("ledger/append_log", body=data, token=token, offset=offset)
        return end

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        receipt: Receipt = self._call("ledger/finish", token=token, outcome=outcome)
        return receipt

    def flush(self) -> None:
        self._call("ledger/flush")

    def close(self, uid: str) -> bool:
        done: bool = self._call("ledger/close", uid=uid)
        return done

    def leave(self, uid: str) -> None:
        self._call("ledger/leave", uid=uid)

    def requeue(self, uid: str, *, state: Literal["interrupted", "lost"], why: str) -> list[int]:
        numbers: list[int] = self._call("ledger/requeue", uid=uid, state=state, why=why)
        return numbers

    def pause(self, uid: str, reason: str = "") -> None:
        self._call("ledger/pause", uid=uid, reason=reason)

    def stop(self, uid: str, trials: Collection[int] | None = None, *, now: bool = False) -> int:
        touched: int = self._call("ledger/stop", uid=uid, trials=trials, now=now)
        return touched

    def hold(self, uid: str, but: Collection[int]) -> int:
        count: int = self._call("ledger/hold", uid=uid, but=sorted(but))
        return count

    def reopen(
        self,
        uid: str,
        states: Collection[TrialState],
        trials: Collection[int] | None = None,
        *,
        snapshot: str | None = None,
    ) -> list[int]:
        numbers: list[int] = self._call(
            "ledger/reopen", uid=uid, states=states, trials=trials, snapshot=snapshot
        )
        return numbers

    def remove(self, uid: str) -> None:
        self._call("ledger/remove", uid=uid)

    def changed(self) -> int:
        """See Ledger.changed. Own changes count too, and all are seen within about a tenth of a second."""
        return self._news.number()

    def sweeps(self) -> list[Sweep]:
        sweeps: list[Sweep] = self._call("ledger/sweeps")
        return sweeps

    def sweep(self, name: str) -> Sweep:
        sweep: Sweep = self._call("ledger/sweep", name=name)
        return sweep

    def trials(
        self,
        uid: str,
        *,
        states: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        after: int = 0,
    ) -> Iterator[Trial]:
        """See Ledger.trials. What can't be given is told at once, not with the first trial."""
        wanted = None if numbers is None else sorted(numbers)
        chosen: dict[str, Any] = {
            "uid": uid,
            "states": None if states is None else list(states),
            "numbers": wanted,
        }
        page: list[Trial] = self._call("ledger/trials", after=after, **chosen)
        return self._more_trials(chosen, page)

    def _more_trials(self, chosen: dict[str, Any], page: list[Trial]) -> Iterator[Trial]:
        while True:
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].number
            if chosen["numbers"] is not None:
                chosen["numbers"] = [number for number in chosen["numbers"] if number > after]
            page = self._call("ledger/trials", after=after, **chosen)

    def contenders(self, uid: str, objective: Objective) -> Iterator[Trial]:
        found: list[Trial] | None = self._call("ledger/contenders", uid=uid, objective=objective)
        return self.trials(uid, states=("succeeded",)) if found is None else iter(found)

    def attempts(self, uid: str, trial: int | None = None, *, after: int = 0) -> Iterator[Attempt]:
        page: list[Attempt] = self._call("ledger/attempts", uid=uid, trial=trial, after=after)
        return self._more_attempts(uid, trial, page)

    def _more_attempts(self, uid: str, trial: int | None, page: list[Attempt]) -> Iterator[Attempt]:
        while True:
            yield from page
            if len(page) < PAGE or trial is not None:
                return
            page = self._call("ledger/attempts", uid=uid, trial=None, after=page[-1].trial)

    def running(self, uid: str) -> list[Attempt]:
        attempts: list[Attempt] = self._call("ledger/running", uid=uid)
        return attempts

    def host_of(self, token: str) -> str | None:
        host: str | None = self._call("ledger/host_of", token=token)
        return host

    def running_on(self, worker: Worker) -> list[tuple[str, Attempt]]:
        attempts: list[tuple[str, Attempt]] = self._call("ledger/running_on", worker=worker)
        return attempts

    def ended_since(self, uid: str, cursor: int) -> tuple[int, list[Attempt]]:
        ended: tuple[int, list[Attempt]] = self._call("ledger/ended_since", uid=uid, cursor=cursor)
        return ended

    def last_end(self, uid: str) -> int:
        last: int = self._call("ledger/last_end", uid=uid)
        return last

    def snapshots(self, uid: str | None = None) -> set[str]:
        ids: set[str] = self._call("ledger/snapshots", uid=uid)
        return ids

    def disconnect(self) -> None:
        """See Ledger.disconnect: the client is closed."""
        self._news.end()
        self._client.close()


class _News:
    """A number that follows the service's, asked for in a thread of its own from the first question on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._number: int | None = None

    def number(self) -> int:
        with self._lock:
            if self._number is None:
                self._number = int(self._client.call("ledger/changed", seen=None, wait=0))
                threading.Thread(target=self._follow, name="news", daemon=True).start()
            return self._number

    def end(self) -> None:
        self._ended.set()

    def _follow(self) -> None:
        seen = self._number or 0
        while not self._ended.wait(_PAUSE):
            try:
                seen = int(self._client.call("ledger/changed", seen=seen, wait=_NEWS))
                self._number = seen
            except SweepError:
                with self._lock:
                    self._number = None  # the next question is asked by the one who wants to know
                return


def _lines(arguments: Mapping[str, Any], drafts: Iterable[Draft]) -> Iterator[bytes]:
    """The call's arguments in the first line, drafts in the others."""
    dump = forms.dump_params
    yield json.dumps(arguments).encode() + b"\n"
    left = iter(drafts)
    while rows := [[dump(draft.params), draft.repeat] for draft in islice(left, _DRAFTS_A_LINE)]:
        yield json.dumps(rows).encode() + b"\n"
