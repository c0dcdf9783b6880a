"""`infra up` on real hosts: it converges, from wherever it is left; and it opens nothing."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab
from lab_site import ROLES, Site, containers, listeners
from lab_watch import until
from ports import free_port

from sweepfw.fleet.credentials import load_credentials

# Options and words of ssh for who tries to do something on the other side.
COMMANDS = (
    ((), ("id",)),
    (("-t",), ("id",)),
    ((), ("sh",)),
    ((), ("docker", "ps")),
    ((), ("cat", "/home/lab/.ssh/authorized_keys")),
    (("-s",), ("sftp",)),
)


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
    until(lambda: all("(healthy)" in containers(lab["host1"])[role][1] for role in ("rabbitmq", "head")))
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
    through = ["ssh", *base, "-i", str(inner), "-o", f"ProxyCommand={' '.join(out)}", "tunnel@worker"]

    assert tried(out).startswith("SSH-2.0")  # the inner sshd's banner, which is all that there is
    for options, words in COMMANDS:
        printed = tried([*out[:-1], *options, out[-1], *words])
        assert printed == "" or printed.startswith("SSH-2.0"), words
        assert not re.search(r"uid=|ssh-ed25519|CONTAINER|sftp", printed), words
        assert not re.search(r"uid=|CONTAINER|sftp", tried([*through[:-1], *options, through[-1], *words]))
    target = f"{host.address}:22"
    for argv in (out, through):
        assert "SSH-2.0" not in tried([*argv[:1], "-W", target, *argv[1:]])
        for forward in (("-R", "127.0.0.1:6000:127.0.0.1:22"), ("-R", "/tmp/sock:127.0.0.1:22")):
            done = run([*argv[:1], "-N", *forward, "-o", "ExitOnForwardFailure=yes", *argv[1:]])
            assert done.returncode not in (0, None), argv
        for place in ("127.0.0.1:22", "/var/run/docker.sock"):
            with LocalForward([*argv[:1], "-N", "-L", f"127.0.0.1:{{port}}:{place}", *argv[1:]]) as answer:
                assert answer == b"", place


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


# -- small tools -----------------------------------------------------------------------------------------


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60
        )
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return subprocess.CompletedProcess(argv, 124, out, "")


def tried(argv: list[str]) -> str:
    """What came out of it. Docker may fail to start what sshd starts; then it is tried again."""
    for _ in range(5):
        printed = run(argv).stdout
        if not printed.startswith("OCI runtime exec failed"):
            break
    return printed


class LocalForward:
    """What a port answers that ssh would forward from here; b"" where it forwards nothing."""

    def __init__(self, argv: list[str]) -> None:
        self.port = free_port()
        self.argv = [word.replace("{port}", str(self.port)) for word in argv]

    def __enter__(self) -> bytes:
        import socket

        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 30
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
