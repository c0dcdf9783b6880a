"""Orders from another terminal, and a person who goes on twice."""

from __future__ import annotations

import time

import witness
from here_scene import END, NOBODY, Scene
from here_world import Line
from schedule import Fault


def race(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Two resume at once, after a kill. One runs the sweep; the other hands over to it, or says why not."""
    since = time.monotonic()
    scene.world.let_go()
    scene.hit(fault.kind, since)
    scene.died()
    first = _resume(scene)
    time.sleep(0.1 * fault.detail)
    second = _resume(scene)
    code = _one_goes_on(scene, first, second)
    return "two resume", f"exit {code}, the {'second' if scene.world.run is second else 'first'} goes on"


def _resume(scene: Scene) -> Line:
    return scene.world.spawn("resume", scene.sweep, "-q", "-j", str(scene.world.jobs))


def _one_goes_on(scene: Scene, first: Line, second: Line) -> int:
    """Wait until one of two gives way to the other, which is the run from now on; its exit code."""
    deadline = time.monotonic() + END
    while first.alive and second.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    if first.alive and second.alive:
        scene.world.complaints.append(f"two that would run the sweep: both go on after {END:g} s")
        second.process.kill()
    winner, loser = (second, first) if second.alive else (first, second)
    scene.world.run = winner
    return scene.world.end(loser)


def pause(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Running trials end by themselves; nothing is interrupted."""
    told = scene.world.call("pause", scene.sweep, may_refuse=True)
    if told.returncode:
        return NOBODY, told.stderr.strip()
    if fault.target % 2 and scene.world.run:  # perhaps while its last trials still run: then it goes on
        code = _one_goes_on(scene, scene.world.run, _resume(scene))
        return "sweep", f"resumed at once, exit {code}"
    ended = scene.ended(END)
    if ended is None:
        scene.world.complaints.append(f"a paused run did not end within {END:g} s")
    scene.died()
    return "sweep", f"exit {ended}"


def stop(scene: Scene, fault: Fault) -> tuple[str, str]:
    scene.world.call("stop", scene.sweep, *(["--now"] if fault.target % 2 else []))
    code = scene.ended(END)
    if code is None:
        scene.world.complaints.append(f"a stopped run did not end within {END:g} s")
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
    told = scene.world.call("stop", f"{scene.sweep}/{number}", may_refuse=True)
    return NOBODY if told.returncode else f"{scene.sweep}/{number}", f"exit {told.returncode}"


def extend(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Two more trials, which the run takes; where it ends just now, `extend` goes on in its place."""
    added = ",".join(witness.case("calm", 0.1, 10**6 + 2 * len(scene.strikes) + n) for n in range(2))
    line = scene.world.spawn("extend", scene.sweep, "--set", f"case={added}", "-q")
    if scene.world.run is None:
        return NOBODY, f"exit {scene.world.end(line)}"
    code = _one_goes_on(scene, scene.world.run, line)
    return "sweep", f"exit {code}"


def gc(scene: Scene, fault: Fault) -> tuple[str, str]:
    told = scene.world.call("gc")
    return "workspace", f"exit {told.returncode}"
