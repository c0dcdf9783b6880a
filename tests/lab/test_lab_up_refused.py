"""`infra up` and `infra doctor` on hosts that are not as they should be: all is said, and nothing is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from lab import Kind, Lab
from lab_site import Site, containers


@pytest.fixture(scope="module")
def special(_lab_runs: None) -> Iterator[Lab]:
    """Hosts that can't all be of one deployment."""
    kinds = {
        "host2": Kind(behind="host1"),
        "host3": Kind(engine=False),
        "host4": Kind(docker_disk="300m"),
        "host5": Kind(machine_id="0123456789abcdef0123456789abcdef"),
        "host6": Kind(machine_id="0123456789abcdef0123456789abcdef"),
    }
    lab = Lab.start(hosts=6, kinds=kinds)
    yield lab
    lab.stop()


def test_all_that_is_wrong_at_once_and_nothing_changed(special: Lab, tmp_path: Path) -> None:
    site = Site(special, tmp_path)
    others = "nobody: {address: plain@host1}, gone: 10.255.255.1"
    site.configure(f"{{host1: , host2: , host3: , host4: , host5: , host6: , {others}}}")
    printed = site.sweepfw("infra", "up", code=4)
    lines = {line.strip() for line in printed.splitlines()}
    told = told_of(printed)

    assert told["host1"] == []
    assert "✗ its key is not known" not in printed
    assert told["host2"] == []  # through a jump host, which is the head
    assert told["host3"] == ["✗ Docker is not installed"]
    assert "run scripts/install_docker.sh host3" in lines
    assert any("free where Docker keeps images" in each for each in told["host4"])
    assert told["host6"] == ["✗ has the same machine-id as host5"]
    assert "✗ user plain may not use Docker" in told["nobody"]
    assert any("no answer" in each or "no way" in each for each in told["gone"])
    assert "--skip-unreachable" in printed
    for host in special.hosts:
        assert host.run(["ls", "/home/lab/.sweepfw"], check=False).returncode != 0
    assert list((tmp_path / "state").rglob("deployment.json")) == []


def told_of(printed: str) -> dict[str, list[str]]:
    """Host -> its complaints."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line[:1] in "✓!✗" and line:
            mine = found.setdefault(line.split()[1], [])
        elif line.strip()[:1] in ("!", "✗"):
            mine.append(line.strip())
    return found


def test_a_host_whose_key_changed_stops_everything(special: Lab, tmp_path: Path) -> None:
    site = Site(special, tmp_path)
    site.configure("[host1, host5]")
    special["host5"].change_host_key()
    try:
        printed = site.sweepfw("infra", "up", code=4)
    finally:
        special.write_ssh_files({"host2": "host1"})  # it is known again
    assert "KEY HAS CHANGED" in printed.upper() and "nothing was sent" in printed
    assert containers(special["host1"]) == {}


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_an_unknown_key_is_shown_and_asked_for(special: Lab, tmp_path: Path, answer: str) -> None:
    site, host = Site(special, tmp_path), special["host1"]
    shown = host.run(["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()[1]
    (tmp_path / "bin" / "ssh").unlink()  # whose configuration knows the key
    doctor = ["-m", "sweepfw", "infra", "doctor", "-a", f"lab@{host.address}", "-i", str(special.key)]
    child = pexpect.spawn(
        sys.executable, doctor, cwd=site.workspace, env=site.environment, encoding="utf-8", timeout=180
    )
    child.expect_exact(shown)
    child.expect("right one")
    child.sendline(answer)
    child.expect("Docker 26" if answer == "yes" else "its key is not known")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == (0 if answer == "yes" else 4)
    trusted = site.sweepfw(*doctor[2:], "--trust", f"{host.address}={shown}")
    assert f"✓ {host.address}" in trusted
    site.sweepfw(*doctor[2:], "--trust", f"{host.address}=SHA256:{'A' * 43}", code=4)
