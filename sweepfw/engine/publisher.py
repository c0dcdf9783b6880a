"""Celery messages to workers' queues, with the broker's confirmation. For one thread.

A message is only a hint: what gets lost is sent again by the scheduler. So nothing here waits for the broker
to come back, and messages are not written to its disk.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError  # type: ignore[import-untyped]  # it has no types
from celery import Celery
from kombu import Connection
from kombu.exceptions import KombuError

from sweepfw.core.broker import TASK
from sweepfw.core.values import Params, text

HEARTBEAT = 10  # seconds
LOST = (OSError, AMQPError, KombuError)  # what a broker that is gone shows as
PATIENCE = 5.0  # seconds until the broker has confirmed
PAUSE = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between two tries to reach it
SHOWN = 500  # characters of a trial's parameters that Flower gets


class Message(NamedTuple):
    """One trial for one queue. `task` is Celery's id; `label` and `shown` are what Flower shows."""

    queue: str
    task: str
    uid: str
    trial: int
    sweep: str
    shown: str


class LostBrokerError(Exception):
    """The broker does not answer; what was sent may or may not have arrived."""


def task_id() -> str:
    return os.urandom(16).hex()


def shown(params: Params) -> str:
    """Parameters for people: `lr=0.1, batch=32`."""
    told = ", ".join(f"{name}={text(value)}" for name, value in params.items())
    return told if len(told) <= SHOWN else told[: SHOWN - 1] + "…"


class Publisher:
    """A connection that comes back by itself. `report` is told when it is lost and when it is back."""

    def __init__(
        self,
        address: str,
        report: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        logging.getLogger("amqp").setLevel(logging.CRITICAL)  # we say ourselves what matters of it
        self._address, self._report, self._clock = address, report, clock
        self._format = Celery("sweepfw", set_as_current=False, fixups=[]).amqp.as_task_v2
        self._connection: Any = None
        self._channel: Any = None
        self._tried = 0  # times in a row, in vain
        self._next = 0.0  # when to try again
        self._beat = 0.0
        self._sent = 0  # on this channel
        self._open: set[int] = set()  # what of it is not confirmed yet
        self._returned: set[str] = set()

    @property
    def connected(self) -> bool:
        return self._channel is not None

    def tend(self) -> bool:
        """Keep the connection alive, or try to make one where it is time to; whether a new one was made."""
        if self._channel is None:
            return self._clock() >= self._next and self._connect()
        try:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.001)
            if self._clock() - self._beat > HEARTBEAT / 4:
                self._beat = self._clock()
                self._connection.heartbeat_check()
        except LOST as error:
            self._lose(error)
        return False

    def publish(self, messages: Iterable[Message]) -> set[str]:
        """Send all and wait until the broker has them; the ids of those whose queue is not there (any more).

        LostBrokerError where it does not answer.
        """
        if self._channel is None:
            raise LostBrokerError
        self._returned = set()
        try:
            for message in messages:
                self._sent += 1
                self._open.add(self._sent)
                self._send(message)
            deadline = self._clock() + PATIENCE
            while self._open:
                self._connection.drain_events(timeout=max(0.001, deadline - self._clock()))
        except LOST as error:
            self._lose(error)
            raise LostBrokerError from error
        return self._returned

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(*LOST):
                connection.collect(socket_timeout=0.5)

    def _send(self, message: Message) -> None:
        task = self._format(
            message.task,
            TASK,
            (message.uid, message.trial),
            {},
            shadow=message.sweep,
            argsrepr=f"{message.sweep}/{message.trial}",
            kwargsrepr=message.shown,
            ignore_result=True,
            origin="head",
        )
        packed = self._channel.prepare_message(
            json.dumps(task.body).encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers=task.headers,
            properties={**task.properties, "delivery_mode": 1},
        )
        self._channel.basic_publish(packed, exchange="", routing_key=message.queue, mandatory=True)

    def _connect(self) -> bool:
        self._connection = Connection(
            self._address,
            heartbeat=HEARTBEAT,
            connect_timeout=PATIENCE,
            transport_options={"confirm_publish": False, "read_timeout": PATIENCE, "write_timeout": PATIENCE},
        )
        try:
            self._connection.connect()
            channel = self._connection.channel()
            channel.confirm_select()
        except LOST as error:
            self._lose(error)
            return False
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_ack)  # as good as lost: it is sent again
        channel.events["basic_return"].add(self._on_return)
        self._channel, self._sent, self._open, self._tried = channel, 0, set(), 0
        self._beat = self._clock()
        self._report("broker: connected")
        return True

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._open = {each for each in self._open if each > tag} if multiple else self._open - {tag}

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        self._returned.add(message.properties["correlation_id"])

    def _lose(self, error: Exception) -> None:
        if not self._tried:
            self._report(f"broker: lost ({error or type(error).__name__}); what runs goes on")
        self.close()
        self._next = self._clock() + PAUSE[min(self._tried, len(PAUSE) - 1)]
        self._tried += 1
