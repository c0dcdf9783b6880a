"""Secrets are nowhere but where they should be: on one machine, at its most talkative."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from canary import Cage, hard, word
from canary_project import Canaries
from packages import private_index, wheel

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


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    """Their package index answers on this machine, to who has the password; `asked`: what it was asked."""
    (tmp_path / "index/simple/tiny").mkdir(parents=True)
    (tmp_path / "index/simple/tiny/tiny-1.0-py3-none-any.whl").write_bytes(wheel())
    password = word()
    with private_index(tmp_path / "index", f"u:{password}") as (address, asked):
        yield Canaries(lambda password: f"http://u:{password}@{address}/simple/", password)
        assert any("tiny" in path for path in asked)  # it let us in


class Teller:
    """Types commands, and looks at all that they print."""

    def __init__(self, sweepfw: Sweepfw, cage: Cage) -> None:
        self._sweepfw, self._cage = sweepfw, cage

    def __call__(self, *words: str, code: int = 0, **given: Any) -> str:
        done = self._sweepfw(*words, **given)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        self._cage.look("command line", " ".join(words), done.stdout + done.stderr)
        return done.stdout


def store_and_run(told: Teller, stored: Mapping[str, str]) -> None:
    for name, value in stored.items():
        told("secret", "set", name, "--from-env", "GIVEN", env={**os.environ, "GIVEN": value})
    for line in ("secret ls", "secret ls --json", "plan p", "plan p --json", "run p --dry-run"):
        told(*line.split())
    shown = told("run", "p", "--logs", "all", code=1)
    assert "2 succeeded, 1 failed" in shown, shown
    told("retry", "p-1", "--json", code=1)
    told("extend", "p-1", "--set", "do=use", "--logs", "all")


def ask_everything(told: Teller) -> None:
    for line in (
        *("show p-1", "show p-1 --json", "show p-1/3", "show p-1/2 --json", "ls --json", "debug p-1/1"),
        *("logs p-1/1", "logs p-1/2", "logs p-1/3", "best p-1 --json", "export p-1", "gc --dry-run"),
        *("export p-1 --history --format jsonl", "export p-1 --format json"),
    ):
        told(*line.split())
    printed = told("logs", "p-1/2")
    assert printed.count("***") > 4 * 15, printed  # so many times each was printed
    assert "used /" in told("logs", "p-1/1")


def look_at_what_lies(cage: Cage, workspace: Path, state: Path, stored: Mapping[str, str]) -> None:
    """In files, but for the place where they are stored; and in the memory that a trial had for them."""
    kept = state / "sweepfw" / "secrets"
    assert {path.name for path in kept.iterdir()} == set(stored)
    cage.look_at_files("workspace", workspace)
    cage.look_at_files("state folder", state, but=[kept])
    for left in Path("/dev/shm").glob("sweepfw-*"):
        cage.look_at_files("memory", left)
    for kind in ("ledger.db", "sweep.yml", "params.json", "output.log", "outcome.json", "provenance.json"):
        found = [path for path in workspace.rglob(kind) if path.is_file()]
        assert found, kind


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
    told = Teller(sweepfw, cage)

    def may(environment: Mapping[bytes, bytes]) -> bool:
        """Trials, builders, and who is told one by us."""
        return b"SWEEPFW_SECRETS" in environment or b"GIVEN" in environment

    with cage.watching_processes(may):
        store_and_run(told, canaries.stored)
    ask_everything(told)
    look_at_what_lies(cage, workspace_folder, tmp_path / "state-home", canaries.stored)
    cage.empty()
    assert cage.seen >= {"ps", "environments", "command line", "workspace"}, cage.seen
