"""The broker's names, and what it is told at its start: its vhost, its accounts, and what each may touch.

The head publishes to workers' queues and reads nothing. A worker reads its own queue alone, and can write to
nobody's. Flower listens to events and asks workers questions. Nobody administers, and what all share is made
here, by nobody's account: who could make an exchange could also take it away, or make it another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from sweepfw.core.deployment import BROKER_PORT

VHOST = "sweepfw"
HEAD, FLOWER = "head", "flower"  # users
TASK = "sweepfw.trial"  # the one Celery task; its arguments are a sweep's uid and a trial's number

_BOOT = "[0-9a-f]+"
_NONE = "^$"

EVENTS, ASKING, ANSWERS = "celeryev", "celery.pidbox", "reply.celery.pidbox"  # Celery's names
_EXCHANGES = (  # name, type, whether it is durable: as Celery would declare them
    (EVENTS, "topic", True),
    (ASKING, "fanout", False),
    (ANSWERS, "direct", False),
)

# No account may fill the broker's memory, which would stop all others too. The head has no more messages
# under way than there are slots, and a worker no more connections than its threads and some lost links.
_QUEUE_BOUNDS = {"max-length": 10_000, "max-length-bytes": 10_000_000, "overflow": "reject-publish"}
_USER_BOUNDS = {"max-connections": 40, "max-channels": 400}
_QUEUES = (200, 20)  # in all: so many, and so many more for each host


class Permission(NamedTuple):
    """What a user may declare, write to and read from: regular expressions that names must match."""

    configure: str
    write: str
    read: str


def worker_user(host: str) -> str:
    return f"worker-{host}"


def queue(uid: str, host: str, boot: str) -> str:
    """The queue that one worker alone reads, named for its boot."""
    return f"sweepfw.{uid[:6]}.{host}.{boot}"


def node(host: str, boot: str) -> str:
    """The worker's name in Celery. With its boot: two nodes of one name would fight for their queues."""
    return f"{host}-{boot}@sweepfw"


def address(user: str, password: str, host: str, port: int = BROKER_PORT) -> str:
    """The AMQP address, as Celery and kombu take it."""
    return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{VHOST}"


def definitions(uid: str, passwords: Mapping[str, str], hosts: tuple[str, ...]) -> str:
    """What RabbitMQ loads at its start (`load_definitions`). Holds hashes of the passwords, not them.

    `passwords`: by user: HEAD, FLOWER, and worker_user(host) for each of `hosts`. The same arguments give the
    same text, so that a second `up` sees that nothing changed.
    """
    allowed = {HEAD: _HEAD, FLOWER: _FLOWER} | {worker_user(host): _worker(uid, host) for host in hosts}
    told = {
        "vhosts": [{"name": VHOST}],
        "users": [_user(uid, user, passwords[user]) for user in allowed],
        "permissions": [
            {"user": user, "vhost": VHOST, **permission._asdict()} for user, permission in allowed.items()
        ],
        "exchanges": [
            {"name": name, "vhost": VHOST, "type": kind, "durable": durable}
            | {"auto_delete": False, "internal": False, "arguments": {}}
            for name, kind, durable in _EXCHANGES
        ],
        "policies": [
            {"vhost": VHOST, "name": "bounds", "pattern": "", "apply-to": "queues", "priority": 0}
            | {"definition": _QUEUE_BOUNDS}
        ],
        "parameters": [
            {"component": "vhost-limits", "name": "limits", "vhost": VHOST}
            | {"value": {"max-queues": _QUEUES[0] + _QUEUES[1] * len(hosts)}}
        ],
    }
    return json.dumps(told, indent=1) + "\n"


def _user(uid: str, user: str, password: str) -> dict[str, object]:
    return {
        "name": user,
        "password_hash": hashed(password, hashlib.sha256(f"{uid}:{user}".encode()).digest()[:4]),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
        "limits": _USER_BOUNDS,
    }


def hashed(password: str, salt: bytes) -> str:
    """The password as RabbitMQ stores it. Its salt has four bytes: passwords must be long random ones."""
    return b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


# The head publishes through the default exchange, which leads to every queue by its name.
_HEAD = Permission(_NONE, r"^amq\.default$", _NONE)

# Flower listens at a queue of its own, and asks workers through their pidboxes.
_FLOWER_OWN = r"celeryev\.[^.]+|[^.]+\.reply\.celery\.pidbox"
_FLOWER = Permission(
    configure=rf"^({_FLOWER_OWN})$",
    write=rf"^({_FLOWER_OWN}|{re.escape(ASKING)})$",
    read=rf"^({_FLOWER_OWN}|{re.escape(EVENTS)}|{re.escape(ANSWERS)})$",
)


def _worker(uid: str, host: str) -> Permission:
    """Its queue, which the head alone writes to, and its pidbox; what all workers tell: events, and answers
    to Flower."""
    name = re.escape(host)
    trials = rf"sweepfw\.{re.escape(uid[:6])}\.{name}\.{_BOOT}"
    pidbox = rf"{name}-{_BOOT}@[^.]+\.celery\.pidbox"
    return Permission(
        configure=rf"^({trials}|{pidbox})$",
        write=rf"^({pidbox}|{re.escape(EVENTS)}|{re.escape(ANSWERS)})$",
        read=rf"^({trials}|{pidbox}|{re.escape(ASKING)})$",
    )
