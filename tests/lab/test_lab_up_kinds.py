"""`infra up` where hosts are of many kinds: GPUs, mounts, a shared home, one away, a head elsewhere."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from lab import Kind, Lab
from lab_host import Host
from lab_site import ROOT, Site, containers
from lab_watch import role, until


def test_kinds(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """One lab, one after the other: its start and its image are most of the time."""
    kinds = {"host2": Kind(gpus=4, home="shared"), "host3": Kind(home="shared")}
    site = Site(start_lab(hosts=3, kinds=kinds), tmp_path)
    head_on_the_second_host(site)
    gpus_a_mount_and_a_shared_home(site)
    a_host_that_is_away(site)
    a_host_that_is_dropped(site)


def head_on_the_second_host(site: Site) -> None:
    """The first runs the worker; the options are written down."""
    site.configure("[host1]")
    printed = site.sweepfw("infra", "up", "-a", "host1,host2", "-m", "2", "-w", "1", code=2)
    assert "--yes" in printed and "Nothing was changed" in printed
    site.sweepfw("infra", "up", "-a", "host1,host2", "-m", "2", "-w", "1", "--yes")
    assert [set(containers(host)) for host in site.lab.hosts] == [
        {"worker"},
        {"rabbitmq", "head", "flower", "tunnel"},
        set(),
    ]
    assert "host1" in site.config.read_text() and site.state.deployment.head == "host2"


def gpus_a_mount_and_a_shared_home(site: Site) -> None:
    """A worker beside the head; and one on a host that shares its home."""
    _, two, three = site.lab.hosts
    two.run(["sh", "-c", "mkdir -p /srv/data && echo 42 >/srv/data/truth && chmod -R a+rX /srv/data"])
    more = "head: host2\nworkers: [host1, host2, host3]"
    site.configure("{host1: , host2: {mounts: ['/srv/data:/data:ro']}, host3: }", more)
    site.sweepfw("infra", "up")
    name = role(site, two, "worker")
    seen = two.run(["docker", "exec", name, "nvidia-smi", "-L"]).stdout
    assert seen.count("GPU-") == 4
    assert two.run(["docker", "exec", name, "cat", "/data/truth"]).stdout == "42\n"
    keys = two.read("/home/lab/.ssh/authorized_keys").splitlines()
    assert len([line for line in keys if "sweepfw:" in line]) == 1  # host3's; the head needs none
    assert keys == three.read("/home/lab/.ssh/authorized_keys").splitlines()


def a_host_that_is_away(site: Site) -> None:
    """Nobody is kept waiting for it, and it comes back by itself."""
    three = site.lab["host3"]
    three.disconnect()
    assert "--skip-unreachable" in site.sweepfw("infra", "up", code=4)
    printed = site.sweepfw("infra", "up", "--skip-unreachable")
    assert "nothing to do" in printed and "on host1, host2" in printed
    three.connect()
    until(lambda: "on host1, host2, host3" in site.sweepfw("infra", "up", code=None), 180)


def a_host_that_is_dropped(site: Site) -> None:
    """It is cleaned, and others at its home are not. The head stays where its sweeps are."""
    _, two, three = site.lab.hosts
    site.configure("[host1, host2, host3]", "head: host1")
    assert "`sweepfw infra down` first" in site.sweepfw("infra", "up", code=2)
    site.configure("[host1, host2]", "head: host2\nworkers: [host1, host2]")
    assert "host3: all that is ours is removed there" in site.sweepfw("infra", "up", code=2)
    assert "host3: all that was ours is removed" in site.sweepfw("infra", "up", "--yes")
    assert containers(three) == {}
    assert three.run(["docker", "volume", "ls", "-q"]).stdout == ""
    assert "sweepfw:" not in two.read("/home/lab/.ssh/authorized_keys")
    assert "nothing to do" in site.sweepfw("infra", "up")


def test_this_machine_as_head_and_worker(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """A host of the lab is the laptop: the package is installed there as a user would, from its wheel."""
    lab = start_lab(hosts=2)
    laptop, other = lab.hosts
    install(laptop)
    laptop.run(["install", "-d", "-o", "lab", "/srv/lab"])
    laptop.write("/home/lab/.ssh/id_ed25519", lab.key.read_text(), user="lab")
    laptop.run(["chmod", "600", "/home/lab/.ssh/id_ed25519"])
    laptop.write("/home/lab/.ssh/known_hosts", f"host2,{other.address} {other.host_key()}\n", user="lab")
    config = f"hosts: [host2]\nbuild: {{base: {Lab.base}, rabbitmq: {Lab.rabbitmq}}}\n"
    laptop.write("/srv/lab/config.yml", config, user="lab")

    def sweepfw(*words: str) -> str:
        done = laptop.run(
            ["sh", "-c", 'cd /srv/lab && exec /opt/laptop/bin/sweepfw "$@"', "sh", *words],
            user="lab",
            seconds=400,
        )
        return done.stdout + done.stderr

    printed = sweepfw("infra", "up", "-a", "host2", "-m", "local", "-w", "local,1", "--name", "t", "--yes")
    assert "t is up: head on local" in printed and "on host2, local" in printed
    assert set(containers(laptop)) == {"rabbitmq", "head", "flower", "tunnel", "worker"}
    assert set(containers(other)) == {"worker"}
    assert "nothing to do" in sweepfw("infra", "up")
    script = "mkdir -p /srv/lab/projects/p; echo \"command: 'sleep {i}'\nparameters: {i: [1, 2, 3, 4]}\" >$0"
    laptop.run(["bash", "-c", script, "/srv/lab/projects/p/project.yml"], user="lab")
    printed = sweepfw("run", "p")
    assert "p-1 is done: 4 succeeded" in printed
    assert {line.split()[0] for line in printed.splitlines() if "p-1/" in line} == {"local", "host2"}
    sweepfw("infra", "down", "--yes", "--outputs", "none")
    assert containers(laptop) == containers(other) == {}

    # This machine alone, without any SSH.
    laptop.run(["sh", "-c", "rm /srv/lab/config.yml; mv /home/lab/.ssh /home/lab/ssh"])
    laptop.write("/srv/lab/config.yml", config.replace("[host2]", "[local]"), user="lab")
    printed = sweepfw("infra", "up", "--local", "--name", "alone", "--yes")
    assert "alone is up: head on local" in printed
    assert set(containers(laptop)) == {"rabbitmq", "head", "flower", "worker"}
    sweepfw("infra", "down", "--yes", "--outputs", "none")
    assert containers(laptop) == {}


def install(host: Host) -> None:
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in files.stdout.splitlines():
            if not name.startswith("tests/") and (ROOT / name).exists():
                tar.add(ROOT / name, name, recursive=False)
    unpack = ["docker", "exec", "-i", host.container, "sh", "-c", "mkdir /opt/tree && tar -C /opt/tree -x"]
    subprocess.run(unpack, input=packed.getvalue(), check=True)
    script = (
        "python3 -m venv /opt/laptop && /opt/laptop/bin/pip install -q --disable-pip-version-check /opt/tree"
    )
    host.run(["sh", "-c", script], seconds=600)
