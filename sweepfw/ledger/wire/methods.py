"""Every call that can be made: its arguments and answer, who may make it, and what a repetition does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from sweepfw.ledger.wire import forms
from sweepfw.ledger.wire.forms import WORKER
from sweepfw.ledger.wire.shapes import ANY, FLAG, PLAIN, REAL, TEXT, WHOLE, Form, many, mapping, maybe, one_of

Who: TypeAlias = Literal["people", "worker", "both"]

LONGEST_WAIT = 60.0  # seconds that a question may wait for news
DRAFTS_LIMIT = 2_000_000_000  # bytes of a submitted list of trials
JSON_LIMIT: Mapping[str, int] = {"people": 64_000_000, "worker": 16_000_000}  # bytes of a call
BYTES_LIMIT = 64_000_000  # bytes of a log's piece or a manifest
_KEEP_LIMIT = 128_000_000


class Method(NamedTuple):
    """`once`: a repetition would do it twice, so the service remembers its first answer. `body`: what the
    message's body is, where that is not the arguments, and the argument that gets it. `limit`: bytes of a
    worker's pack. `slow`: its answer may take minutes. `current`: only for the attempt that its trial has
    now. `involved`: only for workers that run a trial of the sweep."""

    who: Who
    takes: Mapping[str, Form] = {}
    gives: Form = ANY
    once: bool = False
    body: tuple[Literal["", "bytes", "drafts", "pack"], str] = ("", "")
    stream: bool = False  # its answer is bytes of any length
    limit: int | None = None
    slow: bool = False
    current: bool = False
    involved: bool = False


_DRAFTS: tuple[Literal["drafts"], str] = ("drafts", "drafts")
_PACK: tuple[Literal["pack"], str] = ("pack", "pack")
_UID: Mapping[str, Form] = {"uid": TEXT}
_TOKEN: Mapping[str, Form] = {"token": TEXT}
_ONE: Mapping[str, Form] = {"uid": TEXT, "trial": WHOLE, "attempt": WHOLE}
_NUMBERS = maybe(many(WHOLE))
_WORDS = maybe(many(TEXT))

METHODS: Mapping[str, Method] = {
    # -- the ledger
    "ledger/check_name": Method("people", {"name": TEXT}),
    "ledger/submit": Method(
        "people",
        {
            "spec": forms.SPEC,
            "snapshot": TEXT,
            "name": maybe(TEXT),
            "note": TEXT,
            "provenance": maybe(PLAIN),
            "only": _NUMBERS,
            "uid": maybe(TEXT),
        },
        forms.SWEEP,
        once=True,
        body=_DRAFTS,
        slow=True,
    ),
    "ledger/annotate": Method("people", {"uid": TEXT, "provenance": PLAIN}, once=True),
    "ledger/extend": Method(
        "people", {"uid": TEXT, "spec": forms.SPEC}, WHOLE, once=True, body=_DRAFTS, slow=True
    ),
    "ledger/register": Method("worker", {"worker": WORKER}),
    "ledger/open": Method("people", _UID, forms.SWEEP, once=True),
    "ledger/runnable": Method("people", {"uid": TEXT, "after": WHOLE, "limit": WHOLE}, many(WHOLE)),
    "ledger/claim": Method(
        "worker",
        {"uid": TEXT, "trial": WHOLE, "worker": WORKER, "slot": TEXT, "claim_id": TEXT},
        forms.CLAIMED,
    ),
    "ledger/granted": Method("both", _TOKEN, maybe(forms.GRANT)),
    "ledger/renew": Method("worker", _TOKEN, TEXT),
    "ledger/expire": Method("people", _TOKEN, TEXT, once=True),
    "ledger/append_log": Method("worker", {"token": TEXT, "offset": WHOLE}, WHOLE, body=("bytes", "data")),
    "ledger/finish": Method("worker", {"token": TEXT, "outcome": forms.OUTCOME}, forms.RECEIPT),
    "ledger/flush": Method("people"),
    "ledger/close": Method("people", _UID, FLAG, once=True),
    "ledger/leave": Method("people", _UID, once=True),
    "ledger/requeue": Method(
        "people",
        {"uid": TEXT, "state": one_of("interrupted", "lost"), "why": TEXT},
        many(WHOLE),
        once=True,
    ),
    "ledger/pause": Method("people", {"uid": TEXT, "reason": TEXT}, once=True),
    "ledger/stop": Method("people", {"uid": TEXT, "trials": _NUMBERS, "now": FLAG}, WHOLE, once=True),
    "ledger/hold": Method("people", {"uid": TEXT, "but": many(WHOLE)}, WHOLE, once=True),
    "ledger/reopen": Method(
        "people",
        {"uid": TEXT, "states": many(TEXT), "trials": _NUMBERS, "snapshot": maybe(TEXT)},
        many(WHOLE),
        once=True,
    ),
    "ledger/remove": Method("people", _UID, once=True, slow=True),
    "ledger/changed": Method("people", {"seen": maybe(WHOLE), "wait": REAL}, WHOLE),
    "ledger/sweeps": Method("people", {}, many(forms.SWEEP)),
    "ledger/sweep": Method("both", {"name": TEXT}, forms.SWEEP),
    "ledger/trials": Method(
        "people",
        {"uid": TEXT, "states": _WORDS, "numbers": _NUMBERS, "after": WHOLE},
        forms.TRIAL_ROWS,
    ),
    "ledger/contenders": Method(
        "people", {"uid": TEXT, "objective": forms.OBJECTIVE}, maybe(many(forms.TRIAL))
    ),
    "ledger/attempts": Method(
        "people", {"uid": TEXT, "trial": maybe(WHOLE), "after": WHOLE}, many(forms.ATTEMPT)
    ),
    "ledger/running": Method("people", _UID, many(forms.ATTEMPT)),
    "ledger/host_of": Method("people", _TOKEN, maybe(TEXT)),
    "ledger/running_on": Method("both", {"worker": WORKER}, forms.HELD),
    "ledger/ended_since": Method("people", {"uid": TEXT, "cursor": WHOLE}, forms.ENDED),
    "ledger/last_end": Method("people", _UID, WHOLE),
    "ledger/snapshots": Method("people", {"uid": maybe(TEXT)}, many(TEXT, set)),
    # -- the desk
    "desk/announce": Method("worker", {"worker": WORKER, "advert": forms.ADVERT}),
    "desk/orders": Method(
        "worker", {"worker": WORKER, "seen": WHOLE, "wait": REAL, "connected": FLAG}, forms.ORDERS
    ),
    "desk/environment_lock": Method(
        "worker", {"uid": TEXT, "snapshot": TEXT, "text": maybe(TEXT)}, maybe(TEXT), involved=True
    ),
    "desk/lacks": Method("people", {"digests": many(TEXT)}, many(TEXT, set)),
    "desk/put_contents": Method("people", body=_PACK, slow=True),
    "desk/put_manifest": Method("people", {"id": TEXT}, body=("bytes", "text"), slow=True),
    "desk/manifest": Method("both", {"id": TEXT}, forms.BYTES),
    "desk/contents": Method("both", {"digests": many(TEXT)}, stream=True),
    "desk/keep": Method("worker", _TOKEN, body=_PACK, limit=_KEEP_LIMIT, slow=True),
    "desk/conclude": Method(
        "worker",
        {
            "token": TEXT,
            "offset": WHOLE,
            "log": forms.BYTES,
            "files": mapping(forms.BYTES),
            "outcome": forms.OUTCOME,
        },
        forms.RECEIPT,
    ),
    "desk/put_checkpoint": Method("worker", _TOKEN, FLAG, body=_PACK, slow=True),
    "desk/checkpoint": Method("both", _TOKEN, stream=True),
    "desk/put_secrets": Method("people", {"uid": TEXT, "values": mapping(forms.BYTES)}, slow=True),
    "desk/secrets": Method("worker", _TOKEN, forms.SECRETS, current=True),
    "desk/read_log": Method("people", {**_ONE, "offset": WHOLE, "wait": REAL}, forms.LOG_PART),
    "desk/files": Method("people", _ONE, PLAIN),
    "desk/file": Method("people", {**_ONE, "path": TEXT}, stream=True),
    "desk/forget": Method("people", _UID, once=True, slow=True),
    "desk/drain": Method("people", {"host": TEXT, "off": FLAG}, once=True),
    "desk/status": Method("people", {}, forms.STATUS),
}
