"""What strikes a sweep on this machine: each fault does one thing, and says whom it struck and how."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import here_crashes
import here_orders
import here_torn
from here_processes import Process, family, look
from here_scene import BUSY, END, NO_ROOM, NOBODY, Scene
from schedule import Fault

Blow = Callable[[Scene, Fault], tuple[str, str]]  # gives victim and result


def strike(scene: Scene, fault: Fault) -> None:
    """At some moment of a trial, and then a person goes on where the run has ended."""
    scene.at_work()
    time.sleep(fault.detail * 0.2)
    victim, result = BLOWS[fault.kind](scene, fault)
    scene.tell(fault, victim, result)
    scene.go_on()


# -- killed --------------------------------------------------------------------------------------------


def _kill_cli(scene: Scene, fault: Fault) -> tuple[str, str]:
    return _kill(scene, fault, cli=True)


def _kill_both(scene: Scene, fault: Fault) -> tuple[str, str]:
    return _kill(scene, fault, cli=True, guard=True)


def _kill_guard(scene: Scene, fault: Fault) -> tuple[str, str]:
    return _kill(scene, fault, guard=True)


def _kill(scene: Scene, fault: Fault, *, cli: bool = False, guard: bool = False) -> tuple[str, str]:
    run = scene.world.run
    if run is None or not run.alive:
        return NOBODY, "the run had ended"
    guards = family(run.process.pid)["guard"] if guard else []
    if not cli and not guards:
        return NOBODY, "no guardian was there"
    since = time.monotonic()
    if cli:
        run.process.kill()
    for process in guards:
        process.send(signal.SIGKILL)
    code = scene.ended(60)
    scene.hit(fault.kind, since)
    scene.died()
    return f"pid {run.process.pid}", f"exit {code}"


def _kill_frozen(scene: Scene, fault: Fault) -> tuple[str, str]:
    """While its guardian lives, frozen, nobody else may run the sweep: resume says so. Then it wakes."""
    guard, run = _choose(scene, fault, "guard"), scene.world.run
    if guard is None or run is None:
        return NOBODY, "no guardian was there"
    since = time.monotonic()
    if not guard.send(signal.SIGSTOP):
        return NOBODY, "it had ended"
    run.process.kill()
    scene.ended(60)
    told = scene.world.call("resume", scene.sweep, "-q", "-j", str(scene.world.jobs))
    if told.returncode != BUSY and guard.send(signal.SIGSTOP):
        scene.world.complaints.append(f"resume beside a frozen guardian ended with {told.returncode}")
    guard.send(signal.SIGCONT)
    scene.hit(fault.kind, since)
    scene.died()
    return f"guard {guard.pid}", f"resume: exit {told.returncode}"


def _kill_keeper(scene: Scene, fault: Fault) -> tuple[str, str]:
    """Costs the trial that it keeps, if any, and no other."""
    keeper = _choose(scene, fault, "keeper")
    if keeper is None:
        return NOBODY, "no keeper was there"
    since = time.monotonic()
    # Frozen, so that the trial which we see is the one that it has when it dies.
    if not keeper.send(signal.SIGSTOP):
        return NOBODY, "it had ended"
    kept = [each for each in _family(scene)["trial"] if each.parent == keeper.pid]
    whose = [trial for each in kept if (trial := _trial_of(each)) is not None]
    keeper.send(signal.SIGKILL)
    for trial in whose:
        scene.hit(fault.kind, since, trial=trial)
    if not whose:  # between two trials, or before the first word of one: it is given one until it is missed
        scene.hit(fault.kind, since, time.monotonic() + 5)
    return f"keeper {keeper.pid}", ", ".join(f"{name}/{number}" for name, number in whose) or "between trials"


def _kill_trial(scene: Scene, fault: Fault) -> tuple[str, str]:
    """It failed by signal 9: a person retries it."""
    chosen = _choose(scene, fault, "trial")
    trial = _trial_of(chosen) if chosen else None
    if chosen is None or trial is None:
        return NOBODY, "no trial ran"
    if not chosen.send(signal.SIGKILL):
        return NOBODY, "it had ended"
    return f"{trial[0]}/{trial[1]}", "killed"


# -- frozen: costs nobody anything ---------------------------------------------------------------------


def _freezes(role: str) -> Blow:
    def freeze(scene: Scene, fault: Fault) -> tuple[str, str]:
        chosen = _choose(scene, fault, role)
        if chosen is None:
            return NOBODY, f"no {role} was there"
        seconds = 0.1 + 2 * fault.detail
        if not chosen.send(signal.SIGSTOP):
            return NOBODY, "it had ended"
        time.sleep(seconds)
        chosen.send(signal.SIGCONT)
        return f"{role} {chosen.pid}", f"{seconds:.1f} s"

    return freeze


# -- asked to end --------------------------------------------------------------------------------------


def _interrupt(scene: Scene, fault: Fault) -> tuple[str, str]:
    run = scene.world.run
    if run is None or not run.alive:
        return NOBODY, "the run had ended"
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[fault.target % 3]
    since = time.monotonic()
    run.process.send_signal(number)
    if twice := fault.detail > 0.6:
        time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            run.process.send_signal(number)
    code = scene.ended(END)
    scene.hit(fault.kind, since)
    scene.died()
    if code is None:
        scene.world.complaints.append(f"the run did not end within {END:g} s of {number.name}")
    return f"{number.name}{' twice' if twice else ''}", f"exit {code}"


# -- disk and clock ------------------------------------------------------------------------------------


def _full(scene: Scene, fault: Fault) -> tuple[str, str]:
    """The workspace's disk is full for a while."""
    ballast, since = scene.world.workspace / "ballast", time.monotonic()
    with ballast.open("ab", buffering=0) as file:
        for block in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * block):
                    pass
    size = ballast.stat().st_size
    seconds = 0.2 + 1.5 * fault.detail
    time.sleep(seconds)
    ballast.unlink()
    scene.hit(fault.kind, since, time.monotonic() + NO_ROOM)
    return f"{size >> 20} MB", f"{seconds:.1f} s"


def _clock(scene: Scene, fault: Fault) -> tuple[str, str]:
    """An hour forth or back, and the next one from there."""
    now = int(Path(scene.world.env["CHAOS_CLOCK"]).read_text().split()[0])
    offset = 0 if now and fault.detail < 0.5 else 3600 * (1 if fault.target % 2 else -1)
    set_clock(Path(scene.world.env["CHAOS_CLOCK"]), offset)
    scene.clock_jumped = True
    return "wall clock", f"{offset - now:+d} s"


def set_clock(file: Path, offset: int) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(fd, f"{offset}\n".ljust(64).encode(), 0)
    os.close(fd)


# -- choosing ------------------------------------------------------------------------------------------


def _family(scene: Scene) -> dict[str, list[Process]]:
    run = scene.world.run
    return family(run.process.pid) if run and run.alive else {"guard": [], "keeper": [], "trial": []}


def _choose(scene: Scene, fault: Fault, role: str) -> Process | None:
    """One of them; where there is none just now, wait a little."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        run = scene.world.run
        if run is None or not run.alive:
            return None
        found = _family(scene)
        found["cli"] = [process] if (process := look(run.process.pid)) else []
        if found[role]:
            return sorted(found[role])[fault.target % len(found[role])]
        time.sleep(0.01)
    return None


def _trial_of(process: Process) -> tuple[str, int] | None:
    number = process.told("SWEEPFW_TRIAL")
    return (process.told("SWEEPFW_SWEEP"), int(number)) if number else None


KINDS = {
    "kill-cli": "kill -9 of the command line that runs the sweep",
    "kill-guard": "kill -9 of its guardian",
    "kill-both": "kill -9 of both in the same instant",
    "kill-frozen": "kill -9 of the command line while its guardian is frozen: resume waits for that",
    "kill-keeper": "kill -9 of one keeper: costs one attempt at most",
    "kill-trial": "kill -9 of a trial: it fails, and is retried",
    "interrupt": "Ctrl-C, SIGTERM or SIGHUP, some twice",
    "freeze-cli": "SIGSTOP, and SIGCONT after up to 2 s: costs nothing",
    "freeze-guard": "the guardian frozen: costs nothing",
    "freeze-keeper": "a keeper frozen: costs nothing",
    "freeze-trial": "a trial frozen: costs nothing",
    "crash": "the run or a keeper kills itself between two durable writes (SWEEPFW_CRASH)",
    "commit": "the run kills itself in mid-commit",
    "submit": "another `run` is killed at any step of its submit, or soon after",
    "race": "the run is killed, and two `resume` start at once",
    "pause": "`pause` from another terminal, then `resume`",
    "stop": "`stop SWEEP` from another terminal, then `resume --cancelled`",
    "stop-trial": "`stop SWEEP/N` from another terminal",
    "extend": "`extend` from another terminal adds two trials",
    "gc": "`gc` while it runs: takes nothing that is in use",
    "torn": "a copy of the ledger as it is now, damaged: recovered, or refused in one line",
    "full": "the workspace's disk is full for up to 2 s",
    "clock": "the wall clock jumps by an hour, back or forth",
}
BLOWS: dict[str, Blow] = {
    "kill-cli": _kill_cli,
    "kill-guard": _kill_guard,
    "kill-both": _kill_both,
    "kill-frozen": _kill_frozen,
    "kill-keeper": _kill_keeper,
    "kill-trial": _kill_trial,
    "interrupt": _interrupt,
    "freeze-cli": _freezes("cli"),
    "freeze-guard": _freezes("guard"),
    "freeze-keeper": _freezes("keeper"),
    "freeze-trial": _freezes("trial"),
    "crash": here_crashes.crash,
    "commit": here_crashes.commit,
    "submit": here_crashes.submit,
    "race": here_orders.race,
    "pause": here_orders.pause,
    "stop": here_orders.stop,
    "stop-trial": here_orders.stop_trial,
    "extend": here_orders.extend,
    "gc": here_orders.gc,
    "torn": here_torn.torn,
    "full": _full,
    "clock": _clock,
}
