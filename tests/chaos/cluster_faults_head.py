"""Faults of the head, its ledger and disk, and the broker."""

from __future__ import annotations

import re
import time
from contextlib import suppress

from cluster_bed import STATE, Bed
from cluster_kinds import BrokenError, MissedError, fault, freeze, hit, lasting, mend_by_up, pretend
from lab_host import Host
from lab_watch import until

# Of a ledger: kept beside itself, spoiled, put back.
ASIDE = "for f in $1 $1-wal; do if [ -e $f ]; then cp -a $f $f.aside; fi; done"
SPOIL = "rm -f $1-wal $1-shm; head -c 8192 /dev/urandom | dd of=$1 conv=notrunc"
BACK = "rm -f $1 $1-wal $1-shm; for f in $1 $1-wal; do if [ -e $f.aside ]; then mv $f.aside $f; fi; done"


@fault("head-kill", "head", "nobody")
def head_kill(bed: Bed, host: Host, detail: float) -> str:
    """the head: kill -9"""
    hit(bed, host, "KILL", bed.main(host, "head"))
    return ""


@fault("head-restart", "head", "nobody")
def head_restart(bed: Bed, host: Host, detail: float) -> str:
    """the head: its container restarted"""
    host.run(["docker", "restart", bed.container("head")])
    return ""


@fault("head-anew", "head", "nobody")
def head_anew(bed: Bed, host: Host, detail: float) -> str:
    """the head: its container removed, and made anew by `infra up`"""
    host.run(["docker", "rm", "-f", bed.container("head")])
    return mend_by_up(bed)


@fault("head-frozen", "head", "nobody")
def head_frozen(bed: Bed, host: Host, detail: float) -> str:
    """the head: SIGSTOP beyond the lease, then SIGCONT"""
    return freeze(bed, host, "head", detail)


@fault("head-second", "head", "nobody")
def head_second(bed: Bed, host: Host, detail: float) -> str:
    """a second head on the same ledger: refuses to start, in a line"""
    service = ["/opt/sweepfw/bin/python", "-m", "sweepfw.engine.service", "head", "--port", "9001"]
    if bed.told("ls") is None:
        raise MissedError("the head was away")
    call = ["timeout", "100", "docker", "exec", bed.container("head"), *service]
    done = host.run(call, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 75 and said.count("\n") == 0 and "another head holds this ledger" in said:
        return "refused, exit 75"
    if done.returncode in (1, 126, 137) and not bed.running(host, "head"):
        raise MissedError("the head was away")
    raise BrokenError(f"a second head was not refused: exit {done.returncode}: {said[-300:]}")


@fault("head-crash", "head", "nobody")
def head_crash(bed: Bed, host: Host, detail: float) -> str:
    """the head: dies between two durable writes, at one of its named points, some seconds after its start"""
    points = crash_points()
    point = f"{points[int(detail * len(points))]}:{1 + int(detail * 1000) % 5}"
    bed.inside(host, "head", "sh", "-c", f"echo {point} >{STATE}/.crash", check=False)
    first = bed.main(host, "head")
    hit(bed, host, "KILL", first)
    crashed = _crashed_twice(bed, host, first)
    return f"{point}, {'reached' if crashed else 'not reached'}"


def _crashed_twice(bed: Bed, host: Host, first: int | None) -> bool:
    """Whether the head that began after the kill died as well, within a few seconds."""
    deadline, second = time.monotonic() + 12, None
    while time.monotonic() < deadline:
        now = bed.main(host, "head")
        if now not in (None, first):
            if second not in (None, now):
                return True
            second = now
        time.sleep(0.3)
    return False


def crash_points() -> list[str]:
    """The head's own, beyond those of its start."""
    from sweepfw import crash

    names = ("claim.", "finish.", "expire.", "close.")
    here = ("head.log", "head.keep", "head.kept", "head.concluded", "head.checkpoint", "head.checkpointed")
    also = ("head.noted", "head.published", "head.roster", "head.registered")
    return sorted(name for name in crash.POINTS if name.startswith(names) or name in here + also)


@fault("disk-full", "head", "nobody")
def disk_full(bed: Bed, host: Host, detail: float) -> str:
    """the head's disk: nothing more fits on it, for a while"""
    return pretend(bed, host, "head", 3 + 9 * detail, disk="full")


@fault("disk-read-only", "head", "nobody")
def disk_read_only(bed: Bed, host: Host, detail: float) -> str:
    """the head's disk: read-only, for a while"""
    return pretend(bed, host, "head", 3 + 9 * detail, disk="read-only")


@fault("disk-failing", "head", "nobody")
def disk_failing(bed: Bed, host: Host, detail: float) -> str:
    """the head's disk: a sync fails"""
    return pretend(bed, host, "head", 1 + 3 * detail, disk="failing")


@fault("ledger-torn", "head", "nobody")
def ledger_torn(bed: Bed, host: Host, detail: float) -> str:
    """the ledger: half a transaction at the end of its log, as a cut of the power leaves it"""
    ledger = _stopped(bed, host)
    host.run(["sh", "-c", f"head -c {2000 + int(detail * 9000)} /dev/urandom >>{ledger}-wal"])
    host.run(["docker", "start", bed.container("head")])
    return "recovered"


@fault("ledger-corrupt", "head", "nobody")
def ledger_corrupt(bed: Bed, host: Host, detail: float) -> str:
    """the ledger: pages overwritten; the head must refuse it loudly, and goes on with the file put back"""
    ledger, name = _stopped(bed, host), bed.container("head")
    host.run(["sh", "-c", ASIDE, "sh", ledger])
    host.run(["sh", "-c", SPOIL, "sh", ledger])
    since = host.run(["date", "-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).stdout.strip()
    host.run(["docker", "start", name])
    logs = ["sh", "-c", f"docker logs --since {since} {name} 2>&1"]
    with suppress(AssertionError):
        until(lambda: re.search("ledger[.]db|serves at", host.run(logs).stdout), 100)
    host.run(["docker", "stop", "-t", "5", name])
    said = host.run(logs).stdout
    host.run(["sh", "-c", BACK, "sh", ledger])
    host.run(["docker", "start", name])
    lines = [line for line in said.splitlines() if "ledger.db" in line]
    if not lines or "Traceback" in said or "serves at" in said:
        raise BrokenError(f"a corrupt ledger was not refused in a line: {said[-400:]!r}")
    return f"refused: {lines[0][-90:]}"


def _stopped(bed: Bed, host: Host) -> str:
    """The head killed and kept down; where its ledger lies on the host."""
    host.run(["docker", "kill", bed.container("head")], check=False)
    return f"{bed.state_folder()}/.sweepfw/ledger.db"


# -- the broker ------------------------------------------------------------------------------------------


@fault("broker-kill", "head", "nobody")
def broker_kill(bed: Bed, host: Host, detail: float) -> str:
    """the broker: kill -9"""
    hit(bed, host, "KILL", *bed.named(host, "rabbitmq", "beam.smp"))
    return ""


@fault("broker-restart", "head", "nobody")
def broker_restart(bed: Bed, host: Host, detail: float) -> str:
    """the broker: restarted; all that it held is gone"""
    host.run(["docker", "restart", "-t", "5", bed.container("rabbitmq")])
    return ""


@fault("broker-frozen", "head", "nobody")
def broker_frozen(bed: Bed, host: Host, detail: float) -> str:
    """the broker: SIGSTOP for 15 to 90 s"""
    name = bed.container("rabbitmq")
    host.run(["docker", "pause", name])
    return lasting(
        15 + 75 * detail * bed.patience, lambda: host.run(["docker", "unpause", name], check=False)
    )


@fault("broker-anew", "head", "nobody")
def broker_anew(bed: Bed, host: Host, detail: float) -> str:
    """the broker: container and all its state removed, and made anew by `infra up`"""
    host.run(["docker", "rm", "-f", "-v", bed.container("rabbitmq")])
    return mend_by_up(bed)
