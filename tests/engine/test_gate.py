"""Together, or one alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sweepfw.engine.gate import Gate


def test_alone_means_nobody_beside() -> None:
    gate = Gate()
    inside, beside = 0, []
    lock = threading.Lock()

    def trial(alone: bool) -> None:
        nonlocal inside
        (gate.enter_alone if alone else gate.enter)()
        with lock:
            inside += 1
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
        thread.join(60)
    assert beside == [1] * 24


def test_together_means_side_by_side() -> None:
    gate, both = Gate(), threading.Barrier(2, timeout=60)

    def trial(_: int) -> None:
        gate.enter()
        both.wait()
        gate.leave()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(trial, range(2))) == [None, None]
