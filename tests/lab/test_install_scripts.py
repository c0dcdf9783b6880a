"""The scripts/install_*.sh, on hosts that lack what they bring."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Kind, Lab
from lab_host import Host

SCRIPTS = Path(__file__).parents[2] / "scripts"
HOLD = """
import fcntl, sys, time
locks = [open(name, "w") for name in ("/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock")]
for lock in locks: fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def script(name: str, lab: Lab, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / name, *arguments],
        env={**os.environ, "SWEEPFW_SSH": f"-F {lab.ssh_config}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_docker_on_a_host_without_it(start_lab: Callable[..., Lab]) -> None:
    lab = start_lab(hosts=1, kinds={"host1": Kind(engine=False)})
    host = lab.hosts[0]
    holding = subprocess.Popen(
        ["docker", "exec", "-i", host.container, "python3", "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holding.stdin and holding.stdout and holding.stdout.readline() == "held\n"
    with subprocess.Popen(
        [SCRIPTS / "install_docker.sh", "host1"],
        env={**os.environ, "SWEEPFW_SSH": f"-F {lab.ssh_config}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as installing:
        assert installing.stdout
        assert installing.stdout.readline() == "host1: installing Docker\n"
        assert installing.stdout.readline() == "host1: another apt or dpkg is at work; waiting for it\n"
        holding.stdin.close()
        rest = installing.stdout.read().splitlines()
    holding.wait()
    assert installing.returncode == 0, (rest, host.run(["tail", "/var/log/docker.log"], check=False).stdout)
    assert [line.startswith("host1: Docker ") for line in rest] == [True, False] and rest[0].endswith(" runs")
    assert "lab is in the group docker now" in rest[1]
    assert host.ssh(["docker", "ps", "-q"]).stdout == ""
    assert "buildx" in host.ssh(["docker", "buildx", "version"]).stdout

    again = script("install_docker.sh", lab, "host1")
    assert again.returncode == 0 and again.stderr == ""
    assert again.stdout.count("\n") == 1 and again.stdout.endswith(" is there and answers\n")


def test_who_may_not_become_root_is_told(lab: Lab) -> None:
    refused = script("install_docker.sh", lab, "plain@host1")
    assert refused.returncode == 1
    assert (
        refused.stderr
        == "plain@host1: sudo asks plain for a password: run this on a terminal, or use root@...\n"
    )
    assert refused.stdout == ""


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch /tmp/pwned", "a b", "$(id)", "user@", "host:port", ""]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    for name in ("install_docker.sh", "install_nvidia_container_toolkit.sh"):
        refused = subprocess.run([SCRIPTS / name, host], capture_output=True, text=True)
        assert refused.returncode == 2
        assert refused.stderr == f"{host}: not a host; expected [user@]host[:port]\n"


def test_a_host_that_does_not_answer(lab: Lab) -> None:
    lab.hosts[1].kill()
    refused = script("install_docker.sh", lab, "host2")
    assert refused.returncode == 2 and "host2: cannot log in with ssh; try: ssh -F " in refused.stderr
    assert "Traceback" not in refused.stderr


CTK = """#!/usr/bin/python3
import json, pathlib, sys
assert sys.argv[1:] == ["runtime", "configure", "--runtime=docker"], sys.argv
file = pathlib.Path("/etc/docker/daemon.json")
config = json.loads(file.read_text())
config.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
file.write_text(json.dumps(config))
"""
CONTROL = """Package: nvidia-container-toolkit
Version: 1.17.8-1
Architecture: amd64
Maintainer: The lab <lab@example.invalid>
Description: stands for NVIDIA's
"""


def make_package(folder: Path) -> Path:
    """A package that brings what NVIDIA's does: nvidia-ctk, the runtime, and its hook."""
    programs = folder / "package/usr/bin"
    programs.mkdir(parents=True)
    (programs / "nvidia-ctk").write_text(CTK)
    images = Path(__file__).parent / "images"
    for name, source in (("", "nvidia-runtime"), ("-hook", "nvidia-hook")):
        (programs / f"nvidia-container-runtime{name}").write_text((images / source).read_text())
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "package/DEBIAN").mkdir()
    (folder / "package/DEBIAN/control").write_text(CONTROL)
    made = folder / "nvidia-container-toolkit.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", folder / "package", made], check=True)
    return made


def make_repository(folder: Path) -> Path:
    """Laid out and signed as NVIDIA's: gpgkey, and stable/deb/amd64/."""
    package = make_package(folder)
    place = folder / "repository/stable/deb/amd64"
    place.mkdir(parents=True)
    data = package.read_bytes()
    (place / package.name).write_bytes(data)
    about = f"Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (place / "Packages").write_text(CONTROL + about)
    index = (place / "Packages").read_bytes()
    digest = f"{hashlib.sha256(index).hexdigest()} {len(index)} Packages"
    release = f"Origin: lab\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n {digest}\n"
    (place / "Release").write_text(release)
    home = folder / "gpg"
    home.mkdir(mode=0o700)
    gpg = [
        "gpg",
        "--homedir",
        str(home),
        "--batch",
        "--quiet",
        "--passphrase",
        "",
        "--pinentry-mode",
        "loopback",
    ]
    try:
        subprocess.run([*gpg, "--quick-generate-key", "lab@example.invalid", "ed25519", "sign"], check=True)
        sign = [*gpg, "--clearsign", "--digest-algo", "SHA512", "-o", str(place / "InRelease")]
        subprocess.run([*sign, str(place / "Release")], check=True)
        subprocess.run([*gpg, "--armor", "-o", str(folder / "repository/gpgkey"), "--export"], check=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return folder / "repository"


def without_toolkit(host: Host) -> None:
    """A host with GPUs and their driver, and Docker that knows nothing of them."""
    host.run(["sh", "-c", "rm /usr/bin/nvidia-container-runtime*"])
    daemon = json.loads(host.read("/etc/docker/daemon.json"))
    del daemon["runtimes"]
    host.write("/etc/docker/daemon.json", json.dumps(daemon))
    host.run(["service", "docker", "restart"])
    host.wait_until_up()


def test_toolkit(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    name = "install_nvidia_container_toolkit.sh"
    lab = start_lab(hosts=2, gpus={"host1": 2})
    host = lab.hosts[0]
    without_toolkit(host)
    subprocess.run(
        ["docker", "cp", make_repository(tmp_path), f"{host.container}:/srv/repository"], check=True
    )
    serve = "cd /srv/repository && python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 &"
    up = "until (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.1; done"
    host.run(["bash", "-c", f"{serve} {up}"])
    repository = {"SWEEPFW_NVIDIA_REPO": "http://127.0.0.1:8000"}
    count = ["docker", "run", "--rm", "--gpus", "all", Lab.base, "nvidia-smi", "-L"]
    assert "could not select device driver" in host.ssh(count, check=False).stderr
    host.run(["docker", "run", "-d", "--init", "--name", "precious", Lab.base, "sleep", "1000"])

    no_driver = script(name, lab, "host2", **repository)
    assert no_driver.returncode == 1 and "host2: no NVIDIA driver answers" in no_driver.stderr

    held_back = script(name, lab, "host1", **repository)
    assert held_back.returncode == 1, held_back
    assert "which would stop: precious; run this again with --restart" in held_back.stderr
    assert host.run(["docker", "ps", "--format", "{{.Names}}"]).stdout == "precious\n"

    installed = script(name, lab, "--restart", "host1", **repository)
    assert installed.returncode == 0, installed
    assert installed.stdout.splitlines() == [
        "host1: the toolkit is there",
        "host1: restarting Docker, which stops: precious",
        "host1: containers get GPUs",
    ]
    assert host.ssh(count).stdout.count("UUID: GPU-") == 2
    assert "dns" in host.read("/etc/docker/daemon.json")

    host.run(["docker", "start", "precious"])
    again = script(name, lab, "host1", **repository)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines() == ["host1: the toolkit is there", "host1: Docker knows it"]
    assert host.run(["docker", "ps", "--format", "{{.Names}}"]).stdout == "precious\n"
