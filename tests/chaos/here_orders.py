"""Orders from another terminal, and a person who goes on twice."""

from __future__ import annotations

import time

from here_scene import Scene
from schedule import Fault


def race(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Two resume at once, after a kill. One runs the sweep; the other hands over to it, or says why not."""
    since = time.monotonic()
    scene.world.let_go()
    scene.hit(fault.kind, since)
    scene.died()
    first = scene.world.spawn("resume", scene.sweep, "-q", "-j", str(scene.world.jobs))
    time.sleep(0.1 * fault.detail)
    second = scene.world.spawn("resume", scene.sweep, "-q", "-j", str(scene.world.jobs))
    deadline = time.monotonic() + 60
    while first.alive and second.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    if first.alive and second.alive:
        scene.world.complaints.append("two resume at once: both go on after 60 s")
        second.process.kill()
    winner, loser = (second, first) if second.alive else (first, second)
    code = scene.world.end(loser)
    if code not in (0, 1, 75):
        scene.world.complaints.append(f"two resume at once: the one that gave way ended with {code}")
    scene.world.run = winner
    return "two resume", f"exit {code}, the {'second' if winner is second else 'first'} goes on"


def pause(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Running trials end by themselves; nothing is interrupted."""
    scene.world.call("pause", scene.sweep)
    if fault.target % 2:  # while its last trials still run
        scene.world.call("resume", scene.sweep, "-q", "-j", str(scene.world.jobs))
        return "sweep", "resumed at once"
    code = scene.ended(120)
    if code is None:
        scene.world.complaints.append("a paused run did not end within 120 s")
    scene.died()
    return "sweep", f"exit {code}"


def stop(scene: Scene, fault: Fault) -> tuple[str, str]:
    scene.world.call("stop", scene.sweep, *(["--now"] if fault.target % 2 else []))
    code = scene.ended(60)
    if code is None:
        scene.world.complaints.append("a stopped run did not end within 60 s")
    scene.world.let_go()
    stopped = {
        trial["trial"] for trial in scene.world.show(scene.sweep)["trials"] if trial["state"] == "cancelled"
    }
    scene.reopened |= {(scene.sweep, number) for number in stopped}
    scene.cancelled -= scene.reopened
    scene.stopped_at = scene.world.starts()
    scene.resume()
    scene.died()
    return "sweep", f"exit {code}, {len(stopped)} cancelled"


def stop_trial(scene: Scene, fault: Fault) -> tuple[str, str]:
    numbers = [trial["trial"] for trial in scene.world.show(scene.sweep)["trials"]]
    number = numbers[fault.target % len(numbers)]
    scene.cancelled.add((scene.sweep, number))
    told = scene.world.call("stop", f"{scene.sweep}/{number}")
    return f"{scene.sweep}/{number}", f"exit {told.returncode}"
