"""Where results come from: git's state, the machine, the versions; and no secrets."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import sweepfw
from sweepfw.shell.fake import FakeShell
from sweepfw.shell.local import LocalShell
from sweepfw.shell.shell import Result
from sweepfw.trial.provenance import DIFF_LIMIT, describe, read_status, without_credentials


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a repository, both with changes."""
    folder = tmp_path / "repository" / "mine"
    folder.mkdir(parents=True)
    git(tmp_path / "repository", "init", "-q", "-b", "trunk")
    for name, text in {"train.py": "a = 1\n", ".env": "TOKEN=old\n", "../other.py": "x\n"}.items():
        (folder / name).write_text(text)
    git(tmp_path / "repository", "add", "-A")
    git(tmp_path / "repository", "commit", "-q", "-m", "first")
    return folder


def test_a_clean_repository(project: Path) -> None:
    git(project, "remote", "add", "origin", "https://me:hunter2@example.com/lab/mine.git")
    told = describe(project, LocalShell(), clock=lambda: 1e9)
    assert told["git"] == {
        "commit": git(project, "rev-parse", "HEAD"),
        "branch": "trunk",
        "dirty": False,
        "untracked": [],
        "remote": "https://example.com/lab/mine.git",
        "diff": "",
        "diff_left_out": 0,
    }
    assert told["time"] == "2001-09-09T01:46:40Z"
    assert told["sweepfw"] == sweepfw.__version__
    assert told["machine"]["host"] == os.uname().nodename
    assert told["machine"]["memory"] > 10**8
    assert "hunter2" not in json.dumps(told)


def test_changes_are_told_without_secrets(project: Path) -> None:
    (project / "train.py").write_text("a = 2\n")
    (project / "new.py").write_text("")
    (project / ".env").write_text("TOKEN=hunter2\n")
    (project / "../other.py").write_text("not of this project\n")
    told = describe(project, LocalShell())["git"]
    assert told["dirty"] and told["untracked"] == ["mine/new.py"]
    assert "-a = 1\n+a = 2\n" in told["diff"]
    assert "hunter2" not in told["diff"] and "not of this project" not in told["diff"]


def test_a_large_diff_is_cut_and_says_so(project: Path) -> None:
    (project / "train.py").write_text("x" * 2 * DIFF_LIMIT)
    told = describe(project, LocalShell())["git"]
    assert len(told["diff"]) == DIFF_LIMIT
    assert told["diff_left_out"] > DIFF_LIMIT / 2


def test_a_repository_without_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    told = describe(tmp_path, LocalShell())["git"]
    assert (told["commit"], told["branch"], told["diff"], told["remote"]) == (None, "trunk", None, None)


def test_no_repository_and_no_git(tmp_path: Path, project: Path) -> None:
    assert describe(tmp_path, LocalShell())["git"] is None
    assert describe(project, LocalShell({"PATH": str(tmp_path)}))["git"] is None
    assert (
        describe(project, FakeShell({"git *": Result(128, b"", b"fatal: dubious ownership")}))["git"] is None
    )


def test_gpus_with_their_driver(tmp_path: Path) -> None:
    rows = "0, GPU-1, NVIDIA H200, 143771, 570.86.15\n1, GPU-2, NVIDIA GB10, [N/A], 570.86.15\n"
    told = describe(tmp_path, FakeShell({"nvidia-smi *": rows}))["machine"]["gpus"]
    assert told == [
        {"index": 0, "uuid": "GPU-1", "name": "NVIDIA H200", "memory": 143771 << 20, "driver": "570.86.15"},
        {"index": 1, "uuid": "GPU-2", "name": "NVIDIA GB10", "memory": None, "driver": "570.86.15"},
    ]


def test_a_detached_head_has_no_branch() -> None:
    told = read_status(
        b"# branch.oid abc\0# branch.head (detached)\0" + b"2 R. N... 1 1 1 a b R100 new\0old\0"
    )
    assert told == {"commit": "abc", "branch": None, "dirty": True, "untracked": []}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("https://token@github.com/a/b", "https://github.com/a/b"),
        ("https://me:token@github.com/a/b", "https://github.com/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("ssh://git@host:22/a", "ssh://git@host:22/a"),
        ("ssh://git:pw@host/a", "ssh://git@host/a"),
        ("/srv/a@b.git", "/srv/a@b.git"),
    ],
)
def test_credentials_in_addresses_are_dropped(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
