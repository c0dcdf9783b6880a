"""Faults of workers, trials, GPUs and clocks, and what people do at the wrong moment."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import suppress

from cluster_bed import Bed
from cluster_kinds import MissedError, fault, freeze, hit, lasting, mend_by_up, one_of, pretend
from lab_host import Host


@fault("worker-kill", "any", "host")
def worker_kill(bed: Bed, host: Host, detail: float) -> str:
    """the worker (Celery main): kill -9"""
    hit(bed, host, "KILL", bed.main(host, "worker"))
    return ""


@fault("worker-frozen", "any", "host")
def worker_frozen(bed: Bed, host: Host, detail: float) -> str:
    """the worker: SIGSTOP beyond the lease, then SIGCONT"""
    return freeze(bed, host, "worker", detail)


@fault("worker-oom", "any", "host")
def worker_oom(bed: Bed, host: Host, detail: float) -> str:
    """the worker: out of memory, ended by the kernel"""
    main, name = bed.main(host, "worker"), bed.container("worker")
    if main is None:
        raise MissedError("it did not run")
    host.run(["sh", "-c", f"echo 1000 >/proc/{main}/oom_score_adj"])
    limit = str(_memory(bed, host) + 20_000_000)
    host.run(["docker", "update", "--memory", limit, "--memory-swap", limit, name])
    eat = "import time; x = bytearray(b'x') * 200_000_000; time.sleep(1)"
    bed.inside(host, "worker", "timeout", "10", "python3", "-c", eat, check=False)
    host.run(["docker", "update", "--memory", "60g", "--memory-swap", "60g", name], check=False)
    time.sleep(0.5)
    return "ended by the kernel" if bed.main(host, "worker") != main else "the kernel chose another"


def _memory(bed: Bed, host: Host) -> int:
    look = "cat /sys/fs/cgroup/memory/memory.usage_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.current"
    return int(bed.inside(host, "worker", "sh", "-c", look))


@fault("trial-kill", "any", "nobody")
def trial_kill(bed: Bed, host: Host, detail: float) -> str:
    """a trial: kill -9 from outside; it fails, and its neighbours go on"""
    pid = one_of(bed.named(host, "worker", "witness.py"), detail)
    trial = _trial_of(host, pid)
    if not trial:
        raise MissedError("it had ended")
    hit(bed, host, "KILL", pid)
    return f"trial {trial}"


def _trial_of(host: Host, pid: int | str) -> str:
    """`chaos-1/17`, of one of its processes; nothing where that has ended."""
    told = host.run(["cat", f"/proc/{pid}/environ"], check=False).stdout.split("\0")
    who = dict(word.split("=", 1) for word in told if "=" in word)
    return f"{who['SWEEPFW_SWEEP']}/{who['SWEEPFW_TRIAL']}" if "SWEEPFW_TRIAL" in who else ""


@fault("keeper-kill", "any", "host")
def keeper_kill(bed: Bed, host: Host, detail: float) -> str:
    """a slot's keeper: kill -9; its trial is lost, its neighbours go on"""
    pid = one_of(bed.named(host, "worker", "sweepfw-keeper"), detail)
    hit(bed, host, "STOP", pid)  # so that it is this trial's, and not the next one's
    children = host.run(["pgrep", "-P", str(pid)], check=False).stdout.split()
    trial = next(filter(None, (_trial_of(host, child) for child in children)), "")
    bed.signal(host, "KILL", pid)
    return f"trial {trial}" if trial else "between two trials"


@fault("guardian-kill", "any", "host")
def guardian_kill(bed: Bed, host: Host, detail: float) -> str:
    """the guardian: kill -9"""
    hit(bed, host, "KILL", *bed.named(host, "worker", "sweepfw-guard")[:1])
    return ""


@fault("gpu-broken", "any", "nobody")
def gpu_broken(bed: Bed, host: Host, detail: float) -> str:
    """the GPUs' driver: nvidia-smi fails; what runs goes on, nothing new starts there"""
    place = bed.lab.hosts[2]
    if place.name in bed.lost:
        raise MissedError("it is lost")
    place.run(["touch", "/var/lib/lab-gpus/broken"])
    lasted = lasting(5 + 5 * detail, lambda: place.run(["rm", "-f", "/var/lib/lab-gpus/broken"]))
    return f"of {place.name}, {lasted}"


@fault("clock", "any", "nobody")
def clock(bed: Bed, host: Host, detail: float) -> str:
    """a wall clock: an hour ahead or behind for a while, the worker's or the head's"""
    role = "head" if host is bed.head and detail < 0.6 else "worker"
    hours = 1 if int(detail * 100) % 2 else -1
    lasted = pretend(bed, host, role, 6 + 10 * detail, clock=3600 * hours)
    return f"the {role}'s, {hours:+d} h, {lasted}"


# -- people ----------------------------------------------------------------------------------------------


@fault("cli-kill", "head", "nobody")
def cli_kill(bed: Bed, host: Host, detail: float) -> str:
    """the command that follows the sweep: kill -9"""
    if not bed.kill_follower():
        raise MissedError("it did not run")
    return ""


@fault("submit-kill", "head", "nobody")
def submit_kill(bed: Bed, host: Host, detail: float) -> str:
    """another `sweepfw run`, killed while it submits: its sweep is there whole, or not at all"""
    process = bed.site.start("run", "extra", "--detach")
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2 + 1.6 * detail)
    ended = process.poll()
    process.kill()
    process.communicate()
    if ended is not None:
        raise MissedError(f"it had ended, exit {ended}")
    return f"killed after {0.2 + 1.6 * detail:.1f} s"


@fault("up-kill", "head", "nobody")
def up_kill(bed: Bed, host: Host, detail: float) -> str:
    """`infra up` again, while trials run: killed, and then to its end; it restarts nothing"""
    process = bed.site.start("infra", "up")
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.3 + random.Random(detail).uniform(0, 3))
    process.kill()
    process.communicate()
    return mend_by_up(bed)
