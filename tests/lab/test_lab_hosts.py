"""The lab itself: its hosts are machines as the rest of the tests need them, and nothing of them is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Kind, Lab, sweep
from lab_docker import docker
from lab_host import Host
from lab_machine import LOWER, build_lower

Wait = Callable[..., None]


def silent(host: Host) -> bool:
    try:
        return host.ssh(["true"], check=False, seconds=3).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def test_each_host_is_a_machine_of_its_own(lab: Lab) -> None:
    assert [host.ssh(["hostname"]).stdout.strip() for host in lab.hosts] == ["host1", "host2"]
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert lab["host1"].read(file) != lab["host2"].read(file)
    engines = {host.ssh(["docker", "info", "-f", "{{.ID}}"]).stdout for host in lab.hosts}
    assert len(engines) == 2
    assert lab["host1"].ssh(["getent", "hosts", "host2"]).stdout.split()[0] == lab["host2"].address


def test_accounts(lab: Lab) -> None:
    host = lab["host1"]
    assert host.ssh(["sudo", "-n", "id", "-u"]).stdout == "0\n"
    assert host.ssh(["id", "-un"], user="root").stdout == "root\n"
    refused = host.ssh(["docker", "ps"], user="plain", check=False)
    assert refused.returncode != 0 and "permission denied" in refused.stderr
    assert host.ssh(["sudo", "-n", "true"], user="plain", check=False).returncode != 0


def test_containers_run_and_reach_the_network(lab: Lab) -> None:
    host = lab["host2"]
    inside = "set -e; apt-get update -qq; python3 -m venv /v; /v/bin/pip download -q --no-deps -d /tmp click"
    host.ssh(["docker", "network", "create", "lab-test"])
    for network in ("bridge", "lab-test"):
        host.ssh(["docker", "run", "--rm", "--network", network, Lab.base, "sh", "-c", inside], seconds=400)
    host.ssh(["docker", "network", "rm", "lab-test"])
    version = host.ssh(["docker", "run", "--rm", Lab.rabbitmq, "rabbitmqctl", "version"]).stdout
    assert version.startswith("4.")


def test_lower_layers_of_our_image_come_with_the_host(lab: Lab) -> None:
    """So that each lab's first `infra up` takes seconds: the builder makes no layer anew."""
    host = lab["host2"]

    def layers() -> str:
        return host.run(["docker", "inspect", "-f", "{{.RootFS.Layers}}", LOWER]).stdout

    before = layers()
    build_lower(host.container)
    assert layers() == before


def test_frozen_cut_off_killed_rebooted(lab: Lab, wait_until: Wait) -> None:
    host, other = lab["host1"], lab["host2"]
    host.ssh(["docker", "run", "-d", "--restart", "always", "--name", "ticks", Lab.base, "sh", "-c", TICKS])
    host.ssh(["docker", "run", "-d", "--name", "once", Lab.base, "sleep", "1000"])

    def ticks() -> int:
        return len(host.run(["docker", "exec", "ticks", "cat", "/ticks"], check=False).stdout.split())

    wait_until(lambda: ticks() > 2, 60)
    host.freeze()
    assert silent(host)
    other.ssh(["true"])
    host.thaw()
    before = ticks()
    host.ssh(["true"])

    host.disconnect()
    assert silent(host)
    wait_until(lambda: ticks() > before, 60, what="what runs on a host that is cut off goes on")
    host.connect()
    host.ssh(["true"])

    identity = host.read("/etc/machine-id"), host.host_key()
    host.reboot()
    host.ssh(["true"])
    assert (host.read("/etc/machine-id"), host.host_key()) == identity
    wait_until(lambda: host.run(["docker", "ps", "--format", "{{.Names}}"]).stdout.split() == ["ticks"], 60)

    host.kill()
    assert silent(host)
    host.heal()
    host.ssh(["true"])
    host.run(["docker", "rm", "-f", "ticks", "once"])


TICKS = "while sleep 0.1; do echo tick >>/ticks; done"


SAME = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def special(_lab_runs: None) -> Iterator[Lab]:
    kinds = {
        "host1": Kind(machine_id=SAME, home="shared", gpus=4),
        "host2": Kind(machine_id=SAME, home="shared", engine=False),
        "host3": Kind(behind="host1"),
        "host4": Kind(docker_disk="100m"),
    }
    lab = Lab.start(hosts=4, kinds=kinds)
    yield lab
    lab.stop()


def test_a_host_whose_key_changed_is_refused(special: Lab) -> None:
    host = special["host4"]
    host.ssh(["true"])
    host.change_host_key()
    refused = host.ssh(["true"], check=False)
    assert refused.returncode == 255 and "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    special.write_ssh_files({"host3": "host1"})
    host.ssh(["true"])


def test_special_hosts(special: Lab) -> None:
    one, two, three, four = special.hosts
    assert one.read("/etc/machine-id") == two.read("/etc/machine-id") == f"{SAME}\n"
    one.ssh(["touch", "here"])
    assert two.ssh(["ls"]).stdout == "here\n"
    assert two.ssh(["docker", "ps"], check=False).returncode == 127

    assert three.ssh(["hostname"]).stdout == "host3\n"  # by way of host1, says ssh_config
    direct = ["ssh", "-F", str(special.ssh_config), "-o", "ProxyJump=none", "host3", "true"]
    assert "refused" in subprocess.run(direct, capture_output=True, text=True).stderr

    size = four.ssh(["df", "--output=size", "-BM", "/var/lib/docker"]).stdout.split()[1]
    assert size == "100M" and Lab.base.partition(":")[0] not in four.ssh(["docker", "images"]).stdout


def test_gpus(special: Lab, wait_until: Wait) -> None:
    host = special["host1"]
    uuids = host.gpu_uuids()
    assert len(set(uuids)) == 4
    ask = "nvidia-smi --query-gpu=index,uuid --format=csv,noheader"

    def seen(*options: str, command: str = ask) -> list[str]:
        call = ["docker", "run", "--rm", *options, Lab.base, "sh", "-c", command]
        return host.ssh(call).stdout.splitlines()

    assert seen("--gpus", "all") == [f"{n}, {uuid}" for n, uuid in enumerate(uuids)]
    assert seen("--gpus", f"device={uuids[2]}") == [f"0, {uuids[2]}"]
    by_runtime = ["--runtime", "nvidia", "-e", f"NVIDIA_VISIBLE_DEVICES={uuids[3]},1", "--read-only"]
    assert seen(*by_runtime) == [f"0, {uuids[3]}", f"1, {uuids[1]}"]
    without = host.ssh(["docker", "run", "--rm", Lab.base, "nvidia-smi"], check=False)
    assert without.returncode == 127

    pid = host.take_gpu(1, memory=9000)
    apps = "--query-compute-apps=gpu_uuid,pid,used_memory"
    assert (
        host.ssh(["nvidia-smi", apps, "--format=csv,noheader,nounits"]).stdout == f"{uuids[1]}, {pid}, 9000\n"
    )
    used = "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits"
    assert seen("--gpus", "all", command=used) == ["14", "9014", "14", "14"]
    assert seen("--gpus", "all", command=f"nvidia-smi {apps} --format=csv,noheader") == []
    host.release_gpu(1)
    assert host.ssh(["nvidia-smi", apps, "--format=csv,noheader"]).stdout == ""
    wait_until(lambda: host.run(["ps", "-p", str(pid)], check=False).returncode == 1, 60)


@pytest.mark.usefixtures("_lab_runs")
def test_what_a_killed_process_leaves_is_removed_at_the_next_start(wait_until: Wait) -> None:
    code = "import sys, lab; print(lab.Lab.start(hosts=1).name, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        name = process.stdout.readline().strip()
        sweep()
        assert len(left(name)) == 4  # a container, a network, a volume, a folder
        process.kill()
    sweep()
    wait_until(lambda: not left(name), 120)  # others' tests that start just now may be at it as well


def left(name: str) -> list[str]:
    """What is there of a lab: containers, networks, volumes, files."""
    label = ["--filter", f"label=sweepfw.lab={name}"]
    found = docker("ps", "-aq", *label).split()
    found += docker("network", "ls", "-q", *label).split() + docker("volume", "ls", "-q", *label).split()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sweepfw-lab", "labs", name)
    return found + ([str(folder)] if folder.exists() else [])
