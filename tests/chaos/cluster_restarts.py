"""`infra up` and `infra down`, killed again and again, and cut off from a host in the midst."""

from __future__ import annotations

import random
import shlex
import subprocess
from contextlib import suppress

from cluster_bed import Bed


def kill_often(bed: Bed, words: tuple[str, ...], times: int, most: float, chance: random.Random) -> list[str]:
    """Begin the command and kill it, so many times, each at a random moment; what was done, in words."""
    found = []
    for _ in range(times):
        after = chance.uniform(0.3, most)
        process = bed.site.start(*words)
        with suppress(subprocess.TimeoutExpired):
            process.wait(after)
        ended = process.poll()
        process.kill()
        printed, _ = process.communicate()
        how = f"killed after {after:.1f} s" if ended is None else f"ended, exit {ended}"
        found.append(f"{shlex.join(words)}: {how}" + (f": {printed[-1500:]}" if ended else ""))
        if ended == 0 and "down" in words:
            break
    return found


def lose_ssh(bed: Bed, words: tuple[str, ...], most: float, chance: random.Random) -> str:
    """Begin the command, and end all SSH connections of one host in the midst of it; what came of it. Raises
    AssertionError where that is a traceback, or no end at all."""
    host, after = chance.choice(bed.lab.hosts), chance.uniform(1, most)
    process = bed.site.start(*words)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    host.run(["sh", "-c", "kill -9 $(pgrep -x sshd-session)"], check=False)
    try:
        printed, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    if "Traceback" in printed:
        raise AssertionError(f"{shlex.join(words)}, connections to {host.name} lost: {printed[-2000:]}")
    last = (printed.strip().splitlines() or [""])[-1]
    return (
        f"{shlex.join(words)}, SSH to {host.name} lost after {after:.1f} s: exit {process.returncode}: {last}"
    )
