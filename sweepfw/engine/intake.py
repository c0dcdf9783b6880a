"""What a worker takes from the broker: messages as the head and Flower send them, and nothing else.

Celery believes what it receives. A header of another kind than it expects ends its loop, again and again,
since the message comes again; `eta` and `expires` keep messages in memory; `callbacks` send others; a
compressed body may unfold to any size; a question may bring a regular expression that never ends. So each
message is looked at before, and what is none of ours is set aside: rejected, and told in one line.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery
from celery.worker.consumer import Consumer
from kombu import compression
from kombu.pidbox import Node

from sweepfw.core.broker import ANSWERS, TASK

RETRY = 2  # seconds between two tries to reach the broker; Celery's grow to 30, in which nothing is sent
TOLD_EVERY = 60.0  # seconds between two lines about messages that were set aside
_LONGEST = 2_000  # bytes of a body, characters of a header: ours have a quarter of that
_UID, _ID = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{32}")
_TEXTS = ("shadow", "argsrepr", "kwargsrepr", "origin")  # what Flower shows

Report = Callable[[str], None]


def guard(app: Celery) -> None:
    """Look at all that workers of this app receive."""
    aside = Aside(logging.getLogger("broker").warning)
    app.conf.worker_consumer = type("GuardedConsumer", (_Consumer,), {"aside": aside})
    app.control.mailbox.node_cls = type("GuardedNode", (_Node,), {"aside": aside})
    compression._decoders.clear()  # it has no function for that; nobody of ours compresses


class Aside:
    """Tells of messages that were set aside: the first at once, then those of a minute together, so that
    whoever can send them can't fill the log."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._count, self._next = 0, float("-inf")

    def tell(self, why: str) -> None:
        self._count += 1
        if self._clock() < self._next:
            return
        told = "a message" if self._count == 1 else f"{self._count} messages"
        self._report(f"{told} that no head and no Flower sends: set aside; the last: {why}")
        self._count, self._next = 0, self._clock() + TOLD_EVERY


class _Consumer(Consumer):  # type: ignore[misc]  # Celery has no types
    aside: Aside

    def ensure_connected(self, connection: Any) -> Any:
        connection.ensure_connection = partial(connection.ensure_connection, interval_max=RETRY)
        return super().ensure_connected(connection)

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*given, **named)

        def received(message: Any) -> None:
            if why := clean(message):
                self.aside.tell(why)
                message.reject_log_error(logging.getLogger("kombu"), self.connection_errors)
            else:
                handle(message)

        return received

    def on_decode_error(self, message: Any, error: Exception) -> None:
        """Also for questions. Celery's own would write all of the message into the log."""
        self.aside.tell("it is not plain JSON")
        message.ack()


class _Node(Node):  # type: ignore[misc]  # kombu has no types
    aside: Aside

    def handle_message(self, body: Any, message: Any = None) -> Any:
        if why := unasked(body, self.handlers):
            return self.aside.tell(why)
        message.headers = {}
        return super().handle_message({**body, "pattern": None, "matcher": None}, message)


def clean(message: Any) -> str:
    """Why the message is none of the head's; else nothing, and of it only what the head's messages have."""
    told, headers = message.body, message.headers
    if message.errors or message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not plain JSON"
    if type(headers) is not dict or headers.get("task") != TASK:
        return "it is for another task"
    if len(told) > _LONGEST or any(_long(headers.get(name)) for name in _TEXTS):
        return "it is too long"
    try:
        (uid, trial), named, _ = json.loads(told)
    except (ValueError, TypeError, RecursionError):
        return "it names no trial"
    if type(uid) is not str or not _UID.fullmatch(uid) or type(trial) is not int or not 0 < trial < 2**31:
        return "it names no trial"
    task = headers.get("id")
    if named != {} or type(task) is not str or not _ID.fullmatch(task):
        return "it says more than a trial"
    message.body = json.dumps([[uid, trial], {}, {}])
    message.headers = {"lang": "py", "task": TASK, "id": task, "root_id": task, "ignore_result": True}
    message.headers |= {name: headers.get(name) for name in _TEXTS}
    message.properties = {"correlation_id": task}
    return ""


def _long(text: Any) -> bool:
    return text is not None and (type(text) is not str or len(text) > _LONGEST)


def unasked(body: Any, handlers: Mapping[str, Any]) -> str:
    """Why this is no question that Flower asks."""
    if type(body) is not dict or type(body.get("method")) is not str:
        return "it asks nothing"
    if not body.keys() <= {"method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to"}:
        return "it asks in another way"
    if body["method"] not in handlers:
        return f"it asks for {body['method'][:40]!r}"
    if not isinstance(body.get("destination"), (list, type(None))) or body.get("pattern") is not None:
        return "it asks in another way"
    arguments = body.get("arguments") or {}
    if type(arguments) is not dict or any(arguments.values()):  # Flower's are empty, or say no
        return "it asks for too much"
    answer = body.get("reply_to")
    if answer is not None and (type(answer) is not dict or not _is_address(answer)):
        return "the answer would go elsewhere"
    return ""


def _is_address(answer: Mapping[str, Any]) -> bool:
    key = answer.get("routing_key")
    return answer.get("exchange") == ANSWERS and type(key) is str and len(key) < 200
