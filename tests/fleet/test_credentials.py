"""A deployment's secrets: made once, only added to, fit for what they are for, never shown."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from sweepfw.errors import SweepError
from sweepfw.fleet.credentials import KeyPair, ensure_credentials, head_reader, load_credentials


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "credentials.json"


def secrets(value: object) -> list[str]:
    """Every text in the file that is no public one."""
    if isinstance(value, dict):
        public = {"public", "certificate", "broker_salt"}
        return [text for key, each in value.items() if key not in public for text in secrets(each)]
    return [str(value)]


def test_made_once_and_only_added_to(path: Path) -> None:
    first = ensure_credentials(path, ["a"])
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    written = path.read_bytes()
    assert ensure_credentials(path, ["a"]) == first == load_credentials(path)
    assert path.read_bytes() == written
    more = ensure_credentials(path, ["a", "b"])
    assert more.workers["a"] == first.workers["a"] and set(more.workers) == {"a", "b"}
    assert (more.people, more.certificate, more.outer) == (first.people, first.certificate, first.outer)
    assert set(ensure_credentials(path, ["b"]).workers) == {"b"}
    assert ensure_credentials(path, ["a"]).workers == first.workers  # a host that comes back


def test_each_is_another(path: Path, tmp_path: Path) -> None:
    ensure_credentials(path, ["a", "b"])
    ensure_credentials(tmp_path / "other" / "c.json", ["a", "b"])
    every = [
        text
        for file in (path, tmp_path / "other" / "c.json")
        for text in secrets(json.loads(file.read_text()))
    ]
    assert len(set(every)) == len(every) == 2 * (5 + 3 + 4)
    assert all(len(text) >= 24 for text in every)


def test_nothing_shows_itself(path: Path) -> None:
    shown = repr(ensure_credentials(path, ["a"]))
    assert not [text for text in secrets(json.loads(path.read_text())) if text in shown]


def test_what_reach_needs_is_read_alone(path: Path) -> None:
    made = ensure_credentials(path, ["a"])
    assert head_reader(path) == (made.certificate, made.people)


def test_torn_or_open_files_are_a_line_without_secrets(path: Path) -> None:
    with pytest.raises(SweepError, match="can't be read"):
        load_credentials(path)
    made = ensure_credentials(path, ["a"])
    path.chmod(0o644)
    for read in (load_credentials, head_reader, lambda file: ensure_credentials(file, ["a"])):
        with pytest.raises(SweepError, match="chmod 600"):
            read(path)
    path.chmod(0o600)
    for text in (path.read_text()[:-50], json.dumps({"people": made.people.reveal()}), "[]"):
        path.write_text(text)
        with pytest.raises(SweepError, match="is not as sweepfw wrote it") as caught:
            load_credentials(path)
        assert made.people.reveal() not in str(caught.value)


def test_the_keys_are_openssh_keys(path: Path, tmp_path: Path) -> None:
    made = ensure_credentials(path, ["a"])
    for pair in (made.outer, made.inner, made.workers["a"].host_key):
        assert isinstance(pair, KeyPair)
        file = tmp_path / "key"
        file.write_text(pair.private.reveal())
        file.chmod(0o600)
        said = subprocess.run(
            ["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True
        ).stdout
        assert said.split()[:2] == pair.public.split() and pair.public.startswith("ssh-ed25519 ")


def test_the_certificate_serves_and_can_be_pinned(path: Path, tmp_path: Path) -> None:
    """By its bytes, and as an authority of its own for clients that are strict."""
    made = ensure_credentials(path, [])
    (tmp_path / "cert").write_text(made.certificate)
    (tmp_path / "key").write_text(made.certificate_key.reveal())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    client = ssl.create_default_context(cadata=made.certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall(connection.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours, server_hostname="head") as connection:
        connection.sendall(b"x")
        assert connection.recv(10) == b"x"
        assert connection.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(made.certificate)
    thread.join()
