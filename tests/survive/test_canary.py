"""Secrets are nowhere but where they should be: on one machine, at its most talkative."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from canary import Cage, hard, word
from canary_project import Canaries, wheel

Sweepfw = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "value",
    ["abcdefgh12345678", hard(), f"-----BEGIN\n{hard()}\n{word()}\n-----END\n"],
    ids=["letters", "hard", "lines"],  # the values are other ones in each process
)
def test_what_is_looked_for_is_found_however_it_is_written(value: str) -> None:
    data = value.encode()
    texts = {"raw": value, "URL": quote(value), "all": quote(value, safe=""), "form": quote_plus(value)}
    texts |= {"JSON": json.dumps({"a": value}), "Python": repr(["x", value]), "hex": data.hex()}
    for shift in range(7):
        for name, encode in (("64", b64encode), ("64u", urlsafe_b64encode)):
            texts[f"{name} {shift}"] = encode(b"x" * shift + data + b"yz").decode()
    for way, text in texts.items():
        cage = Cage({"it": value})
        cage.look("here", way, f"before {text} behind")
        assert cage.found, way
        with pytest.raises(AssertionError, match="here: "):
            cage.empty()
    cage = Cage({"it": value})
    cage.look("here", "other", f"before {word()} {hard()} behind")
    cage.empty()


class Index(BaseHTTPRequestHandler):
    """A private package index of one package, for who knows the password."""

    password = ""
    asked: list[str]

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization", "")
        if shown != "Basic " + b64encode(f"u:{self.password}".encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        type(self).asked.append(self.path)
        name = "tiny-1.0-py3-none-any.whl"
        self.send_response(200 if "tiny" in self.path else 404)
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/zip")
        self.end_headers()
        self.wfile.write(wheel() if self.path.endswith(".whl") else f'<a href="/{name}">{name}</a>'.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    """Their package index answers on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    canaries = Canaries(lambda password: f"http://u:{password}@127.0.0.1:{server.server_port}/simple/")
    Index.password, Index.asked = canaries.password, []
    Thread(target=server.serve_forever, daemon=True).start()
    yield canaries
    server.shutdown()
    server.server_close()


def test_none_gets_out_on_one_machine(
    sweepfw: Sweepfw,
    canaries: Canaries,
    workspace_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cage = Cage(canaries.secrets)
    monkeypatch.setenv("SWEEPFW_DEBUG", "1")
    monkeypatch.setenv("LET_OUT", cage.control)  # seen in the environment of what we start
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    canaries.write(workspace_folder / "projects" / "p", cage.control, "tiny\n")

    def told(*words: str, code: int = 0) -> str:
        done = sweepfw(*words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        cage.look("command line", " ".join(words), done.stdout + done.stderr)
        return done.stdout

    def may(environment: Mapping[bytes, bytes]) -> bool:
        """Trials, builders, and who is told one by us."""
        return b"SWEEPFW_SECRETS" in environment or b"GIVEN" in environment

    with cage.watching_processes(may):
        for name, value in canaries.stored.items():
            stored = sweepfw("secret", "set", name, "--from-env", "GIVEN", env={**os.environ, "GIVEN": value})
            cage.look("command line", f"secret set {name}", stored.stdout + stored.stderr)
            assert stored.returncode == 0, stored.stderr
        for line in ("secret ls", "secret ls --json", "plan p", "plan p --json", "run p --dry-run"):
            told(*line.split())
        shown = told("run", "p", "--logs", "all", code=1)
        assert "2 succeeded, 1 failed" in shown, shown
        told("retry", "p-1", "--json", code=1)
        told("extend", "p-1", "--set", "do=use", "--logs", "all")
    assert any("tiny" in path for path in Index.asked)  # the index let us in
    for line in (
        *("show p-1", "show p-1 --json", "show p-1/3", "show p-1/2 --json", "ls --json", "debug p-1/1"),
        *("logs p-1/1", "logs p-1/2", "logs p-1/3", "best p-1 --json", "export p-1", "gc --dry-run"),
        *("export p-1 --history --format jsonl", "export p-1 --format json"),
    ):
        told(*line.split())
    printed = told("logs", "p-1/2")
    assert printed.count("***") > 4 * 15, printed  # so many times each was printed
    assert "used /" in told("logs", "p-1/1")

    state = tmp_path / "state-home"
    kept = state / "sweepfw" / "secrets"
    assert {path.name for path in kept.iterdir()} == set(canaries.stored)
    cage.look_at_files("workspace", workspace_folder)
    cage.look_at_files("state folder", state, but=[kept])
    cage.look_at_files("memory", Path("/dev/shm"))  # what a trial left there
    cage.empty()
    assert cage.seen >= {"ps", "environments", "command line", "workspace"}, cage.seen
    for kind in ("ledger.db", "sweep.yml", "params.json", "output.log", "outcome.json", "provenance.json"):
        found = [path for path in workspace_folder.rglob(kind) if path.is_file()]
        assert found, kind
