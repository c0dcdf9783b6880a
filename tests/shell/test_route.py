"""The way to a host, as `ssh -G` tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError
from sweepfw.shell.access import Access, parse_trust
from sweepfw.shell.local import LocalShell
from sweepfw.shell.route import Hop, resolve, split_jump


def way(tmp_path: Path, config: str, host: Host, **fields: str) -> tuple[Hop, ...]:
    (tmp_path / "config").write_text(config)
    access = Access(tmp_path / "known_hosts", config=str(tmp_path / "config"), **fields)  # type: ignore[arg-type]
    return resolve(host, access, LocalShell())


def test_aliases_users_ports_keys(tmp_path: Path) -> None:
    config = """
        Host gpu1
          HostName 10.0.0.7
          User ada
          Port 2222
          IdentityFile ~/.ssh/%h_key
          IdentitiesOnly yes
          UserKnownHostsFile ~/.ssh/a /b
          GlobalKnownHostsFile none
    """
    (hop,) = way(tmp_path, config, Host("gpu1", "gpu1"))
    home = Path.home()
    assert (hop.address, hop.user, hop.port, hop.key_name) == ("10.0.0.7", "ada", 2222, "[10.0.0.7]:2222")
    assert hop.identities == (f"{home}/.ssh/10.0.0.7_key",)
    assert hop.only_identities
    assert hop.known_files == (home / ".ssh/a", Path("/b"))
    (hop,) = way(tmp_path, config, Host("x", "gpu1", user="eve", port=22))
    assert (hop.name, hop.user, hop.port, hop.key_name) == ("x", "eve", 22, "10.0.0.7")


def test_another_name_for_its_key(tmp_path: Path) -> None:
    (hop,) = way(tmp_path, "Host *\n HostKeyAlias lab\n", Host("x", "10.0.0.7", port=2222))
    assert hop.key_name == "lab"


def test_jump_hosts_and_theirs(tmp_path: Path) -> None:
    config = """
        Host there
          ProxyJump ada@first:2200,second
        Host first
          ProxyJump zero
        Host second
          Port 2201
          ProxyJump never
    """
    hops = way(tmp_path, config, Host("x", "there"))
    assert [(hop.name, hop.port) for hop in hops] == [
        ("zero", 22),
        ("first", 2200),
        ("second", 2201),
        ("x", 22),
    ]
    assert hops[1].user == "ada"


def test_a_circle_of_jump_hosts(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="more than 8 jump hosts"):
        way(tmp_path, "Host a\n ProxyJump b\nHost b\n ProxyJump a\n", Host("a", "a"))


def test_a_key_of_the_users_choice_is_the_jump_hosts_last(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    jump, target = way(tmp_path, "Host there\n ProxyJump j\n", Host("x", "there"), identity=str(key))
    assert target.identities == (str(key),)
    assert len(jump.identities) > 1 and jump.identities[-1] == str(key)


def test_a_configuration_that_ssh_refuses(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="x: ssh does not accept its configuration: "):
        way(tmp_path, "Nonsense yes\n", Host("x", "x"))


def test_jumps() -> None:
    assert split_jump("ssh://ada@gpu1:22/") == ("gpu1", ("-l", "ada", "-p", "22"))
    assert split_jump("[::1]:2222") == ("::1", ("-p", "2222"))
    assert split_jump("::1") == ("::1", ())
    for bad in ("-oProxyCommand=x", "a b", "a:b", "$(id)@x", "x:99999", "a@x:1:2"):
        with pytest.raises(SweepError):
            split_jump(bad)


def test_trust() -> None:
    one, two = "SHA256:" + "A" * 43, "SHA256:" + "b" * 43
    assert parse_trust([f"a={one}", f"b={one}", f"a={two}="]) == {"a": {one, two}, "b": {one}}
    for bad in ("a", "a=", "a=MD5:aa", f"={one}", f"-o={one}", f"a={one}x"):
        with pytest.raises(SweepError):
            parse_trust([bad])
