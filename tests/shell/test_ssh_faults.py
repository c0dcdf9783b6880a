"""Hosts that are none or do not answer, connections that break, and logins as they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ports import free_port
from sshd import Sshd, needs_sshd, said

from sweepfw.core.command import cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.shell.access import Access
from sweepfw.shell.ssh import SshShell

pytestmark = needs_sshd


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
