"""Faults of engines, hosts, links, tunnel and sshd."""

from __future__ import annotations

import time
from typing import Literal

from cluster_bed import Bed
from cluster_kinds import MissedError, beyond, briefly, fault, hit, lasting, within
from lab_host import Host
from lab_watch import until


@fault("engine-restart", "any", "host")
def engine_restart(bed: Bed, host: Host, detail: float) -> str:
    """the Docker engine of a host: restarted"""
    host.run(["service", "docker", "restart"], check=False)
    return _engine_back(host)


@fault("engine-kill", "any", "host")
def engine_kill(bed: Bed, host: Host, detail: float) -> str:
    """the Docker engine of a host: kill -9, and started again"""
    _kill_all(host, "dockerd")
    time.sleep(1 + 3 * detail)
    host.run(["sh", "-c", "rm -f /var/run/docker.pid /run/docker-ssd.pid; service docker start"], check=False)
    return _engine_back(host)


def _engine_back(host: Host) -> str:
    until(lambda: not host.run(["docker", "version"], check=False).returncode, 120, "its engine came back")
    return ""


def _kill_all(host: Host, names: str) -> None:
    """All of such names; MissedError where there are none."""
    kill = 'pids=$(pgrep -x "$1") && { kill -9 $pids || true; }'
    if host.run(["sh", "-c", kill, "sh", names], check=False).returncode != 0:
        raise MissedError("it did not run")


@fault("host-frozen", "any", "host")
def host_frozen(bed: Bed, host: Host, detail: float) -> str:
    """a host: frozen beyond the lease, as a laptop that sleeps"""
    host.freeze()
    return lasting(beyond(detail), host.thaw)


@fault("host-reboot", "any", "host")
def host_reboot(bed: Bed, host: Host, detail: float) -> str:
    """a host: rebooted"""
    host.reboot()
    return ""


@fault("host-lost", "far", "host")
def host_lost(bed: Bed, host: Host, detail: float) -> str:
    """a host: lost; nobody boots it before all other faults are over and the sweep has ended"""
    if bed.lost:
        host.kill()
        return f"for {lasting(beyond(detail), host.boot)}: another one is lost already"
    bed.lost.add(host.name)
    host.kill()
    return "for good"


# -- the network -----------------------------------------------------------------------------------------


@fault("cut-short", "far", "nobody")
def cut_short(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: silent both ways for less than the lease"""
    bed.links[host.name].silence()
    return briefly(within(detail), bed.links[host.name].heal)


@fault("cut-long", "far", "host")
def cut_long(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: silent both ways for more than the lease"""
    bed.links[host.name].silence()
    return lasting(beyond(detail), bed.links[host.name].heal)


@fault("one-way", "far", "host")
def one_way(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: silent one way for more than the lease"""
    which: Literal["there", "back"] = "there" if int(detail * 100) % 2 else "back"
    bed.links[host.name].silence(which)
    return f"{which}, {lasting(beyond(detail), bed.links[host.name].heal)}"


@fault("flapping", "far", "nobody")
def flapping(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: silent and well in turn, a hundred times"""
    bed.links[host.name].flap(100, 0.05 + 0.1 * detail)
    return f"{0.05 + 0.1 * detail:.2f} s each"


@fault("reset", "far", "nobody")
def reset(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: all connections forgotten"""
    bed.links[host.name].reset()
    return ""


@fault("delay", "far", "nobody")
def delay(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: two seconds of delay each way"""
    bed.links[host.name].slow(delay=2)
    return lasting(10 + 10 * detail, bed.links[host.name].heal)


@fault("trickle", "far", "host")
def trickle(bed: Bed, host: Host, detail: float) -> str:
    """the link to a host: 1 KB/s"""
    bed.links[host.name].slow(rate=1000)
    return lasting(10 + 10 * detail, bed.links[host.name].heal)


@fault("cable-out", "any", "nobody")
def cable_out(bed: Bed, host: Host, detail: float) -> str:
    """a host's network: gone for less than the lease"""
    host.disconnect()
    return briefly(within(detail / 2), host.connect)


@fault("cable-out-long", "any", "all")
def cable_out_long(bed: Bed, host: Host, detail: float) -> str:
    """a host's network: gone for more than the lease; where it is the head's, all are cut off"""
    host.disconnect()
    return lasting(beyond(detail), host.connect)


@fault("tunnel-kill", "head", "nobody")
def tunnel_kill(bed: Bed, host: Host, detail: float) -> str:
    """the tunnel: its lines, or all of it, kill -9"""
    victims = bed.named(host, "tunnel", "ssh") if detail < 0.7 else [bed.main(host, "tunnel")]
    hit(bed, host, "KILL", *victims)
    return ""


@fault("tunnel-restart", "head", "nobody")
def tunnel_restart(bed: Bed, host: Host, detail: float) -> str:
    """the tunnel: its container restarted"""
    host.run(["docker", "restart", "-t", "3", bed.container("tunnel")])
    return ""


@fault("sshd-kill", "any", "nobody")
def sshd_kill(bed: Bed, host: Host, detail: float) -> str:
    """a host's sshd, with all its connections: kill -9, and started again"""
    _kill_all(host, "sshd|sshd-session|sshd-auth")
    time.sleep(0.5 + detail)
    host.run(["sh", "-c", "rm -f /run/sshd.pid; /usr/sbin/sshd"], check=False)
    return ""
