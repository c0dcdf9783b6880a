"""What of Celery's remote control a worker answers, and what is left of it for others to misuse."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

from broker_lab import Broker
from worker_fixtures import Work
from worker_lab import HeadLab, until

from sweepfw.core.broker import FLOWER
from sweepfw.engine.publisher import LOST


def test_workers_answer_questions_and_obey_nobody(broker: Broker, head: HeadLab, work: Work) -> None:
    worker = work("a")
    from sweepfw.engine.celery_app import make_app

    control = make_app(broker.address(FLOWER)).control
    pongs: list[dict[str, object]] = []

    def answered() -> bool:
        with suppress(*LOST):  # a broker out of breath ends connections
            pongs[:] = control.ping(timeout=60, limit=1)
        return bool(pongs)

    until(answered)
    [pong] = pongs
    [name] = pong
    assert name.startswith("a-") and pong[name] == {"ok": "pong"}
    asked = control.inspect(timeout=60, limit=1)
    assert asked.registered() == {name: ["sweepfw.trial"]}
    assert asked.active() == {name: []}
    stats = asked.stats()[name]
    assert "password" not in str(stats) and "secret" not in str(stats)
    assert asked.conf() == {name: {}}
    for command in ("enable_events", "heartbeat"):  # Flower's, at every look
        [reply] = control.broadcast(command, reply=True, timeout=60, limit=1)
        assert "error" not in str(reply)
    assert "Traceback" not in worker.log.read_text()
    for command in ("shutdown", "pool_restart", "add_consumer", "cancel_consumer", "rate_limit", "memdump"):
        replies = control.broadcast(command, reply=True, timeout=0.3, limit=1)
        assert all("error" in reply[name] for reply in replies), command
    assert control.ping(timeout=60, limit=1)  # it has read them all
    sweep = head.submit("echo on")
    until(lambda: head.states(sweep) == ["succeeded"])
    assert worker.process is not None and worker.process.poll() is None


def test_a_worker_tries_often_to_reach_a_broker_that_is_away(
    broker: Broker, head: HeadLab, work: Work
) -> None:
    worker = work("a")
    broker.stop()
    try:
        until(lambda: worker.log.read_text().count("Trying again in 2.00 seconds") > 3)
        assert "Trying again in 4" not in worker.log.read_text()
    finally:
        broker.start()
    sweep = head.submit("echo on")
    until(lambda: head.states(sweep) == ["succeeded"])


def test_events_go_several_at_once_and_the_last_one_too() -> None:
    from kombu.asynchronous import Hub

    from sweepfw.engine.celery_app import gather_events

    hub, sent = Hub(), []
    dispatcher = SimpleNamespace()
    gather_events(
        SimpleNamespace(
            hub=hub, event_dispatcher=dispatcher, on_send_event_buffered=lambda: sent.append(time.monotonic())
        )
    )
    begun = time.monotonic()
    for expected in (1, 2):
        threads = [threading.Thread(target=dispatcher.on_send_buffered) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda expected=expected: hub.run_once() or len(sent) == expected)
    assert sent[0] - begun > 0.09
    hub.close()


def test_one_machine_needs_no_celery() -> None:
    line = "import sweepfw.engine.session, sys; print([m for m in ('celery', 'ssl') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
