"""From the command line to the head: over a real sshd to a real service, and what is said where it fails."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_service import FolderDesk
from sshd import Sshd, make_key, needs_sshd, public

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import FLOWER_PORT, LOCAL, SERVICE_PORT, Deployment, Host, container
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet.credentials import ensure_credentials
from sweepfw.fleet.reach import connect, forward, read_addresses
from sweepfw.ledger.service import Service
from sweepfw.ledger.store import SqliteLedger
from sweepfw.shell.host_keys import add_key, lookup_name

DOCKER = """#!/bin/sh
echo "$@" >> {folder}/asked
cat {folder}/answer
cat {folder}/complaint >&2
exit $(cat {folder}/code)
"""


class Head:
    """A head's machine: sshd, a service at a container's address, and a docker that says where that is."""

    def __init__(self, folder: Path, *, local: bool = False) -> None:
        self.folder, self.local = folder, local
        self.address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
        program = folder / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER.format(folder=folder))
        program.chmod(0o755)
        self.sshd = Sshd(folder / "sshd", f"SetEnv PATH={program.parent}:/usr/bin:/bin").start()
        host = Host(LOCAL, LOCAL) if local else self.sshd.host("gpu1")
        self.state = DeploymentState.create(
            Deployment("lab", (host,), host.name, (host.name,), identity=str(self.sshd.client_key))
        )
        add_key(
            self.state.known_hosts,
            lookup_name("127.0.0.1", self.sshd.port),
            public(self.sshd.host_keys[0]),
        )
        self.credentials = ensure_credentials(self.state.credentials, [host.name])
        self.docker(head=self.address, flower=self.address)

    def docker(self, *, running: bool = True, complaint: str = "", code: int = 0, **addresses: str) -> None:
        """What docker inspect says from now on."""
        lines = [
            f"/{container('lab', self.state.uid, role)} {'true' if running else 'false'} {address}\n"  # type: ignore[arg-type]  # a role
            for role, address in addresses.items()
        ]
        (self.folder / "answer").write_text("".join(lines))
        (self.folder / "complaint").write_text(complaint)
        (self.folder / "code").write_text(str(code))

    @property
    def asked(self) -> int:
        """How often docker was asked."""
        file = self.folder / "asked"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def serve(self) -> Service:
        for name, text in (
            ("cert", self.credentials.certificate),
            ("key", self.credentials.certificate_key.reveal()),
        ):
            (self.folder / name).write_text(text)
        service = Service(
            SqliteLedger(self.folder / "ledger.db", self.folder / "runs"),
            FolderDesk(self.folder / "desk"),
            address=(self.address, SERVICE_PORT),
            certificate=self.folder / "cert",
            key=self.folder / "key",
            people=self.credentials.people.reveal(),
            workers={},
        )
        service.start()
        return service


@pytest.fixture
def make_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Head]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made: list[tuple[Head, Service | None]] = []

    def make(*, local: bool = False, serve: bool = True) -> Head:
        head = Head(tmp_path, local=local)
        monkeypatch.setenv("SWEEPFW_SSH_CONFIG", str(head.sshd.folder / "config"))
        if local:
            monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        made.append((head, head.serve() if serve else None))
        return head

    yield make
    for head, service in made:
        head.sshd.cut()
        if service is not None:
            service.stop()


def refused(state: DeploymentState) -> str:
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        connect(state).close()
    assert time.monotonic() - started < 60  # 15 s, on a machine with nothing else to do
    assert "\n" not in str(caught.value)
    return str(caught.value)


pytestmark = needs_sshd


@pytest.mark.parametrize("local", [False, True], ids=["over ssh", "here"])
def test_ledger_and_desk_answer(
    make_head: Callable[..., Head], wait_until: Callable[..., None], local: bool
) -> None:
    head = make_head(local=local)
    with connect(head.state) as reached:
        assert list(reached.ledger.sweeps()) == []
        assert reached.desk.lacks({"x"}) == {"x"}
    assert head.asked == 1
    assert head.state.head_addresses == {"head": head.address, "flower": head.address}
    with connect(DeploymentState.load("lab")) as reached:
        assert list(reached.ledger.sweeps()) == []
    assert head.asked == 1  # it is remembered
    logins = 0 if local else 3  # a question and a wire, then a wire alone
    wait_until(lambda: head.sshd.log.count("Accepted publickey") >= logins, 60)  # it writes that a bit later
    assert head.sshd.log.count("Accepted publickey") == logins


@pytest.mark.parametrize("local", [False, True], ids=["over ssh", "here"])
def test_an_address_of_before_the_restart_is_asked_anew(make_head: Callable[..., Head], local: bool) -> None:
    head = make_head(local=local)
    head.state.head_addresses = {"head": "127.251.0.1"}
    head.state.save()
    with connect(head.state) as reached:
        assert list(reached.ledger.sweeps()) == []
    assert head.asked == 1
    assert DeploymentState.load("lab").head_addresses["head"] == head.address


def test_an_address_is_not_remembered_over_an_up(make_head: Callable[..., Head]) -> None:
    head = make_head()
    with head.state.lock():
        with connect(DeploymentState.load("lab")):
            pass
    assert DeploymentState.load("lab").head_addresses == {}


def test_what_the_head_lacks_is_said(make_head: Callable[..., Head]) -> None:
    head = make_head(serve=False)
    head.docker(head="", running=False)
    assert "the container head does not run there; `sweepfw infra up` mends that" in refused(head.state)
    head.docker(complaint="Error: No such container: sweepfw-lab\n", code=1)
    assert "there is no container head of this deployment" in refused(head.state)
    head.docker(complaint="sh: docker: not found\n", code=127)
    assert "Docker there does not say where the head is: sh: docker: not found" in refused(head.state)


def test_nobody_at_the_service(make_head: Callable[..., Head]) -> None:
    head = make_head(serve=False)
    assert "deployment lab, head gpu1: " in refused(head.state)


def test_another_than_the_head_answers(make_head: Callable[..., Head]) -> None:
    """Nothing is sent to who shows another certificate."""
    head = make_head()
    path = head.state.credentials
    path.unlink()
    ensure_credentials(path, [])
    assert "certificate" in refused(head.state)


def test_what_keeps_ssh_from_the_head(make_head: Callable[..., Head], tmp_path: Path) -> None:
    head = make_head()
    head.state.head_addresses = {"head": head.address}
    head.state.known_hosts.unlink()
    assert "gpu1: its key, or a jump host's, is not known any more" in refused(head.state)
    add_key(
        head.state.known_hosts, lookup_name("127.0.0.1", head.sshd.port), public(make_key(tmp_path / "k"))
    )
    assert "gpu1: ITS KEY HAS CHANGED" in refused(head.state)
    assert "Accepted" not in head.sshd.log
    head.sshd.stop()
    assert "gpu1: 127.0.0.1 refuses connections" in refused(head.state)


def test_a_machine_that_is_silent(make_head: Callable[..., Head]) -> None:
    head = make_head()
    head.state.head_addresses = {"head": head.address}
    head.sshd.stop()
    with socket.create_server(("127.0.0.1", head.sshd.port)):
        assert refused(head.state).startswith("gpu1: ")


def test_the_way_needs_neither_fabric_nor_cryptography(make_head: Callable[..., Head]) -> None:
    head = make_head()
    code = (
        "import sys; from sweepfw.config.deployments import DeploymentState; "
        "from sweepfw.fleet.reach import connect\n"
        "with connect(DeploymentState.load('lab')) as reached: print(list(reached.ledger.sweeps()))\n"
        "heavy = {*'fabric paramiko invoke cryptography celery kombu yaml'.split()} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=180
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert head.asked == 1


def test_no_ssh_is_left(make_head: Callable[..., Head], wait_until: Callable[..., None]) -> None:
    head = make_head()
    reached = connect(head.state)
    threads = [threading.Thread(target=lambda: list(reached.ledger.sweeps())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wires(head)
    reached.close()
    reached.close()
    wait_until(lambda: not wires(head), 60)
    with pytest.raises(SweepError):
        list(reached.ledger.sweeps())


def wires(head: Head) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("ssh") and str(head.state.known_hosts) in " ".join(words):
            found.append(" ".join(words))
    return found


@pytest.mark.parametrize("local", [False, True], ids=["over ssh", "here"])
def test_flower_through_a_port_of_ours(make_head: Callable[..., Head], local: bool) -> None:
    head = make_head(local=local)
    with socket.create_server((head.address, FLOWER_PORT)) as flower, forward(head.state) as port:
        for n in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as browser:
                browser.sendall(b"GET / %d" % n)
                there, _ = flower.accept()
                with there:
                    assert there.recv(100) == b"GET / %d" % n
                    there.sendall(b"200")
                assert browser.recv(100) == b"200"
        with pytest.raises(SweepError, match="can't be used here"), forward(head.state, port):
            pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_what_docker_prints() -> None:
    text = "/p-head true 172.18.0.3\n/p-flower false \n/other true 1.2.3.4\n/p-x true\n"
    assert read_addresses(text, {"head": "p-head", "flower": "p-flower"}) == {"head": "172.18.0.3"}
