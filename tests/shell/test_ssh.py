"""Getting into hosts: every key on the way is checked first, and what fails is one line with what to do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import USER, Sshd, make_key, needs_sshd, public, said, whoami

from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError
from sweepfw.shell.host_keys import ChangedKeyError, UnknownKeyError, add_key, lookup_name
from sweepfw.shell.ssh import SshShell

pytestmark = needs_sshd


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
