"""Hosts, containers and links that fail under a sweep: every trial ends, succeeds once, and leaves no copy.

Real hosts, each with its own sshd and Docker engine; see lab_bed for the witnesses. The tests of the upper
half use a deployment as it comes, those of the lower half one whose leases run out after 20 s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab import Lab
from lab_bed import Bed, configure, deployed, docker, person
from lab_host import Host
from lab_site import containers
from lab_watch import until

# Asks the broker, from within a worker's container, for its first words: they come through the tunnel.
KNOCK = """
import socket
line = socket.create_connection(("127.0.0.1", 5672), 2)
line.settimeout(2)
line.sendall(b"AMQP\\0\\0\\x09\\x01")
assert line.recv(1)
"""
SAVING = """
n=$(cat $SWEEPFW_CHECKPOINT/n 2>/dev/null || echo 0)
echo "from $n"
[ $SWEEPFW_ATTEMPT = 1 ] && { echo 7 >$SWEEPFW_CHECKPOINT/n; echo saved; wait_for never; }
"""

KILL_ENGINE = """
kill -9 $(pgrep -x dockerd)
while pgrep -x dockerd; do sleep 0.1; done
rm -f /run/docker*.pid
"""


@pytest.fixture(scope="module")
def long_bed(_lab_runs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    lab = Lab.start(hosts=3)
    try:
        with deployed(lab, tmp_path_factory.mktemp("site")) as bed:
            yield bed
    finally:
        lab.stop()


@pytest.fixture(scope="module")
def short_bed(long_bed: Bed) -> Bed:
    """The same, with short leases from here on."""
    configure(long_bed.site, "lease: 20s\nrenew: 2s")
    printed = long_bed.site.sweepfw("infra", "up")
    assert "start head anew, its configuration changed" in printed
    return long_bed


@pytest.fixture(autouse=True)
def healed(long_bed: Bed) -> Iterator[None]:
    with person(long_bed.site):
        long_bed.whole()
        yield
        long_bed.lab.heal()


def knocks(bed: Bed, host: Host) -> bool:
    """Whether the host's worker can reach the broker."""
    asked = ["timeout", "5", "docker", "exec", bed.container("worker"), "python3", "-c", KNOCK]
    return host.run(asked, check=False).returncode == 0


def alone(bed: Bed, seconds: float = 60) -> None:
    """Nothing of a trial is left. A login takes its name only after a moment."""
    until(lambda: not bed.strangers(), seconds, bed.strangers)


# -- with leases as they come --------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True], ids=["restarted", "killed"])
def test_the_broker_may_forget_everything(long_bed: Bed, killed: bool) -> None:
    """In the midst of some trials, with more that wait. What it held lay in its memory, and is gone."""
    bed, head = long_bed, long_bed.lab["host1"]
    sweep = bed.submit("wait_for go", 12)
    bed.running(sweep, 6)
    docker(head, "kill" if killed else "restart", bed.container("rabbitmq"))
    if killed:
        docker(head, "start", bed.container("rabbitmq"))
    bed.go(sweep)
    bed.ended(sweep)
    assert bed.once(sweep, 12)
    assert bed.told(sweep) == [f"{n}/1 succeeded" for n in range(1, 13)]


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_trials_do_not_notice_that_the_head_is_started_anew(long_bed: Bed, how: str) -> None:
    bed, head = long_bed, long_bed.lab["host1"]
    sweep = bed.submit("echo before; wait_for go; echo after", 8)
    bed.running(sweep, 6)
    if how == "kill":
        head.run(["sh", "-c", f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {bed.container('head')})"])
        bed.go(sweep)  # they end while nobody is there who could be told
    else:
        docker(head, "restart", bed.container("head"))
        bed.go(sweep)
    bed.ended(sweep)
    assert bed.once(sweep, 8)
    assert bed.told(sweep) == [f"{n}/1 succeeded" for n in range(1, 9)]
    assert bed.log(sweep, 1) == "before\nafter\n"


def test_a_reboot_of_the_heads_host_costs_only_what_ran_there(long_bed: Bed) -> None:
    bed = long_bed
    here = bed.submit("[ $SWEEPFW_ATTEMPT = 2 ] || wait_for never", 2, hosts=["host1"])
    there = bed.submit("echo before; wait_for go; echo after", 3, hosts=["host2"])
    bed.running(here, 2)
    bed.running(there, 2)
    bed.lab["host1"].reboot()
    bed.go(there)
    bed.ended(there)
    bed.ended(here)
    assert bed.once(there, 3)
    assert bed.told(there) == [f"{n}/1 succeeded" for n in (1, 2, 3)]
    assert bed.log(there) == "before\nafter\n"
    assert bed.told(here) == ["1/1 lost", "1/2 succeeded", "2/1 lost", "2/2 succeeded"]


def test_a_short_cut_costs_nothing(long_bed: Bed) -> None:
    bed, host = long_bed, long_bed.lab["host2"]
    sweep = bed.submit("for n in $(seq 1 60); do echo line $n; sleep 0.5; done", 2, hosts=["host2"])
    bed.running(sweep, 2)
    until(lambda: knocks(bed, host), what="the tunnel")
    host.disconnect()
    time.sleep(20)
    assert not knocks(bed, host)
    host.connect()
    took = until(lambda: knocks(bed, host), 120, "the tunnel")
    print(f"the tunnel was back after {took:.1f} s")
    bed.ended(sweep)
    assert bed.once(sweep, 2)
    assert bed.told(sweep) == ["1/1 succeeded", "2/1 succeeded"]
    assert bed.log(sweep, 2) == "".join(f"line {n}\n" for n in range(1, 61))


def test_a_stop_is_heard_at_once(long_bed: Bed) -> None:
    """On every host, where a renewal alone would bring it within 20 s, at each at another time."""
    bed = long_bed
    script = """trap 'note "$(date +%s.%N)"; exit 1' TERM; while :; do sleep 0.02; done"""
    sweep = bed.submit(script, 6)
    bed.running(sweep, 6)
    assert len(bed.strangers()) >= 6
    ordered = time.time()
    bed.head.ledger.stop(sweep.uid)
    until(lambda: bed.told(sweep) == [f"{n}/1 cancelled" for n in range(1, 7)], what=lambda: bed.told(sweep))
    heard = [float(line.split()[0]) - ordered for line in bed.noted(sweep) if line[0].isdigit()]
    print("heard after", heard)
    assert len(heard) == 6 and max(heard) < 10
    alone(bed)


# -- with leases of 20 s -------------------------------------------------------------------------------


def test_a_trial_of_a_killed_host_goes_on_elsewhere(short_bed: Bed) -> None:
    bed = short_bed
    sweep = bed.submit(SAVING, hosts=["host2", "host3"], more="checkpoint_every: 1s")
    [attempt] = bed.running(sweep)
    head = bed.lab["host1"]
    kept = ["docker", "exec", bed.container("head"), "tar", "-xOf"]
    kept += [f"/var/lib/sweepfw/runs/{sweep.name}/trials/1/checkpoint.tar", "n"]
    until(lambda: head.run(kept, check=False).stdout == "7\n", what="the checkpoint")
    bed.lab[attempt.host].kill()
    bed.ended(sweep)
    first, second = bed.attempts(sweep)
    assert (first.state, first.accepted) == ("lost", False)
    assert (second.state, second.accepted) == ("succeeded", True)
    assert second.host != first.host and bed.log(sweep, 1, 2) == "from 7\n"
    bed.lab[attempt.host].boot()
    bed.whole()
    assert sorted(bed.noted(sweep)) == ["end 1 2", "start 1 1", "start 1 2"]
    assert bed.told(sweep) == ["1/1 lost", "1/2 succeeded"]
    alone(bed)


def test_a_long_cut_with_a_free_slot_elsewhere_leads_to_one_more_attempt(short_bed: Bed) -> None:
    """What the cut-off attempt tells later is refused."""
    bed = short_bed
    sweep = bed.submit("wait_for go.$SWEEPFW_ATTEMPT", hosts=["host2", "host3"])
    [attempt] = bed.running(sweep)
    bed.lab[attempt.host].disconnect()
    bed.running(sweep, attempt=2)
    bed.go(sweep, "go.1")  # it ends well, and nobody can be told
    until(lambda: "end 1 1" in bed.noted(sweep), what="its end")
    bed.lab[attempt.host].connect()
    until(lambda: bed.told(sweep)[0] == "1/1 stale", 180, lambda: bed.told(sweep))
    bed.go(sweep, "go.2")
    bed.ended(sweep)
    assert bed.told(sweep) == ["1/1 stale", "1/2 succeeded"]
    assert [each.host for each in bed.attempts(sweep) if each.accepted] != [attempt.host]
    assert sorted(bed.noted(sweep)) == ["end 1 1", "end 1 2", "start 1 1", "start 1 2"]


def test_a_long_cut_without_a_free_slot_costs_nothing(short_bed: Bed) -> None:
    bed = short_bed
    sweep = bed.submit("wait_for go", hosts=["host2"])
    bed.running(sweep)
    bed.lab["host2"].disconnect()
    until(
        lambda: [each.state for each in bed.head.ledger.trials(sweep.uid)] == ["queued"], 180, "a lost lease"
    )
    time.sleep(5)
    bed.lab["host2"].connect()
    until(
        lambda: [each.state for each in bed.head.ledger.trials(sweep.uid)] == ["running"], 180, "its return"
    )
    bed.go(sweep)
    bed.ended(sweep)
    assert bed.once(sweep)
    assert bed.told(sweep) == ["1/1 succeeded"]


def test_a_killed_worker_leaves_nothing_and_is_back(short_bed: Bed) -> None:
    bed, host = short_bed, short_bed.lab["host2"]
    again = "[ $SWEEPFW_ATTEMPT = 2 ] || { setsid -f env -i sleep 4000; wait_for never; }"
    sweep = bed.submit(again, 2, hosts=["host2"])
    bed.running(sweep, 2)
    host.run(["sh", "-c", f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {bed.container('worker')})"])
    bed.ended(sweep)
    assert bed.told(sweep) == [f"{n}/{m}" for n in (1, 2) for m in ("1 lost", "2 succeeded")]
    alone(bed)


def test_a_host_that_froze_wakes_beside_its_successor(short_bed: Bed) -> None:
    bed = short_bed
    sweep = bed.submit("[ $SWEEPFW_ATTEMPT = 2 ] || wait_for never", hosts=["host2", "host3"])
    [attempt] = bed.running(sweep)
    bed.lab[attempt.host].freeze()
    bed.ended(sweep)
    bed.lab[attempt.host].thaw()
    alone(bed)
    until(lambda: bed.told(sweep)[0] == "1/1 stale", 180, lambda: bed.told(sweep))
    assert bed.told(sweep) == ["1/1 stale", "1/2 succeeded"]
    assert sorted(bed.noted(sweep)) == ["end 1 2", "start 1 1", "start 1 2"]


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_an_engine_that_is_started_anew_takes_its_trials_along(short_bed: Bed, how: str) -> None:
    """And brings the worker back, also where it was killed and finds it alive."""
    bed, host = short_bed, short_bed.lab["host2"]
    sweep = bed.submit("[ $SWEEPFW_ATTEMPT = 2 ] || wait_for never", 2, hosts=["host2"])
    bed.running(sweep, 2)
    if how == "kill":
        host.run(["sh", "-c", KILL_ENGINE])
        host.run(["service", "docker", "start"])
    else:
        host.run(["service", "docker", "restart"])
    bed.ended(sweep)
    ends = bed.told(sweep)
    assert [end for end in ends if end.endswith("succeeded")] == ["1/2 succeeded", "2/2 succeeded"]
    assert sorted(bed.noted(sweep)) == sorted(
        f"{what} {n} {m}" for n in (1, 2) for what, m in (("start", 1), ("start", 2), ("end", 2))
    )


def test_nothing_is_left_of_all_that(short_bed: Bed) -> None:
    bed = short_bed
    alone(bed)
    wanted = {"host1": {"rabbitmq", "head", "flower", "tunnel", "worker"}}
    for host in bed.lab.hosts:
        assert set(containers(host)) == wanted.get(host.name, {"worker"})
        assert len(docker(host, "ps", "-aq").split()) == len(containers(host))
    status = bed.head.desk.status()
    assert (status.queued, status.running) == (0, 0)
    assert "nothing to do" in bed.site.sweepfw("infra", "up")
