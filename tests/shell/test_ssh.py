"""Getting into hosts: every key on the way is checked first, and what fails is one line with what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port
from sshd import USER, Sshd, make_key, needs_sshd, public

from sweepfw.core.command import cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.shell.access import Access
from sweepfw.shell.host_keys import ChangedKeyError, UnknownKeyError, add_key, lookup_name
from sweepfw.shell.ssh import SshShell

pytestmark = needs_sshd


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """start("name", "a line of sshd_config", ...): a machine, gone with the test."""
    started: list[Sshd] = []

    def start(name: str = "sshd", *lines: str, **options: object) -> Sshd:
        started.append(Sshd(tmp_path / name, *lines, **options).start())  # type: ignore[arg-type]  # its own
        return started[-1]

    yield start
    for sshd in started:
        sshd.cut()


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def whoami(host: Host, access: Access) -> str:
    shell = SshShell.open(host, access)
    try:
        return shell.run(cmd("id", "-un")).text.strip()
    finally:
        shell.close()


def said(host: Host, access: Access) -> str:
    """The one line of what stands in the way."""
    with pytest.raises(SweepError) as caught:
        SshShell.open(host, access)
    assert "\n" not in str(caught.value) and host.name in str(caught.value)
    assert caught.value.exit_code == 4
    return str(caught.value)


# -- keys of hosts ---------------------------------------------------------------------------------------


def test_an_unknown_key_is_shown_and_taken_after_a_yes(start: Callable[..., Sshd]) -> None:
    sshd = start()
    access = sshd.access(known=False)
    with pytest.raises(UnknownKeyError) as caught:
        SshShell.open(sshd.host(), access)
    key = public(sshd.host_keys[0])
    assert (caught.value.host, caught.value.key) == ("there", key)
    assert key.fingerprint in str(caught.value) and f"--trust there={key.fingerprint}" in str(caught.value)
    assert "Accepted" not in sshd.log and f"user {USER}" not in sshd.log
    caught.value.accept(access.known_hosts)
    assert whoami(sshd.host(), access) == USER


def test_a_trusted_fingerprint_is_taken_and_kept(start: Callable[..., Sshd]) -> None:
    sshd = start()
    other = frozenset({"SHA256:" + "A" * 43})
    with pytest.raises(UnknownKeyError):
        whoami(sshd.host(), sshd.access(known=False, trust={"there": other}))
    right = frozenset({public(sshd.host_keys[0]).fingerprint})
    with pytest.raises(UnknownKeyError):
        whoami(sshd.host(), sshd.access(known=False, trust={"elsewhere": right}))
    assert whoami(sshd.host(), sshd.access(known=False, trust={"there": right})) == USER
    assert whoami(sshd.host(), sshd.access(known=False)) == USER


def test_the_users_own_known_hosts_count(start: Callable[..., Sshd]) -> None:
    sshd = start()
    name = lookup_name("127.0.0.1", sshd.port)
    add_key(sshd.folder / "user_known_hosts", name, public(sshd.host_keys[0]))
    subprocess.run(
        ["ssh-keygen", "-q", "-H", "-f", sshd.folder / "user_known_hosts"], check=True, capture_output=True
    )
    assert whoami(sshd.host(), sshd.access(known=False)) == USER


def test_a_changed_key_stops_it_with_nothing_sent(start: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = start()
    access = sshd.access(known=False, trust={"there": frozenset({public(sshd.host_keys[0]).fingerprint})})
    other = public(make_key(tmp_path / "other"))
    add_key(access.known_hosts, lookup_name("127.0.0.1", sshd.port), other)
    with pytest.raises(ChangedKeyError, match="ITS KEY HAS CHANGED") as caught:
        SshShell.open(sshd.host(), access)
    assert f"{access.known_hosts}:1" in str(caught.value)
    assert "Accepted" not in sshd.log and f"user {USER}" not in sshd.log


def test_a_key_of_another_type_counts_as_changed(start: Callable[..., Sshd], tmp_path: Path) -> None:
    """Who sits between shows a type that is not known."""
    sshd = start(keys=("ed25519",))
    access = sshd.access(known=False)
    rsa = public(make_key(tmp_path / "rsa", "rsa"))
    add_key(access.known_hosts, lookup_name("127.0.0.1", sshd.port), rsa)
    with pytest.raises(ChangedKeyError):
        SshShell.open(sshd.host(), access)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_known_one_of_several_keys_is_asked_for(start: Callable[..., Sshd], kind: str) -> None:
    sshd = start(keys=("rsa", "ecdsa", "ed25519"))
    access = sshd.access(known=False)
    (key,) = (path for path in sshd.host_keys if path.name == f"host_{kind}")
    add_key(access.known_hosts, lookup_name("127.0.0.1", sshd.port), public(key))
    assert whoami(sshd.host(), access) == USER


# -- the way there -----------------------------------------------------------------------------------------


def through(jump: Sshd, target: Sshd, *lines: str) -> Path:
    """A configuration with the target behind the jump host, both by aliases."""
    config = target.folder / "jump_config"
    config.write_text(
        f"Host there\n  HostName 127.0.0.1\n  Port {target.port}\n  User {USER}\n  ProxyJump between\n"
        f"Host between\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {USER}\n"
        f"  IdentityFile {jump.client_key}\n"
        + "".join(f"  {line}\n" for line in lines)
        + "Host *\n  GlobalKnownHostsFile none\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n"
    )
    return config


def test_through_a_jump_host(start: Callable[..., Sshd]) -> None:
    jump, target = start("jump"), start("target")
    access = target.access(config=str(through(jump, target)))
    there = Host("there", "there")
    with pytest.raises(
        UnknownKeyError
    ) as caught:  # also where the user's own configuration asks for no check
        SshShell.open(there, access)
    assert (caught.value.host, caught.value.key) == ("between", public(jump.host_keys[0]))
    assert "Accepted" not in jump.log
    caught.value.accept(access.known_hosts)
    assert whoami(there, access) == USER
    assert "Accepted" in jump.log and "Accepted" in target.log


def test_a_changed_key_on_a_jump_host_stops_it(start: Callable[..., Sshd], tmp_path: Path) -> None:
    jump, target = start("jump"), start("target")
    access = target.access(config=str(through(jump, target)))
    add_key(access.known_hosts, lookup_name("127.0.0.1", jump.port), public(make_key(tmp_path / "other")))
    with pytest.raises(ChangedKeyError, match="between: ITS KEY HAS CHANGED"):
        SshShell.open(Host("there", "there"), access)
    assert "Accepted" not in jump.log and "Accepted" not in target.log


def test_a_jump_host_that_does_not_lead_there(start: Callable[..., Sshd]) -> None:
    jump, target = start("jump", "AllowTcpForwarding no"), start("target")
    access = target.access(config=str(through(jump, target)))
    add_key(access.known_hosts, lookup_name("127.0.0.1", jump.port), public(jump.host_keys[0]))
    assert "the jump host" in said(Host("there", "there"), access)


def test_a_command_of_the_users_own_as_the_way(start: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = start()
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    config = tmp_path / "config"
    config.write_text(
        f"Host there\n  HostName 127.0.0.1\n  Port {sshd.port}\n  ProxyCommand python3 {relay} %h %p\n"
        "Host *\n  GlobalKnownHostsFile none\n"
    )
    assert whoami(Host("there", "there", user=USER), sshd.access(config=str(config))) == USER


# -- our own keys ------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """agent(key): an agent runs and holds the key."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))

    def add(key: Path) -> None:
        while (code := subprocess.run(["ssh-add", "-q", key], capture_output=True).returncode) == 2:
            assert process.poll() is None  # it does not listen yet
            time.sleep(0.02)
        assert code == 0

    yield add
    process.terminate()
    process.wait(60)


def test_a_key_with_a_passphrase_wants_an_agent(start: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = start()
    locked = make_key(tmp_path / "locked", passphrase="words")
    told = said(sshd.host(), sshd.access(identity=str(locked)))
    assert "has a passphrase" in told and f"ssh-add {locked}" in told


@pytest.mark.parametrize("only", ["yes", "no"])
def test_an_agent_opens_it(
    start: Callable[..., Sshd], agent: Callable[[Path], None], tmp_path: Path, only: str
) -> None:
    sshd = start()
    agent(sshd.client_key)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "words", "-f", sshd.client_key], check=True, capture_output=True
    )
    with (sshd.folder / "config").open("a") as config:
        config.write(f"  IdentitiesOnly {only}\n")
    assert whoami(sshd.host(), sshd.access()) == USER
    if only == "yes":  # it is not offered where the configuration names another
        assert "none of 1 keys" in said(sshd.host(), sshd.access(identity=str(make_key(tmp_path / "k"))))


def test_an_agent_at_a_place_of_its_own(
    start: Callable[..., Sshd], agent: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sshd = start()
    agent(sshd.client_key)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with (sshd.folder / "config").open("a") as config:
        config.write(f"  IdentityAgent {tmp_path}/agent\n")
    assert whoami(sshd.host(), sshd.access(identity=None)) == USER


def test_what_opens_nothing(start: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = start("a", opens=False)
    assert "none of 1 keys opens it" in said(sshd.host(), sshd.access())
    (tmp_path / "no").write_text("Host *\n  IdentityFile /nothing\n  GlobalKnownHostsFile none\n")
    bare = sshd.access(identity=None, config=str(tmp_path / "no"))
    assert "no key at hand" in said(sshd.host(), bare)
    with pytest.raises(SweepError, match="there is no such key file"):
        SshShell.open(sshd.host(), sshd.access(identity=str(tmp_path / "nothing")))
    other = start("b", "AuthenticationMethods publickey,password", "PasswordAuthentication yes")
    assert "wants more than a key" in said(other.host(), other.access())


# -- what is no host, and what does not answer -------------------------------------------------------------


HOSTILE = ["-oProxyCommand=touch hacked", "$(id)", "a b", "a\nb", "`id`", "a;b", "", "a'b", "../x", "%h"]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_that_could_be_more_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    access = Access(tmp_path / "known_hosts", config="/dev/null")
    for host in (Host("x", text), Host("x", "localhost", user=text)):
        with pytest.raises(SweepError) as caught:
            SshShell.open(host, access)
        assert "is no " in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SweepError, match="is not a port"):
        SshShell.open(Host("x", "localhost", port=70000), access)
    config = tmp_path / "config"
    config.write_text(
        f"Host x\n  HostName {text or '-'}\nHost y\n  ProxyJump x\n" if "\n" not in text else ""
    )
    with pytest.raises(SweepError):
        SshShell.open(Host("x", "x"), Access(tmp_path / "known_hosts", config=str(config), timeout=2))
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def access_to(tmp_path: Path, timeout: float = 60) -> Access:
    (tmp_path / "config").write_text("Host *\n  GlobalKnownHostsFile none\n")
    return Access(tmp_path / "known_hosts", config=str(tmp_path / "config"), timeout=timeout)


def test_nobody_listens(tmp_path: Path) -> None:
    told = said(Host("there", "127.0.0.1", port=free_port()), access_to(tmp_path))
    assert "refuses connections" in told and "is sshd running" in told


def test_no_such_name(tmp_path: Path) -> None:
    assert "no machine is known by the name" in said(Host("there", "nowhere.invalid"), access_to(tmp_path))


def test_no_way_there(tmp_path: Path) -> None:
    told = said(Host("there", "240.0.0.1"), access_to(tmp_path, 2))
    assert "no way to" in told or "no answer from" in told


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens(tmp_path: Path, words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(words)
            kept.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        told = said(Host("there", "127.0.0.1", port=listener.getsockname()[1]), access_to(tmp_path, 1))
        assert "no answer" in told or "no SSH connection" in told


def test_a_connection_that_breaks_is_said(
    start: Callable[..., Sshd], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    sshd = start()
    shell = SshShell.open(sshd.host(), sshd.access())

    def cut() -> None:
        wait_until((tmp_path / "begun").exists)
        sshd.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(UnreachableError, match="there: the connection is lost"):
        shell.run(cmd("sh", "-c", f"touch {tmp_path}/begun; exec sleep 250"))
    cutting.join()
    with pytest.raises(UnreachableError, match="lost"):
        shell.put(b"x", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    shell.close()
    with pytest.raises(UnreachableError):
        shell.run(cmd("true"))


def test_what_goes_wrong_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        code = (
            "from pathlib import Path; from sweepfw.core.deployment import Host; "
            "from sweepfw.shell.access import Access; from sweepfw.shell.ssh import SshShell; "
            f"SshShell.open(Host('there', '127.0.0.1', port={listener.getsockname()[1]}), "
            f"Access(Path({str(tmp_path / 'known')!r}), config='/dev/null'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1 and "UnreachableError: there:" in done.stderr.splitlines()[-1]
    assert "paramiko.transport" not in done.stderr and "Exception (client)" not in done.stderr


# -- logins as they are ------------------------------------------------------------------------------------


def test_a_login_that_talks(start: Callable[..., Sshd]) -> None:
    talking = 'ForceCommand echo Welcome; echo "bash: warning: setlocale" >&2; eval "$SSH_ORIGINAL_COMMAND"'
    sshd = start("sshd", talking)
    shell = SshShell.open(sshd.host(), sshd.access())
    result = shell.run(cmd("sh", "-c", "cat; echo err >&2"), b"in")
    assert (result.out, result.err) == (b"in", b"err\n")
    shell.close()


def test_a_login_that_runs_nothing(start: Callable[..., Sshd]) -> None:
    sshd = start("sshd", "ForceCommand echo This account is not available.")
    shell = SshShell.open(sshd.host(), sshd.access())
    with pytest.raises(SweepError, match="runs no commands, it says: This account is not available"):
        shell.run(cmd("true"))
    shell.close()


def test_more_commands_at_once_than_sshd_allows(start: Callable[..., Sshd]) -> None:
    sshd = start()
    shell = SshShell.open(sshd.host(), sshd.access())
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(shell.run(cmd("sleep", "0.3")).code)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 20
    shell.close()


def test_a_port_beyond_the_host(start: Callable[..., Sshd]) -> None:
    from sweepfw.shell.forward import listening

    sshd = start()
    shell = SshShell.open(sshd.host(), sshd.access())
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = server.getsockname()[1]
        with listening(0, lambda: shell.dial("127.0.0.1", there)) as port:
            pairs = [(socket.create_connection(("127.0.0.1", port)), server.accept()[0]) for _ in range(3)]
            ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
            for n, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                other.sendall(b"hello %d" % n)
                assert one.recv(100).startswith(b"hello")
            data = os.urandom(3_000_000)
            threading.Thread(target=lambda: (ours[0].sendall(data), ours[0].shutdown(1))).start()
            assert b"".join(iter(lambda: theirs[0].recv(1 << 16), b"")) == data
            with pytest.raises(SweepError, match="can't be used here"):
                with listening(port, lambda: None):
                    pass
            server.close()
            refused = socket.create_connection(("127.0.0.1", port))
            assert refused.recv(1) == b""
        assert all(one.recv(100) in {b"", b"x"} for one in ours[1:])
    with pytest.raises(UnreachableError, match="does not answer"):
        shell.dial("127.0.0.1", there)
    shell.close()
