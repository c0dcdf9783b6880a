"""A wire that OpenSSH holds: as strict as the connections of our own, and gone when it is closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ports import free_port
from sshd import USER, Sshd, make_key, needs_sshd, public

from sweepfw.core.command import Secret, cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import UnreachableError
from sweepfw.shell.access import Access
from sweepfw.shell.faults import from_ssh
from sweepfw.shell.host_keys import ChangedKeyError, add_key, lookup_name
from sweepfw.shell.local import LocalShell
from sweepfw.shell.openssh import Wire, run_command, wire_command
from sweepfw.shell.route import Hop, resolve

HOP = Hop("gpu1", "gpu1", "10.0.0.7", 2222, "ada", "[10.0.0.7]:2222", known_files=(Path("/u/known"),))
ACCESS = Access(Path("/state/known hosts"), config=None)


def options(argv: list[str]) -> dict[str, str]:
    return dict(argv[at + 1].split("=", 1) for at, word in enumerate(argv) if word == "-o")


def test_the_arguments_leave_no_choice_to_a_configuration() -> None:
    argv = wire_command([HOP], ACCESS, "172.18.0.3", 7443).reveal()
    assert argv[0] == "ssh" and argv[-2:] == ["--", "gpu1"]
    assert argv[argv.index("-W") + 1] == "172.18.0.3:7443"
    told = options(argv)
    assert (told["StrictHostKeyChecking"], told["BatchMode"], told["ForwardAgent"]) == ("yes", "yes", "no")
    assert told["UserKnownHostsFile"] == '"/state/known hosts" /u/known'
    assert "ProxyCommand" not in told  # the user's own way, if there is one


def test_jump_hosts_are_as_strict() -> None:
    jump = Hop("j", "j", "1.2.3.4", 22, "eve", "1.2.3.4", asked=("-l", "eve"))
    told = options(wire_command([jump, HOP], ACCESS, "::1", 7443).reveal())
    inner = told["ProxyCommand"]
    assert inner.startswith("ssh ") and inner.endswith(" -W 10.0.0.7:2222 -- j") and "-l eve" in inner
    assert "StrictHostKeyChecking=yes" in inner and "'UserKnownHostsFile=\"/state/known hosts\"'" in inner
    argv = wire_command([HOP], ACCESS, "::1", 7443).reveal()
    assert argv[argv.index("-W") + 1] == "[::1]:7443"


def test_no_secret_stands_in_a_command_line() -> None:
    with pytest.raises(ValueError, match="no place for secrets"):
        run_command([HOP], ACCESS, cmd("echo", Secret("x")))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("ada@gpu1: Permission denied (publickey).", "login as ada was refused"),
        ("ada@gpu1: Permission denied (password).", "takes no keys"),
        (
            "ssh: Could not resolve hostname gpu1: Name or service not known",
            "no machine is known by the name gpu1",
        ),
        (
            "ssh: connect to host 10.0.0.7 port 22: Connection refused",
            "10.0.0.7 refuses connections at port 22",
        ),
        ("ssh: connect to host 10.0.0.7 port 22: No route to host", "no way to 10.0.0.7 (No route to host)"),
        ("ssh: connect to host 10.0.0.7 port 22: Connection timed out", "no answer from 10.0.0.7"),
        ("Timeout, server gpu1 not responding.", "the connection is lost"),
        (
            "No ED25519 host key is known for gpu1 and you have requested strict checking.",
            "`sweepfw infra up` shows",
        ),
        ("Bad owner or permissions on /x\r\n", "no SSH connection: Bad owner or permissions on /x"),
        ("", "no reason was given"),
    ],
)
def test_what_ssh_says(said: str, means: str) -> None:
    error = from_ssh("there", said)
    assert str(error).startswith("there: ") and means in str(error) and "\n" not in str(error)


# -- with a real sshd --------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says everything back; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def wire(host: Host, access: Access, port: int) -> Wire:
    hops = resolve(host, replace(access, timeout=60), LocalShell())
    return Wire.open(host.name, wire_command(hops, access, "127.0.0.1", port), 60)


@needs_sshd
def test_a_wire_carries_and_ends(
    start: Callable[..., Sshd], echo: int, wait_until: Callable[..., None]
) -> None:
    sshd = start("sshd")
    line = wire(sshd.host(), sshd.access(), echo)
    line.socket.sendall(b"hello")
    assert line.socket.recv(100) == b"hello"
    assert not line.ended
    line.close()
    line.close()
    assert line.ended
    other = wire(sshd.host(), sshd.access(), echo)
    other.socket.close()  # as who was given the socket does
    wait_until(lambda: other.ended, what="ssh ends by itself")
    other.close()


@needs_sshd
def test_a_wire_through_a_jump_host(start: Callable[..., Sshd], echo: int, tmp_path: Path) -> None:
    jump, target = start("jump"), start("target")
    config = tmp_path / "config"
    config.write_text(
        f"Host there\n  HostName 127.0.0.1\n  Port {target.port}\n  User {USER}\n  ProxyJump between\n"
        f"Host between\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {USER}\n"
        f"  IdentityFile {jump.client_key}\n"
        "Host *\n  GlobalKnownHostsFile none\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n"
    )
    access = target.access(config=str(config))
    (tmp_path / "a b 100%h").mkdir()
    access = replace(access, known_hosts=access.known_hosts.rename(tmp_path / "a b 100%h" / "known"))
    with pytest.raises(UnreachableError, match="not known any more"):
        wire(Host("there", "there"), access, echo)
    name = lookup_name("127.0.0.1", jump.port)
    add_key(access.known_hosts, name, public(jump.host_keys[0]))
    line = wire(Host("there", "there"), access, echo)
    line.socket.sendall(b"hello")
    assert line.socket.recv(100) == b"hello"
    line.close()
    access.known_hosts.unlink()
    add_key(access.known_hosts, name, public(make_key(tmp_path / "other")))
    before = jump.log.count("Accepted")
    with pytest.raises(ChangedKeyError, match="there: ITS KEY HAS CHANGED"):
        wire(Host("there", "there"), access, echo)
    assert jump.log.count("Accepted") == before


@needs_sshd
def test_a_wire_to_where_nobody_is(start: Callable[..., Sshd], wait_until: Callable[..., None]) -> None:
    sshd = start("sshd")
    line = wire(sshd.host(), sshd.access(), free_port())
    assert line.socket.recv(1) == b""
    wait_until(lambda: line.ended)
    assert "open failed" in line.said
    line.close()
    assert "open failed" in line.said


@needs_sshd
def test_what_keeps_a_wire_from_being(start: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = start("sshd")
    with pytest.raises(UnreachableError, match="not known any more"):
        wire(sshd.host(), sshd.access(known=False), 1)
    with pytest.raises(UnreachableError, match=f"login as {USER} was refused"):
        wire(sshd.host(), sshd.access(identity=str(make_key(tmp_path / "k"))), 1)
    with pytest.raises(UnreachableError, match="refuses connections"):
        wire(sshd.host(port=free_port()), sshd.access(), 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(UnreachableError):
            wire(sshd.host(port=silent.getsockname()[1]), sshd.access(timeout=1), 1)
        assert time.monotonic() - started < 50


@needs_sshd
def test_a_command_through_ssh(start: Callable[..., Sshd]) -> None:
    sshd = start("sshd")
    access = sshd.access()
    command = run_command(
        resolve(sshd.host(), access, LocalShell()), access, cmd("printf", "%s|", "a b", "$(id)", "'")
    )
    assert LocalShell().run(command, timeout=120).text == "a b|$(id)|'|"
