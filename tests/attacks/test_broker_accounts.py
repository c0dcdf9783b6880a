"""What somebody can do at the broker with a worker's name and password, on a real RabbitMQ: its own work, and
no harm to others. (What is refused of the plainest kind: tests/engine/test_head_broker.py.)"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import kombu
import pytest
from amqp.exceptions import AccessRefused, AMQPError
from broker_lab import UID, Broker
from worker_lab import until

from sweepfw.core import broker as names
from sweepfw.engine.publisher import Message, Publisher, task_id

OWN, OTHER = names.queue(UID, "a", "00ff"), names.queue(UID, "b", "00ff")
MY_PIDBOX = f"{names.node('a', '00ff')}.celery.pidbox"
ITS_PIDBOX = f"{names.node('b', '00ff')}.celery.pidbox"
WORKERS = {"worker-a": (OWN, MY_PIDBOX), "worker-b": (OTHER, ITS_PIDBOX)}
SHARED = (names.EVENTS, names.ASKING, names.ANSWERS)
EXPIRES = {"x-expires": 600_000}  # by then all have been declared


def connect(broker: Broker, user: str, **options: Any) -> kombu.Connection:
    return kombu.Connection(
        broker.address(user), connect_timeout=60, transport_options={"confirm_publish": True, **options}
    )


def told(broker: Broker, user: str, act: Callable[[Any], object]) -> str:
    """`ok`, or what RabbitMQ said."""
    with connect(broker, user, read_timeout=100) as connection:
        try:
            act(connection.channel())
        except AccessRefused:
            return "refused"
        except AMQPError as error:
            return f"{type(error).__name__}: {error}"
        return "ok"


@pytest.fixture(scope="module")
def queues(broker: Broker) -> Iterator[Broker]:
    """Each of two workers has its queue and its pidbox."""
    for user, mine in WORKERS.items():
        with connect(broker, user) as connection:
            channel = connection.channel()
            for name in mine:
                channel.queue_declare(name, durable=True, auto_delete=False)
            channel.queue_bind(mine[1], names.ASKING)
    yield broker
    for user, mine in WORKERS.items():
        with connect(broker, user) as connection:
            channel = connection.channel()
            for name in mine:
                channel.queue_delete(name)
            channel.exchange_delete(mine[1])


def publish(exchange: str, key: str, channel: Any, body: bytes = b"x") -> None:
    channel.basic_publish(channel.prepare_message(body), exchange=exchange, routing_key=key)


def declare_exchange(name: str, channel: Any, kind: str = "topic", **more: Any) -> None:
    channel.exchange_declare(name, kind, durable=True, auto_delete=False, **more)


def declare(name: str, channel: Any, **arguments: Any) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


REFUSED: dict[str, Callable[[Any], object]] = {
    # trials: the head alone sends them, also to one's own queue, by whatever way around
    "own queue": partial(publish, "", OWN),
    "another's queue": partial(publish, "", OTHER),
    "through amq.direct": partial(publish, "amq.direct", OWN),
    "bind one's queue to amq.topic": lambda c: c.queue_bind(OWN, "amq.topic", "#"),
    "bind one's queue to one's exchange": lambda c: (
        declare_exchange(MY_PIDBOX, c),
        c.queue_bind(OWN, MY_PIDBOX, "#"),
    ),
    "bind another's queue": lambda c: (declare_exchange(MY_PIDBOX, c), c.queue_bind(OTHER, MY_PIDBOX, "#")),
    "dead letters to the default exchange": lambda c: declare(
        names.queue(UID, "a", "01"), c, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": OTHER}
    ),
    "alternate exchange": lambda c: declare_exchange(
        f"{names.node('a', '02')}.celery.pidbox", c, arguments={"alternate-exchange": names.ASKING}
    ),
    # others' queues
    "consume another's": lambda c: c.basic_consume(OTHER),
    "get from another's": lambda c: c.basic_get(OTHER),
    "purge another's": lambda c: c.queue_purge(OTHER),
    "delete another's": lambda c: c.queue_delete(OTHER),
    "declare another's": partial(declare, names.queue(UID, "b", "02")),
    "another deployment's": partial(declare, names.queue("f" * 16, "a", "00ff")),
    "no worker's": partial(declare, "celery"),
    "a name that only begins so": partial(declare, f"{OWN}.more"),
    # what all share
    **{f"delete {name}": lambda c, name=name: c.exchange_delete(name) for name in SHARED},
    **{f"declare {name}": partial(declare_exchange, name) for name in SHARED},
    **{f"a queue named {name}": partial(declare, name) for name in SHARED},
    "read others' events": lambda c: c.queue_bind(MY_PIDBOX, names.EVENTS, "#"),
    "read answers": lambda c: c.queue_bind(MY_PIDBOX, names.ANSWERS, "x"),
    # remote control
    "ask all workers": partial(publish, names.ASKING, ""),
    "another's pidbox": partial(publish, "", ITS_PIDBOX),
    "consume another's pidbox": lambda c: c.basic_consume(ITS_PIDBOX),
    "send questions on": lambda c: (
        declare_exchange(MY_PIDBOX, c),
        c.exchange_bind(names.ASKING, MY_PIDBOX, "#"),
    ),
    # the firehose of all messages
    "trace": lambda c: c.queue_bind(MY_PIDBOX, "amq.rabbitmq.trace", "#"),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_what_is_not_a_workers_is_refused(queues: Broker, attack: str) -> None:
    assert told(queues, "worker-a", REFUSED[attack]) == "refused"


def test_another_vhost_is_not_there(queues: Broker) -> None:
    for vhost in ("%2F", "other"):
        address = queues.address("worker-a").rpartition("/")[0] + f"/{vhost}"
        with pytest.raises(AMQPError), kombu.Connection(address, connect_timeout=60) as connection:
            connection.channel()


# -- too much ------------------------------------------------------------------------------------------


def head_sends(broker: Broker) -> None:
    """The head gets a message through to another worker's queue, and it is read there."""
    publisher = Publisher(broker.address(names.HEAD))
    deadline = time.monotonic() + 100
    while not publisher.connected and time.monotonic() < deadline:
        publisher.tend()
        time.sleep(0.05)
    sent = Message(OTHER, task_id(), "0" * 16, 1, "s-1", "")
    assert publisher.publish([sent]) == set()
    publisher.close()
    with connect(broker, "worker-b") as connection:
        channel = connection.channel()
        message = channel.basic_get(OTHER, no_ack=True)
        assert message is not None and message.headers["id"] == sent.task


def test_an_account_has_only_so_many_connections(queues: Broker) -> None:
    held = []
    with pytest.raises(AMQPError, match="limit"):
        for _ in range(60):
            connection = connect(queues, "worker-a")
            held.append(connection)
            connection.connect()
    assert len(held) > 20  # a worker whose link flaps has some lost ones
    head_sends(queues)
    for connection in held:
        connection.collect(socket_timeout=0.2)
    until(partial(some_more, queues), 100, "room for the next test's connections")


def some_more(broker: Broker) -> bool:
    """Whether the account may have a few: the broker counts those that were closed a moment longer."""
    try:
        with connect(broker, "worker-a") as one, connect(broker, "worker-a") as two:
            one.connect()
            two.connect()
    except AMQPError:
        return False
    return True


def test_an_account_has_only_so_many_channels(queues: Broker) -> None:
    with connect(queues, "worker-a") as connection, pytest.raises(AMQPError):
        for _ in range(600):
            connection.channel()
    head_sends(queues)


def test_a_queue_holds_only_so_much(queues: Broker) -> None:
    """Its own pidbox is where a worker can write to, through an exchange of its own."""
    with connect(queues, "worker-a", confirm_publish=False) as connection:
        channel, mine = connection.channel(), f"{names.node('a', '0f')}.celery.pidbox"
        declare_exchange(mine, channel, "fanout")
        channel.queue_bind(MY_PIDBOX, mine)
        for _ in range(60):
            publish(mine, "", channel, bytes(900_000))
        channel.exchange_delete(mine)
    held = queues.ctl("list_queues", "-q", "--no-table-headers", "-p", names.VHOST, "name", "message_bytes")
    sizes = {
        name: int(size) for name, size in (line.split("\t") for line in held.splitlines() if "\t" in line)
    }
    assert 0 < sizes[MY_PIDBOX] < 12_000_000
    head_sends(queues)


def test_there_are_only_so_many_queues(queues: Broker) -> None:
    """Who uses them up hinders new workers, and none that is there."""
    made = []
    try:
        with connect(queues, "worker-a") as connection:
            channel = connection.channel()
            with pytest.raises(AMQPError, match="limit"):
                for number in range(1000):
                    name = names.queue(UID, "a", f"{number:016x}")
                    declare(name, channel, **EXPIRES)
                    made.append(name)
        head_sends(queues)
        with connect(queues, "worker-b") as connection:
            declare(OTHER, connection.channel())  # as after a lost link
    finally:
        with connect(queues, "worker-a") as connection:
            channel = connection.channel()
            for name in made:
                channel.queue_delete(name)


def test_a_message_is_only_so_large(queues: Broker) -> None:
    with pytest.raises(AMQPError), connect(queues, "worker-a", read_timeout=100) as connection:
        publish(names.EVENTS, "worker.x", connection.channel(), bytes(2_000_000))
    with suppress(AMQPError), connect(queues, "head", read_timeout=100) as connection:
        publish("", OTHER, connection.channel(), bytes(2_000_000))
    with connect(queues, "worker-b") as connection:
        assert connection.channel().basic_get(OTHER) is None
    head_sends(queues)
