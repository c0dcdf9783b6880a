"""Celery as a deployment uses it: its settings, the one task, and what of its remote control stays.

A message is only a hint that names a trial; nothing depends on what becomes of it.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps
from celery.worker import WorkController, state
from celery.worker.control import Panel
from kombu import Exchange, Queue

from sweepfw.core.broker import TASK
from sweepfw.engine.intake import guard

QUEUE_LIFE = 120.0  # seconds that a queue outlives its worker
EVENTS = 0.1  # seconds that what Flower is told may wait for more
SPARE = 2  # threads beyond the slots: a message that is denied waits for no trial

# Tried together under forced disconnects, half-open connections, restarts and wiped brokers.
SETTINGS: dict[str, Any] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "task_acks_late": False,  # the ledger knows what runs; so nothing is unacknowledged for days
    "task_track_started": True,
    "task_send_sent_event": False,
    "task_create_missing_queues": False,
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_prefetch_count_reduction": False,  # its restoring tore frames from pool threads
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_heartbeat": 10,  # a half-open link is seen within 20 s
    "broker_connection_timeout": 10,
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "broker_channel_error_retry": True,
    "broker_transport_options": {"confirm_publish": False},  # what a worker sends is only for Flower
    # An exclusive queue of a half-open connection locks out its own worker when it comes again.
    "control_queue_exclusive": False,
    "control_queue_durable": True,
    "event_queue_exclusive": False,
    "event_queue_durable": True,
}

# What Flower asks for its pages, and to hear of trials. All else of the remote control would let whoever
# reaches the broker stop workers, or make them read other queues.
ASKED = frozenset(
    {"ping", "stats", "registered", "active", "reserved", "scheduled", "revoked", "active_queues"}
    | {"enable_events", "heartbeat"}
)


def make_app(broker: str) -> Celery:
    """The app of one deployment, with the broker's AMQP address. From now on this process declares no
    exchange: the broker has them all from its start, and no account may make or change one."""
    Exchange.no_declare = True
    app = Celery("sweepfw", broker=broker, set_as_current=False, fixups=[])
    app.conf.update(SETTINGS)
    return app


def make_queue(name: str) -> Queue:
    """A worker's own queue: it goes away by itself, with what is left in it, after its worker."""
    return Queue(
        name,
        Exchange(""),
        routing_key=name,
        durable=True,
        queue_arguments={"x-expires": int(QUEUE_LIFE * 1000)},
    )


class TrialError(Exception):
    """How a trial ended that didn't succeed. Nothing reads it but Flower, which shows a failed task."""


def make_worker(
    app: Celery,
    run: Callable[[str, int], str],
    *,
    name: str,
    queue: str,
    slots: int,
    connected: threading.Event,
) -> WorkController:
    """A worker in this process that calls `run(uid, trial)` in a thread of its own for every message. What it
    returns is why the task is shown as failed.

    `connected` is set while it reads its queue. `start()` works until `end()` is called.
    """

    def trial(uid: str, number: int) -> None:
        if why := run(uid, number):
            raise TrialError(why) from None

    app.task(trial, name=TASK, throws=(TrialError,))  # expected: nothing for the log
    app.conf.task_queues = [make_queue(queue)]
    app.amqp.queues[queue].exchange = Exchange("")  # Celery put its own there, which a worker can't declare
    app.steps["consumer"].add(_reading(connected))
    _restrict(app)
    guard(app)
    _quieten()
    return app.WorkController(
        hostname=name,
        pool="threads",
        concurrency=slots + SPARE,
        task_events=True,
        without_gossip=True,
        without_mingle=True,
        loglevel=logging.WARNING,
    )


def end() -> None:
    """Make the worker of this process read no more and return from `start`, when its trials have ended."""
    state.should_stop = 0


def _reading(connected: threading.Event) -> type:
    """The last step of a connection's start, and the first to go."""

    def start(_: object, consumer: Any) -> None:
        gather_events(consumer)
        connected.set()

    def stop(_: object, consumer: Any) -> None:
        connected.clear()
        if consumer.event_dispatcher:  # none where the connection broke before it was there
            consumer.event_dispatcher.flush()  # keeps by itself what a broken connection doesn't take

    return type(
        "Reading",
        (bootsteps.StartStopStep,),
        {
            "requires": ("celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.events:Events"),
            "start": start,
            "stop": stop,
        },
    )


def gather_events(consumer: Any) -> None:
    """Send events for Flower several at once: each is otherwise sent on its own, and a trivial trial has
    three of them."""
    armed = threading.Event()

    def flush() -> None:
        armed.clear()
        consumer.on_send_event_buffered()  # what Celery does after every event

    def buffered() -> None:  # in any thread; the hub's timers are its own thread's
        if not armed.is_set():
            armed.set()
            consumer.hub.call_soon(consumer.hub.call_later, EVENTS, flush)

    consumer.event_dispatcher.on_send_buffered = buffered


def _restrict(app: Celery) -> None:
    """Leave the one task, and of the remote control the questions; how the worker is set up is nobody's."""
    app.finalize()
    for name in [name for name in app.tasks if name != TASK]:
        del app.tasks[name]
    for command in [command for command in Panel.data if command not in ASKED]:
        del Panel.data[command]
    Panel.data["conf"] = lambda state, **_: {}  # a question that had no answer would fill the log


class _Harmless(logging.Filter):
    """Early acknowledged messages need no second acknowledgement after a reconnect."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(("Couldn't ack", "Couldn't reject"))


def _quieten() -> None:
    """What Celery says goes where we say things, from warnings on."""
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(name)s: %(message)s")
    from celery.exceptions import CPendingDeprecationWarning

    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    for name in ("celery.worker.request", "celery.worker.consumer.consumer", "kombu"):
        logging.getLogger(name).addFilter(_Harmless())
