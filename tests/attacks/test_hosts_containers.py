"""What docs/security.md says that a trial can and can't do to its host, tried in a container with a worker's
options, on a real engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_hosts_answers import GOOD, MARK, answer

from sweepfw.core.deployment import Host
from sweepfw.fleet import facts as host_facts
from sweepfw.fleet import roles

UID = 12_345  # some account of the host, which is not root
TRY = r"""
import ctypes, json, os, socket, subprocess, sys
def may(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return True
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
libc = ctypes.CDLL(None, use_errno=True)
def mount():
    if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
other = subprocess.Popen(["sleep", "60"], env={"SECRET": "of another trial"})
def setuid():
    subprocess.run(["su", "-c", "true"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
print(json.dumps({
    "uid": [os.getuid(), os.getgid()],
    "capabilities": [status[f"Cap{s}"].strip() for s in ("Eff", "Prm", "Bnd")],
    "no new privileges": status["NoNewPrivs"].strip(),
    "docker": [os.path.exists(p) for p in ("/var/run/docker.sock", "/run/docker.sock")],
    "mount": may(mount), "su": may(setuid), "setuid": may(lambda: os.setuid(0)),
    "device": may(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))),
    "disks": [name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme"))],
    "sysctl": may(lambda: open("/proc/sys/kernel/hostname", "w").write("x")),
    "image": may(lambda: open("/usr/bin/python3", "ab")), "passwd": may(lambda: open("/etc/passwd", "a")),
    "raw": may(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "mine": may(lambda: open("/mine/new", "w").write("x")),
    "mine/theirs": may(lambda: open("/mine/theirs").read()),
    "delete theirs": may(lambda: os.unlink("/mine/theirs")),
    "read-only": may(lambda: open("/ro/new", "w").write("x")), "read": may(lambda: open("/ro/file").read()),
    "unmounted": os.path.exists(sys.argv[1]),
    "pid namespace": os.readlink("/proc/self/ns/pid"),
    "processes": [int(p) for p in os.listdir("/proc") if p.isdigit()],
    "another": "of another trial" in open(f"/proc/{other.pid}/environ").read(),
    "kill another": may(lambda: other.kill()), "interfaces": sorted(os.listdir("/sys/class/net")),
}))
"""  # fmt: skip


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=280)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the trial found. Its mounts: /mine, its account's folder with a root's file in it; /ro."""
    try:
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", check=False).split()
    except FileNotFoundError:
        images = []
    image = next((name for name in images if name.startswith("sweepfw-lab/base:")), None)
    if image is None or os.getuid() != 0:
        pytest.skip("no image of the lab's here to try it in: scripts/test --lab makes one")
    folder = tmp_path_factory.mktemp("host")
    for name in ("mine", "ro", "unmounted"):
        (folder / name).mkdir()
    os.chown(folder / "mine", UID, UID)
    (folder / "mine/theirs").write_text("of root")
    (folder / "mine/theirs").chmod(0o600)
    (folder / "ro/file").write_text("data")
    (folder / "ro").chmod(0o755)
    found = host_facts.read(
        answer({**GOOD, "who": f"{UID}\n{UID}\nada\nada\n{UID}\n/home/ada", "gpus": ""}), MARK, 0.0, 2e9
    )
    host = Host("gpu1", "gpu1", mounts=(f"{folder}/mine:/mine", f"{folder}/ro:/ro:ro"))
    options = [*roles.common(found), *roles.worker_options(host, found)]
    options[options.index("--restart") + 1] = "no"
    options[options.index("--shm-size") + 1] = "64m"
    name = f"sweepfw-attack-{os.getpid()}"
    docker("create", "--name", name, *options, image, "python3", "-c", TRY, f"{folder}/unmounted")
    try:
        said = docker("start", "-a", name)
        inspected = json.loads(docker("inspect", name))[0]
        yield {**json.loads(said), "folder": folder, "inspected": inspected}
    finally:
        docker("rm", "-f", name, check=False)


def test_it_is_an_account_without_a_right_and_without_a_way_to_gain_one(tried: dict[str, Any]) -> None:
    assert tried["uid"] == [UID, UID] and set(tried["capabilities"]) == {"0" * 16}
    assert tried["no new privileges"] == "1" and tried["docker"] == [False, False]
    assert tried["inspected"]["HostConfig"]["Privileged"] is False
    for what in ("mount", "su", "setuid", "device", "sysctl", "image", "passwd", "raw"):
        assert tried[what] is not True, what
    assert tried["disks"] == []


def test_it_reaches_what_is_mounted_as_that_account_would(tried: dict[str, Any]) -> None:
    """It may change its account's files, and remove others' from its own folders; nothing else is there."""
    assert tried["mine"] is True and tried["mine/theirs"] == "PermissionError"
    assert tried["delete theirs"] is True  # who owns a folder decides what is in it
    assert tried["read"] is True and tried["read-only"] == "OSError"
    assert tried["unmounted"] is False
    made: Path = tried["folder"] / "mine/new"
    assert made.stat().st_uid == UID


def test_it_sees_other_trials_and_no_process_of_the_host(tried: dict[str, Any]) -> None:
    assert tried["another"] is True and tried["kill another"] is True
    assert tried["pid namespace"] != os.readlink("/proc/self/ns/pid")
    assert 1 in tried["processes"] and len(tried["processes"]) < 10


def test_it_has_a_network_and_no_port_of_the_host(tried: dict[str, Any]) -> None:
    assert "eth0" in tried["interfaces"]
    assert not any(tried["inspected"]["NetworkSettings"]["Ports"].values())
    assert tried["inspected"]["HostConfig"]["PidMode"] != "host"
    assert tried["inspected"]["HostConfig"]["NetworkMode"] != "host"


def test_nothing_limits_what_it_takes_of_the_machine(tried: dict[str, Any]) -> None:
    """As the page says: CPUs, memory and processes are shared with whoever works there."""
    limits = tried["inspected"]["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (0, 0) and (limits["PidsLimit"] or 0) <= 0
