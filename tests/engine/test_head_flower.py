"""Flower on a real broker with a real worker: what it shows, and to whom."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_lab import UID, Broker
from ports import free_port
from worker_lab import HeadLab, WorkerLab, all_ended

from sweepfw.core.broker import FLOWER
from sweepfw.core.deployment import FlowerSettings

WaitUntil = Callable[..., None]
START = """
import sys
from pathlib import Path
from sweepfw.core.deployment import FlowerSettings
from sweepfw.engine import flower, service
flower.main(service.read(Path(sys.argv[1]), FlowerSettings), Path(sys.argv[2]), "127.0.0.1", int(sys.argv[3]))
"""


class Flower:
    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.port = folder, free_port()
        settings = FlowerSettings("lab", UID, broker.address(FLOWER), "sweepfw", "open-sesame")
        (folder / "flower.json").write_text(json.dumps(settings._asdict()))
        self.log = folder / "flower.log"

    def start(self) -> None:
        arguments = [str(self.folder / "flower.json"), str(self.folder / "flower"), str(self.port)]
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", START, *arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()

    def get(self, path: str, password: str | None = "open-sesame", method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if password is not None:
            shown = b64encode(f"sweepfw:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {shown}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answers(self) -> bool:
        try:
            return self.get("/healthcheck")[0] == 200
        except OSError:
            return False

    def tasks(self) -> list[dict[str, Any]]:
        status, text = self.get("/api/tasks")
        return list(json.loads(text).values()) if status == 200 else []


@pytest.fixture
def flower(tmp_path: Path, broker: Broker, wait_until: WaitUntil) -> Iterator[Flower]:
    found = Flower(tmp_path, broker)
    found.start()
    yield found
    found.stop()


def listened_to(broker: Broker) -> bool:
    """Whether anybody hears what workers tell of trials."""
    return any(consumers for name, (_, consumers) in broker.queues().items() if name.startswith("celeryev"))


def test_it_shows_each_trial_as_one_task_to_who_has_the_password(
    flower: Flower, broker: Broker, head: HeadLab, work: Callable[..., WorkerLab], wait_until: WaitUntil
) -> None:
    work("a")
    wait_until(flower.answers, 60)
    wait_until(lambda: "@sweepfw" in flower.get("/api/workers?refresh=1")[1], 60)
    wait_until(lambda: listened_to(broker), 60)  # what is told before is heard by nobody
    sweep = head.submit("test $i -lt 3", 3)
    wait_until(lambda: all_ended(head, [sweep]), 60)
    wait_until(lambda: sum(task["state"] in ("SUCCESS", "FAILURE") for task in flower.tasks()) == 3, 60)
    told = sorted((task["name"], task["args"], task["kwargs"]) for task in flower.tasks())
    assert told == [(sweep.name, f"{sweep.name}/{n}", f"i={n}") for n in (1, 2, 3)]
    ends = {task["args"].partition("/")[2]: (task["state"], task["exception"]) for task in flower.tasks()}
    assert ends.pop("3") == ("FAILURE", "TrialError('failed: exit 1')")
    assert set(ends.values()) == {("SUCCESS", None)}

    page = flower.get("/tasks")
    assert page[0] == 200 and "Flower" in page[1]
    public = {"/healthcheck": "OK"}
    urls = ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/task/types"]
    urls += [f"/task/{flower.tasks()[0]['uuid']}", "/metrics", "/healthcheck", "/api/queues/length"]
    for password in (None, "wrong"):
        for url in urls:
            status, text = flower.get(url, password)
            assert status == 401 or text == public.get(url) or status == 404, url
            assert sweep.name not in text and "@sweepfw" not in text, url
    for url in ("/api/worker/shutdown/x", "/api/task/revoke/x", "/api/task/send-task/sweepfw.trial"):
        assert flower.get(url, method="POST")[0] in (403, 404, 405), url  # read-only

    # Its history outlives it.
    assert flower.stop() == 0
    flower.start()
    wait_until(flower.answers, 60)
    assert len(flower.tasks()) == 3


def test_no_secret_shows_in_its_process(flower: Flower, broker: Broker, wait_until: WaitUntil) -> None:
    wait_until(flower.answers, 60)
    secrets = re.compile(b"open-sesame|flower-secret")
    for file in ("cmdline", "environ"):
        assert not secrets.search(Path(f"/proc/{flower.process.pid}/{file}").read_bytes())
    status, page = flower.get("/broker")
    assert status == 200 and "flower-secret" not in page
    assert not secrets.search(flower.log.read_bytes())
