"""What the broker lets each account do, on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import kombu
import pytest
from amqp.exceptions import AccessRefused, AMQPError
from broker_lab import UID, Broker

from sweepfw.core import broker as names

OWN, OTHER = names.queue(UID, "a", "0b0b"), names.queue(UID, "b", "0b0b")
PIDBOX = f"{names.node('a', '0b0b')}.celery.pidbox"


def _try(broker: Broker, user: str, act: Callable[[Any], object], password: str | None = None) -> str:
    """`ok`, or what RabbitMQ said."""
    address = (
        broker.address(user)
        if password is None
        else names.address(user, password, "127.0.0.1", broker.line.port)
    )
    with kombu.Connection(
        address, connect_timeout=60, transport_options={"confirm_publish": True}
    ) as connection:
        try:
            act(connection.channel())
        except AccessRefused:
            return "refused"
        except AMQPError as error:
            return type(error).__name__
        return "ok"


def _publish(key: str, channel: Any, exchange: str = "") -> None:
    channel.basic_publish(
        channel.prepare_message(b"x", content_encoding="utf-8"), exchange=exchange, routing_key=key
    )


def _declare(name: str, channel: Any) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-expires": 60_000})


def _consume(name: str, channel: Any) -> None:
    channel.basic_consume(name)


def _exchange(name: str, kind: str, channel: Any) -> None:
    channel.exchange_declare(name, kind, durable=True, auto_delete=False)


@pytest.mark.parametrize(
    ("user", "act", "answer"),
    [
        ("worker-a", partial(_declare, OWN), "ok"),
        ("worker-a", partial(_declare, PIDBOX), "ok"),
        ("worker-a", partial(_consume, OWN), "ok"),
        ("worker-b", partial(_declare, OTHER), "ok"),
        ("worker-b", partial(_declare, OWN), "refused"),
        ("worker-b", partial(_consume, OWN), "refused"),
        ("worker-b", partial(_publish, OWN), "refused"),  # nobody but the head sends trials
        ("worker-b", partial(_declare, PIDBOX), "refused"),
        ("worker-a", partial(_declare, "celery"), "refused"),
        ("head", partial(_publish, OWN), "ok"),
        ("head", partial(_declare, OWN), "refused"),
        ("head", partial(_consume, OWN), "refused"),
        ("flower", partial(_exchange, "celeryev", "topic"), "refused"),  # the broker has it from its start
        ("worker-a", partial(_exchange, "celeryev", "topic"), "refused"),
        ("worker-a", partial(_publish, "worker.heartbeat", exchange="celeryev"), "ok"),
        ("flower", partial(_declare, "celeryev.0a1b"), "ok"),
        ("worker-a", partial(_declare, "celeryev.0a1b"), "refused"),
        ("flower", partial(_publish, OWN), "refused"),
        ("flower", partial(_consume, OWN), "refused"),
    ],
)
def test_each_account_may_do_its_own_work_and_nothing_else(
    broker: Broker, user: str, act: Callable[[Any], object], answer: str
) -> None:
    if act.func is _consume or act.func is _publish:  # type: ignore[attr-defined]  # a partial
        _try(broker, "worker-a", partial(_declare, OWN))
        _try(broker, "flower", partial(_exchange, "celeryev", "topic"))
    assert _try(broker, user, act) == answer


@pytest.mark.parametrize(("user", "password"), [("guest", "guest"), ("head", "wrong"), ("worker-c", "x")])
def test_no_other_login_is_let_in(broker: Broker, user: str, password: str) -> None:
    assert _try(broker, user, lambda channel: None, password) == "refused"


def test_it_knows_its_own_accounts_only(broker: Broker) -> None:
    users = {
        line.split("\t")[0] for line in broker.ctl("list_users", "-q", "--no-table-headers").splitlines()
    }
    assert users == set(broker.passwords)
    for vhost in broker.ctl("list_vhosts", "-q", "--no-table-headers").split():
        granted = broker.ctl("list_permissions", "-q", "--no-table-headers", "-p", vhost).splitlines()
        assert len(granted) == (len(broker.passwords) if vhost == names.VHOST else 0)
