"""What a deployment's trial is compared with: a plain Celery task that runs a command and keeps its output.

python plain.py ADDRESS SLOTS: the worker. It writes a line for every hundredth task that ended.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from itertools import count

from celery import Celery
from kombu import Queue

QUEUE = "plain"


def make_app(address: str) -> Celery:
    app = Celery("plain", broker=address, set_as_current=False, fixups=[])
    app.conf.update(task_ignore_result=True, task_default_queue=QUEUE, task_queues=[Queue(QUEUE)])
    app.conf.worker_redirect_stdouts = False
    return app


def work(address: str, slots: int) -> None:
    warnings.simplefilter("ignore")  # of superusers
    app, ended = make_app(address), count(1)

    @app.task(name="plain.run")
    def run(command: list[str]) -> None:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        if (number := next(ended)) % 100 == 0:
            print(number, flush=True)

    app.worker_main(
        ["worker", "-P", "threads", "-c", str(slots), "--without-gossip", "--without-mingle", "-l", "error"]
    )


def publish(address: str, command: str, tasks: int) -> None:
    with make_app(address) as app:
        for number in range(1, tasks + 1):
            app.send_task("plain.run", ([command, f"--i={number}"],))


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
