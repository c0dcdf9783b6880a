"""Together, or one alone."""

from __future__ import annotations

import threading
import time

from sweepfw.engine.gate import Gate


def test_alone_means_nobody_beside() -> None:
    gate = Gate()
    inside, most, beside = 0, 0, []
    lock = threading.Lock()

    def trial(alone: bool) -> None:
        nonlocal inside, most
        (gate.enter_alone if alone else gate.enter)()
        with lock:
            inside += 1
            most = max(most, inside)
            if alone:
                beside.append(inside)
        time.sleep(0.001)
        with lock:
            if alone:
                beside.append(inside)
            inside -= 1
        gate.leave()

    threads = [threading.Thread(target=trial, args=(n % 5 == 0,)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert beside == [1] * 24
    assert most > 1
