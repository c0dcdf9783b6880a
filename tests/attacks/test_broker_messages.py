"""Messages that nobody of ours sends, in a worker's own queue and pidbox: nothing runs but what the ledger
grants, the worker goes on, and says in a line what it set aside."""

from __future__ import annotations

import gzip
import json
import pickle
import time
from pathlib import Path
from typing import Any

import kombu
import pytest
from broker_lab import UID, Broker
from worker_fixtures import Work, ended
from worker_lab import HeadLab, WorkerLab, make_certificate, until

from sweepfw.core import broker as names
from sweepfw.engine import intake
from sweepfw.engine.publisher import task_id

TRIAL = json.dumps([["0" * 16, 1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def headers(**more: Any) -> dict[str, Any]:
    return {"lang": "py", "task": names.TASK, "id": task_id(), "argsrepr": "s/1", **more}


def bad_messages(mark: Path) -> list[dict[str, Any]]:
    """By someone who can write to the queue. Each would trouble Celery in another way."""
    json_type = {"content_type": "application/json", "content_encoding": "utf-8"}
    bomb = pickle.dumps(Bomb(mark))
    trials = [
        *("", "x", "null", "[]", "{}", "[" * 5_000, '{"task": "sweepfw.trial", "id": "1"}'),
        *(json.dumps(told) for told in ([[1, 1], {}, {}], [["0" * 16, "1"], {}, {}], [[{}, []], {}, {}])),
        *(json.dumps([["0" * 16, number], {}, {}]) for number in (0, -1, 2**70, True, 1.0, None)),
        json.dumps([["../../../etc/pass", 1], {}, {}]),
        json.dumps([["0" * 16, 1], {"argv": ["sh", "-c", f"touch {mark}"]}, {}]),
        json.dumps([["0" * 16, 1, "sh"], {}, {}]),
        json.dumps([["0" * 16, 1], {}, {}, {}]),
    ]
    ids = ("", "1", 5, None, "x" * 10_000)
    return [
        *({"body": text, **json_type, "headers": headers()} for text in trials),
        *({"body": TRIAL, **json_type, "headers": headers(id=id)} for id in ids),
        *(
            {"body": TRIAL, **json_type, "headers": headers(task=task)}
            for task in (["a"], {}, 1, "celery.chord")
        ),
        {"body": TRIAL, **json_type, "headers": {}},
        {"body": TRIAL, **json_type, "headers": headers(argsrepr=["x"])},
        {"body": TRIAL, **json_type, "headers": headers(shadow="x" * 50_000)},
        {"body": TRIAL, **json_type, "headers": headers(compression="application/x-gzip")},
        {"body": gzip.compress(bytes(200_000_000), 9), **json_type, "headers": headers(compression="gzip")},
        {"body": "x" * 900_000, **json_type, "headers": headers()},
        {"body": bomb, "content_type": "application/x-python-serialize", "content_encoding": "binary"}
        | {"headers": headers()},
        {"body": bomb, "content_type": "application/x-python-serialize", "content_encoding": "binary"}
        | {"headers": {}},
        {"body": bomb, **json_type, "headers": headers()},
        {"body": "- !!python/object/apply:os.system [x]", "content_type": "application/x-yaml"}
        | {"content_encoding": "utf-8", "headers": headers()},
        {"body": TRIAL.encode(), **json_type, "content_encoding": "rot13", "headers": headers()},
        {"body": TRIAL.encode(), "headers": headers()},
    ]


def harmless_messages(uid: str) -> list[dict[str, Any]]:
    """They name a trial, and say more, which is left out: it ended, so nothing comes of them."""
    json_type = {"content_type": "application/json", "content_encoding": "utf-8"}
    told = [[uid, 1], {}, {}]
    call = {"task": "celery.ping", "args": [], "kwargs": {}, "options": {"queue": "x"}}
    return [
        *(
            {"body": json.dumps(told), **json_type, "headers": headers(**more)}
            for more in (
                {},
                {"eta": "2999-01-01T00:00:00+00:00"},
                {"eta": "x", "expires": [1]},
                {
                    "timelimit": ["x", -1],
                    "retries": "x",
                    "group": {"a": 1},
                    "stamps": 5,
                    "stamped_headers": 7,
                },
                {"replaced_task_nesting": "x", "root_id": ["x"], "parent_id": 1, "lang": "js", "utc": "x"},
            )
        ),
        {"body": json.dumps([*told[:2], {"callbacks": [call], "errbacks": [call], "chain": [call]}])}
        | {**json_type, "headers": headers(), "reply_to": "x" * 100},
    ]


def send(broker: Broker, user: str, exchange: str, key: str, messages: list[dict[str, Any]]) -> None:
    address = broker.address(user)
    with kombu.Connection(address, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        for message in messages:
            body, rest = message["body"], {name: value for name, value in message.items() if name != "body"}
            properties = {"reply_to": rest.pop("reply_to")} if "reply_to" in rest else {}
            packed = channel.prepare_message(body, properties=properties, **rest)
            channel.basic_publish(packed, exchange=exchange, routing_key=key)


def queue_of(head: HeadLab, host: str) -> str:
    [found] = [each for each in head.desk.status().workers if each.worker.host == host]
    return names.queue(UID, host, found.worker.boot)


def at_most(since: float) -> float:
    """Lines about messages that were set aside: the first at once, then those of a minute together."""
    return 1 + (time.monotonic() - since) // intake.TOLD_EVERY + 1


def runs_once_more(head: HeadLab, worker: WorkerLab, marks: Path) -> None:
    sweep = head.submit(f"echo $i >>{marks}", 4)
    ended(head, sweep, seconds=100)
    assert head.states(sweep) == ["succeeded"] * 4
    assert sorted(marks.read_text().split()) == list("1234")
    assert worker.process is not None and worker.process.poll() is None


def test_no_message_runs_what_the_ledger_did_not_grant(
    broker: Broker, head: HeadLab, work: Work, tmp_path: Path
) -> None:
    since, worker = time.monotonic(), work("a")
    queue, mark, begun = queue_of(head, "a"), tmp_path / "mark", tmp_path / "begun"
    sweep = head.submit(f"echo $i >>{begun}")
    ended(head, sweep, seconds=100)
    replayed = harmless_messages(sweep.uid) * 20
    bad = bad_messages(mark)
    send(broker, names.HEAD, "", queue, [*bad, *replayed, *bad])
    until(lambda: broker.queues()[queue][0] == 0, 100, "an empty queue")
    runs_once_more(head, worker, tmp_path / "again")
    assert begun.read_text() == "1\n"
    assert len(head.attempts(sweep)) == 1
    assert not mark.exists()
    told = worker.log.read_text()
    assert 1 <= told.count("set aside") <= at_most(since), told
    assert "Traceback" not in told and "trying again" not in told, told


def test_a_trial_that_is_sent_a_hundred_times_runs_once(
    broker: Broker, head: HeadLab, work: Work, tmp_path: Path
) -> None:
    """Forged before its turn, and to a host that the head did not choose: the claim decides."""
    work("a"), work("b")
    begun = tmp_path / "begun"
    sweep = head.submit(f"echo $i >>{begun}; sleep 1", 6)
    told = [
        {"body": json.dumps([[sweep.uid, number], {}, {}]), "content_type": "application/json"}
        | {"content_encoding": "utf-8", "headers": headers()}
        for number in range(1, 8)  # there is no seventh
    ]
    for host in ("a", "b"):
        send(broker, names.HEAD, "", queue_of(head, host), told * 15)
    ended(head, sweep, seconds=100)
    assert sorted(begun.read_text().split()) == list("123456")
    assert [attempt.number for attempt in head.attempts(sweep)] == [1] * 6


COMMANDS = ("shutdown", "pool_restart", "pool_grow", "pool_shrink", "autoscale", "add_consumer")
COMMANDS += (
    "cancel_consumer",
    "rate_limit",
    "time_limit",
    "revoke",
    "terminate",
    "revoke_by_stamped_headers",
)
COMMANDS += ("memdump", "memsample", "objgraph", "query_task", "election")
COMMANDS += ("disable_events", "hello")


def questions() -> list[Any]:
    answer = {"exchange": names.ANSWERS, "routing_key": "nobody"}
    asked: list[Any] = [
        {"method": name, "arguments": {"signal": "KILL", "task_id": "x", "queue": "x", "n": 100}, **more}
        for name in COMMANDS
        for more in ({}, {"reply_to": answer, "ticket": "t"}, {"destination": None})
    ]
    asked += [{"method": name, "reply_to": answer, "ticket": "t"} for name in COMMANDS]
    asked += [[], "x", 5, None, {}, {"method": ["ping"]}, {"method": "ping", "more": 1}]
    asked += [{"method": "ping", "arguments": bad} for bad in ([1], "x", {"x": 1}, {"state": 1}, 7)]
    asked += [{"method": "ping", "destination": bad} for bad in (5, {"a": 1}, "x")]
    asked += [{"method": "ping", "pattern": "(a+)+" * 20 + "$", "matcher": "pcre"}]
    asked += [{"method": "ping", "reply_to": bad} for bad in ("x", [], {"exchange": names.ASKING}, {"a": 1})]
    asked += [{"method": "ping", "reply_to": {"exchange": names.EVENTS, "routing_key": "x"}}]
    asked += [{"method": "registered", "arguments": {"taskinfoitems": ["app", "__globals__"]}}]
    return asked


def test_no_question_makes_a_worker_do_anything(
    broker: Broker, head: HeadLab, work: Work, tmp_path: Path
) -> None:
    """Whoever can ask all workers at once: not even Flower's account moves them."""
    since, worker = time.monotonic(), work("a")
    plain = {"content_type": "application/json", "content_encoding": "utf-8"}
    asked = [{"body": json.dumps(each), **plain, "headers": {"clock": "x"}} for each in questions()]
    asked += [{"body": b"\x80\x04K\x01.", "content_type": "application/x-python-serialize"}]
    asked += [{"body": "{", **plain}, {"body": "x" * 900_000, **plain}]
    pidbox = f"{names.node('a', queue_of(head, 'a').rpartition('.')[2])}.celery.pidbox"
    until(lambda: broker.queues().get(pidbox) == (0, 1), 100, "one who reads its pidbox")
    send(broker, names.FLOWER, names.ASKING, "", [{"headers": {}, **each} for each in asked])
    until(lambda: broker.queues()[pidbox][0] == 0, 100, "an empty pidbox")
    runs_once_more(head, worker, tmp_path / "again")
    told = worker.log.read_text()
    assert 1 <= told.count("set aside") <= at_most(since), told
    assert "trying again" not in told, told
    from sweepfw.engine.celery_app import make_app

    [pong] = make_app(broker.address(names.FLOWER)).control.ping(timeout=100, limit=1)
    assert list(pong.values()) == [{"ok": "pong"}]


# -- the same, without a broker ------------------------------------------------------------------------


class Letter:
    """What the gate looks at of a message."""

    errors: tuple[Any, ...] = ()
    content_type, content_encoding = "application/json", "utf-8"

    def __init__(self, body: Any, headers: Any) -> None:
        self.body, self.headers, self.properties = body, headers, {"reply_to": "x"}


def test_the_heads_own_message_passes_and_is_all_that_is_left() -> None:
    from sweepfw.engine.publisher import Publisher

    sent: list[Any] = []
    publisher = Publisher("amqp://127.0.0.1:1/x")
    publisher._channel = type(
        "Channel",
        (),
        {
            "prepare_message": staticmethod(lambda body, **rest: sent.append((body, rest))),
            "basic_publish": staticmethod(lambda *_, **__: None),
        },
    )
    from sweepfw.engine.publisher import Message

    task = task_id()
    publisher._send(Message("q", task, "ab" * 8, 7, "digits-1", "lr=0.1, " * 60))
    [(body, rest)] = sent
    letter = Letter(body, {**rest["headers"], "eta": "soon", "compression": "gzip"})
    assert intake.clean(letter) == ""
    assert json.loads(letter.body) == [["ab" * 8, 7], {}, {}]
    assert letter.headers["id"] == task and letter.headers["shadow"] == "digits-1"
    assert not {"eta", "expires", "compression", "timelimit"} & letter.headers.keys()
    assert letter.properties == {"correlation_id": task}


def test_what_is_set_aside_is_told_now_and_then() -> None:
    said: list[str] = []
    now = iter(range(1000))
    aside = intake.Aside(said.append, lambda: 0.0 + next(now) / 2)  # looked at twice where it is told
    for _ in range(250):
        aside.tell("it is odd")
    assert len(said) == 3
    assert said[0].startswith("a message") and "it is odd" in said[0]
    assert said[1].split()[0].isdigit() and int(said[1].split()[0]) > 100


@pytest.mark.parametrize("asked", questions(), ids=lambda asked: str(asked)[:60])
def test_only_what_flower_asks_is_asked(asked: Any) -> None:
    assert intake.unasked(asked, {"ping": None, "registered": None})


# -- a worker that belongs elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"), [("token", "made for another deployment"), ("certificate", "another certificate")]
)
def test_a_worker_of_another_deployment_gets_nothing(
    broker: Broker, head: HeadLab, work: Work, tmp_path: Path, changed: str, said: str
) -> None:
    """It runs nothing, and ends where the head does not take it for ours: where it does not take the head for
    its own, it may wait for that."""
    work("a")
    head.desk.drain("a")  # until the messages were read
    (tmp_path / "other").mkdir()
    make_certificate(tmp_path / "other")
    other = {"token": "token-of-elsewhere", "certificate": str(tmp_path / "other/certificate.pem")}
    wrong = WorkerLab(head, "b", **{changed: other[changed]})
    try:
        until(lambda: said in wrong.log.read_text(), 100, f"{said}")
        uid = head.submit(f"echo $i >>{tmp_path / 'ran'}", 3).uid
        told = [{"body": json.dumps([[uid, n], {}, {}]), "headers": headers()} for n in (1, 2, 3)]
        plain = {"content_type": "application/json", "content_encoding": "utf-8"}
        queue = names.queue(UID, "b", wrong.log.read_text().partition(", boot ")[2].partition(":")[0])
        # It says so too where its queue is not declared within ten seconds: that comes late then, or never.
        process = wrong.process
        assert process is not None
        until(lambda: queue in broker.queues() or process.poll() is not None, 100, "its queue")
        send(broker, names.HEAD, "", queue, [{**each, **plain} for each in told])
        if changed == "token":
            wrong.wait(100)
        else:
            until(lambda: broker.queues()[queue][0] == 0, 100, "an empty queue")
        assert not list(head.ledger.attempts(uid))
        head.desk.drain("a", off=True)
        until(lambda: head.ledger.sweep(uid).state == "done", 100, "the end")
        assert {each.host for each in head.ledger.attempts(uid)} == {"a"}
        assert [each.worker.host for each in head.desk.status().workers] == ["a"]
        assert "token-of-elsewhere" not in wrong.log.read_text() + str(head.said)
        assert "Traceback" not in wrong.log.read_text()
    finally:
        wrong.kill()  # it waits for its head
        wrong.stop()
