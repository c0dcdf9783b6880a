"""A real sshd on a free port of loopback, as this user, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ports import free_port

from sweepfw.core.command import cmd
from sweepfw.core.deployment import Host
from sweepfw.errors import SweepError
from sweepfw.shell.access import Access
from sweepfw.shell.host_keys import HostKey, _key, add_key, lookup_name

PROGRAM = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
needs_sshd = pytest.mark.skipif(PROGRAM is None, reason="no sshd here: Debian's package is openssh-server")
USER = getpass.getuser()


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "", "-f", path], check=True
    )
    return path


def public(path: Path) -> HostKey:
    type, encoded = path.with_suffix(".pub").read_text().split()[:2]
    key = _key(type, encoded)
    assert key is not None
    return key


class Sshd:
    """A machine, as far as SSH can tell. `folder` holds its keys and what it knows."""

    def __init__(
        self, folder: Path, *lines: str, keys: tuple[str, ...] = ("ed25519",), opens: bool = True
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port, self._lines = folder, free_port(), lines
        self.host_keys = [make_key(folder / f"host_{kind}", kind) for kind in keys]
        self.client_key = make_key(folder / "client")
        (folder / "authorized").write_text((folder / "client.pub").read_text() if opens else "")
        (folder / "config").write_text(
            f"Host *\n  UserKnownHostsFile {folder}/user_known_hosts\n  GlobalKnownHostsFile none\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> Sshd:
        Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
        config = self.folder / "sshd_config"
        settings = [
            *lines,  # of two the first counts
            *self._lines,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {key}" for key in self.host_keys),
            f"AuthorizedKeysFile {self.folder}/authorized",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
        ]
        config.write_text("\n".join(settings) + "\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([str(PROGRAM), "-D", "-e", "-f", config], stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def cut(self) -> None:
        """End every connection, as if the machine were gone; nobody can log in until `start`."""
        sessions = _children(self.process.pid) if self.process else []
        self.stop()
        for pid in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)

    def host(self, name: str = "there", **fields: object) -> Host:
        return Host(**{"name": name, "target": "127.0.0.1", "user": USER, "port": self.port, **fields})  # type: ignore[arg-type]  # a test's own fields

    def access(self, *, known: bool = True, **fields: object) -> Access:
        known_hosts = self.folder / "known_hosts"
        if known:
            for key in self.host_keys:
                add_key(known_hosts, lookup_name("127.0.0.1", self.port), public(key))
        given = {
            "identity": str(self.client_key),
            "config": str(self.folder / "config"),
            "timeout": 60,
            **fields,
        }
        return Access(known_hosts, **given)  # type: ignore[arg-type]  # a test's own fields


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
    return found


def whoami(host: Host, access: Access) -> str:
    from sweepfw.shell.ssh import SshShell

    shell = SshShell.open(host, access)
    try:
        return shell.run(cmd("id", "-un")).text.strip()
    finally:
        shell.close()


def said(host: Host, access: Access) -> str:
    """The one line of what stands in the way."""
    from sweepfw.shell.ssh import SshShell

    with pytest.raises(SweepError) as caught:
        SshShell.open(host, access)
    assert "\n" not in str(caught.value) and host.name in str(caught.value)
    assert caught.value.exit_code == 4
    return str(caught.value)
