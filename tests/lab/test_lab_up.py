"""`infra up` on real hosts: it converges, from wherever it is left; and it opens nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Kind, Lab
from lab_site import Site, containers, listeners

from sweepfw.fleet.credentials import load_credentials

ROLES = {"host1": {"rabbitmq", "head", "flower", "tunnel", "worker"}, "host2": {"worker"}}


@pytest.fixture(scope="module")
def up(_session_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A deployment on both hosts, for the tests that leave it as it is."""
    site = Site(_session_lab, tmp_path_factory.mktemp("site"))
    site.configure()
    printed = site.sweepfw("infra", "up")
    assert "t is up: head on host1, " in printed and "next: sweepfw run PROJECT" in printed
    yield site
    site.sweepfw("infra", "down", "--yes", "--outputs", "none", code=None)


def test_up_and_again(lab: Lab, up: Site) -> None:
    before = {host.name: containers(host) for host in lab.hosts}
    assert {name: set(roles) for name, roles in before.items()} == ROLES
    for _ in range(2):
        printed = up.sweepfw("infra", "up")
        assert "t is as it should be; nothing to do" in printed and "t is up" in printed
    after = {host.name: containers(host) for host in lab.hosts}
    assert {n: {r: id for r, (id, _) in c.items()} for n, c in after.items()} == {
        n: {r: id for r, (id, _) in c.items()} for n, c in before.items()
    }
    wait(lambda: all("(healthy)" in containers(lab["host1"])[role][1] for role in ("rabbitmq", "head")))
    assert "✓ host2" in up.sweepfw("infra", "doctor")


def test_a_changed_key_leads_to_its_steps_alone(lab: Lab, up: Site) -> None:
    before = containers(lab["host1"])
    up.configure("{host1: , host2: {slots: 3}}")
    assert up.sweepfw("infra", "up", "--dry-run").splitlines() == [
        "1 step on 1 host:",
        "  host2  start worker anew, its configuration changed",
    ]
    assert ", 5 slots on host1, host2" in up.sweepfw("infra", "up")
    assert {r: id for r, (id, _) in containers(lab["host1"]).items()} == {
        r: id for r, (id, _) in before.items()
    }
    up.configure()
    up.sweepfw("infra", "up")


def test_what_was_stopped_or_removed_by_hand_comes_back(lab: Lab, up: Site) -> None:
    names = {role: f"sweepfw-t-{up.state.uid[:6]}-{role}" for role in ROLES["host1"]}
    lab["host1"].run(["docker", "stop", "-t", "1", names["flower"]])
    lab["host1"].run(["docker", "rm", "-f", names["tunnel"]])
    lab["host2"].run(["sed", "-i", "/sweepfw:/d", "/home/lab/.ssh/authorized_keys"])
    printed = up.sweepfw("infra", "up")
    for step in ("start flower, which was stopped", "start tunnel", "let the head's key reach the worker"):
        assert f"✓ host{2 if 'key' in step else 1}  {step}" in printed
    assert "3 steps on 2 hosts" in printed


def test_nothing_listens_but_sshd(lab: Lab, up: Site) -> None:
    assert [listeners(host) for host in lab.hosts] == [{22}, {22}]


def test_the_heads_key_opens_nothing_else(lab: Lab, up: Site, tmp_path: Path) -> None:
    """Stolen, and used from elsewhere: no shell, no command, no forward, neither outside nor inside."""
    credentials, host = load_credentials(up.state.credentials), lab["host2"]
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    for path, key in ((outer, credentials.outer), (inner, credentials.inner)):
        path.touch(0o600)
        path.write_text(key.private.reveal())
    base = ["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
    base += ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "IdentitiesOnly=yes"]
    out = ["ssh", *base, "-i", str(outer), f"lab@{host.address}"]
    through = [
        *base,
        "-i",
        str(inner),
        "-o",
        f"ProxyCommand={' '.join([*out[:-1], out[-1]])}",
        "tunnel@worker",
    ]

    for words in (["id"], ["-t", "id"], ["sh"], ["cat", "/home/lab/.ssh/authorized_keys"]):
        options = [word for word in words if word == "-t"]
        printed = tried([*out[:-1], *options, out[-1], *[word for word in words if word != "-t"]])
        assert "uid=" not in printed and "ssh-ed25519" not in printed
        assert printed == "" or "SSH-2.0" in printed  # the inner sshd's banner is all that there is
    for words in (["id"], ["-t", "id"], ["-s", "sftp"]):
        assert "uid=" not in tried(["ssh", *words[:-1], *through, words[-1]])
    target = f"{host.address}:22"
    for argv in (out, ["ssh", *through]):
        assert "SSH-2.0" not in tried([*argv[:1], "-W", target, *argv[1:]])
        for forward in (("-R", "127.0.0.1:6000:127.0.0.1:22"), ("-R", "/tmp/sock:127.0.0.1:22")):
            done = run([*argv[:1], "-N", *forward, "-o", "ExitOnForwardFailure=yes", *argv[1:]])
            assert done.returncode not in (0, None), argv
        with LocalForward([*argv[:1], "-N", "-L", "127.0.0.1:{port}:127.0.0.1:22", *argv[1:]]) as answer:
            assert b"SSH-2.0" not in answer


def test_trials_cannot_read_the_tunnels_keys(lab: Lab, up: Site) -> None:
    name = f"sweepfw-t-{up.state.uid[:6]}-worker"
    for file in ("host_key", "authorized_keys"):
        done = lab["host2"].run(["docker", "exec", name, "cat", f"/etc/sweepfw/{file}"], check=False)
        assert "Permission denied" in done.stderr
    done = lab["host2"].run(
        ["docker", "exec", name, "sh", "-c", "id; echo x >/etc/sweepfw/settings.json"], check=False
    )
    assert "uid=1000(lab) gid=1000(lab)" in done.stdout and "Permission denied" in done.stderr


def test_no_secret_in_ps_or_inspect(lab: Lab, up: Site) -> None:
    credentials = load_credentials(up.state.credentials)
    hidden = [
        credentials.people,
        credentials.broker_head,
        credentials.broker_flower,
        credentials.broker_worker,
    ]
    hidden += [credentials.flower_password, *(each.token for each in credentials.workers.values())]
    for host in lab.hosts:
        ids = [id for id, _ in containers(host).values()]
        told = host.run(["docker", "inspect", *ids]).stdout + host.run(["ps", "axeww"]).stdout
        for id in ids:
            done = host.run(["docker", "logs", id])
            told += done.stdout + done.stderr
        assert not [secret for secret in hidden if secret.reveal() in told]


# -- killed ----------------------------------------------------------------------------------------------


def test_killed_at_any_moment_the_next_up_finishes_it(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = start_lab(hosts=2)
    site = Site(lab, tmp_path)
    site.configure()
    seed = random.randrange(10**6)
    print("seed", seed)
    moments = random.Random(seed)
    for _ in range(3):
        process = site.start("infra", "up")
        time.sleep(moments.uniform(0.5, 25))
        process.kill()
        process.communicate()
    printed = site.sweepfw("infra", "up")
    assert "t is up: head on host1" in printed
    assert "nothing to do" in site.sweepfw("infra", "up")
    assert {host.name: set(containers(host)) for host in lab.hosts} == ROLES
    site.sweepfw("infra", "down", "--yes", "--outputs", "none")
    for host in lab.hosts:
        assert containers(host) == {}
        assert host.run(["docker", "volume", "ls", "-q"]).stdout == ""
        assert "sweepfw" not in host.run(["docker", "network", "ls"]).stdout
        assert "sweepfw:" not in host.read("/home/lab/.ssh/authorized_keys")
        assert host.run(["ls", "-A", "/home/lab/.sweepfw"], check=False).stdout == ""
        assert host.run(["sh", "-c", "ls -d /dev/shm/sweepfw* 2>/dev/null"], check=False).stdout == ""


# -- hosts that are not as they should be ----------------------------------------------------------------


def test_all_that_is_wrong_at_once_and_nothing_changed(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = start_lab(
        hosts=6,
        kinds={
            "host2": Kind(behind="host1"),
            "host3": Kind(engine=False),
            "host4": Kind(docker_disk="300m"),
            "host5": Kind(machine_id="0123456789abcdef0123456789abcdef"),
            "host6": Kind(machine_id="0123456789abcdef0123456789abcdef"),
        },
    )
    site = Site(lab, tmp_path)
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
    for host in lab.hosts:
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


def test_a_host_whose_key_changed_stops_everything(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = start_lab(hosts=2)
    site = Site(lab, tmp_path)
    site.configure()
    lab["host2"].change_host_key()
    printed = site.sweepfw("infra", "up", code=4)
    assert "KEY HAS CHANGED" in printed.upper() and "nothing was sent" in printed
    assert containers(lab["host1"]) == {}


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_an_unknown_key_is_shown_and_asked_for(lab: Lab, tmp_path: Path, answer: str) -> None:
    import pexpect

    site, host = Site(lab, tmp_path), lab["host1"]
    shown = host.run(["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()[1]
    (tmp_path / "bin" / "ssh").unlink()  # whose configuration knows the key
    doctor = ["-m", "sweepfw", "infra", "doctor", "-a", f"lab@{host.address}", "-i", str(lab.key)]
    child = pexpect.spawn(
        sys.executable, doctor, cwd=site.workspace, env=site.environment, encoding="utf-8", timeout=60
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


# -- small tools -----------------------------------------------------------------------------------------


def wait(ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=15
        )
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return subprocess.CompletedProcess(argv, 124, out, "")


def tried(argv: list[str]) -> str:
    """What came out of it."""
    return run(argv).stdout


class LocalForward:
    """What a port answers that ssh would forward from here; b"" where it forwards nothing."""

    def __init__(self, argv: list[str]) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.argv = [word.replace("{port}", str(self.port)) for word in argv]

    def __enter__(self) -> bytes:
        import socket

        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2) as line:
                    line.settimeout(3)
                    return line.recv(100)
            except (ConnectionRefusedError, TimeoutError, ConnectionResetError):
                time.sleep(0.3)
        return b""

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
