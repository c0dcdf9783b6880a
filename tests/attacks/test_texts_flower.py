"""HTML in what Flower shows: of parameters and names, and of whatever a worker's account may send as events.
A real Flower on a real broker, looked at with a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from broker_lab import Broker
from browser import Browser
from celery.events import EventDispatcher
from test_head_flower import Flower
from worker_lab import until

from sweepfw.core.broker import worker_user
from sweepfw.engine.celery_app import make_app

TAG = "<img src=x onerror=document.title='pwned'>"
NASTY = [
    TAG,
    "\"><script>document.title='pwned'</script>",
    "' onmouseover='x",
    "\u202egnp.exe",
    "{{7*7}}",
    "a&b<i>",
]
ID = "0123456789abcdef0123456789abcdef"


def send(broker: Broker, user: str) -> None:
    """Events as a worker may send them, of tasks of all kinds, with NASTY wherever a text can be."""
    app = make_app(broker.address(user))
    with app.connection_for_write() as connection:
        sender = EventDispatcher(connection, hostname=f"a@{TAG}", app=app, enabled=True)
        sender.send(
            "worker-online",
            freq=2,
            sw_ident=TAG,
            sw_ver=TAG,
            sw_sys=TAG,
            active=1,  # of a text Flower's list of workers says only 500: nothing is shown, nothing runs
            processed=1,
            loadavg=[TAG],
        )
        for n, text in enumerate(NASTY):
            each = {"uuid": f"{n}{ID[1:]}"}
            sender.send(
                "task-received", **each, name=text, args=text, kwargs=f"v={text}", retries=text, eta=text,
                expires=text, root_id=text, parent_id=text,
            )  # fmt: skip
            sender.send("task-started", **each)
            sender.send("task-failed", **each, exception=f"E({text})", traceback=text)
        sender.send("task-sent", uuid=TAG, name=TAG, args=TAG, kwargs=TAG, queue=TAG, exchange=TAG)
        sender.send(f"task-{TAG}", uuid=f"9{ID[1:]}", name=TAG)
        sender.close()


def no_tag(page: str) -> None:
    """Nothing of it became part of the page."""
    assert "pwned</title>" not in page and "<title>pwned" not in page
    assert not re.search(r"<img[^>]*\bsrc=.?x\b", page)
    assert not re.search(r"<script>document", page) and " onmouseover='x" not in re.sub(
        r">[^<]*<", "><", page
    )


@pytest.fixture(scope="module")
def flower(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """It was told of all this by a worker."""
    found = Flower(tmp_path_factory.mktemp("flower"), broker)

    def shown() -> bool:
        send(broker, worker_user("a"))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with suppress(OSError):  # it is slow to answer
                if {TAG, "a&b<i>"} <= {task.get("name") for task in found.tasks()}:
                    return True
            time.sleep(0.2)
        return False

    found.start()
    try:
        until(found.answers, 100)
        until(shown, 100)
        yield found
    finally:
        found.stop()


def test_events_of_a_worker(flower: Flower) -> None:
    tasks = {task["name"]: task for task in flower.tasks() if task.get("kwargs")}
    assert tasks[TAG]["kwargs"] in (f"v={TAG}", TAG)  # exact for programs
    assert json.dumps(tasks)
    urls = ["/", "/workers", "/tasks", *(f"/task/{n}{ID[1:]}" for n in range(len(NASTY))), f"/worker/a@{TAG}"]
    for url in urls:
        status, page = flower.get(
            url.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20").replace("'", "%27")
        )
        assert status in (200, 404), (url, status)
        no_tag(page)


def test_a_browser_runs_none_of_it(flower: Flower, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for path in ("/tasks", f"/task/0{ID[1:]}"):
        page = browser.text(f"http://sweepfw:open-sesame@127.0.0.1:{flower.port}{path}")
        no_tag(page)
        assert "&lt;img src=x" in page, path
