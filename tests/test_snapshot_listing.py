"""Snapshots: which files are taken, and which are left out; links, and what is no file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepfw.errors import SweepError
from sweepfw.snapshot import checkout, freeze, scan

GIGABYTE = 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def taken(root: Path) -> set[str]:
    return {entry.path for entry in scan(root).taken if entry.kind != "dir"}


# -- what is taken -------------------------------------------------------------------------------------


def test_untracked_files_and_empty_folders_are_taken(root: Path, store: Path) -> None:
    write(root, {"train.py": "a", "lib/deep/x.py": "b"})
    (root / "empty").mkdir()
    assert [entry.path for entry in scan(root).taken] == [
        "empty",
        "lib",
        "lib/deep",
        "lib/deep/x.py",
        "train.py",
    ]


def test_what_is_never_taken(root: Path) -> None:
    write(
        root,
        {
            "train.py": "",
            ".git/config": "",
            ".sweepfw/ledger.db": "",
            "runs/a-1/sweep.yml": "",
            "lib/runs/kept.py": "",
            "lib/__pycache__/x.pyc": "",
            ".env": "TOKEN=1",
            "conf/.env.local": "TOKEN=1",
            "venv/pyvenv.cfg": "",
            "venv/lib/python3.11/site.py": "",
            "conda/conda-meta/history": "",
            "id_ed25519": "",
            "server.pem": "",
            "notes/deploy": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n",
            "about_keys.py": 'HEADER = "-----BEGIN RSA PRIVATE KEY-----"\n',
        },
    )
    assert taken(root) == {"train.py", "lib/runs/kept.py", "about_keys.py"}
    why = dict(scan(root).left_out)
    assert why["notes/deploy"] == "holds a private key"
    assert why["venv"] == "a virtual environment"
    assert set(why) >= {".git", "runs", ".env", "conf/.env.local", "conda", "id_ed25519", "server.pem"}


def test_freeze_leaves_out_the_same_as_scan(root: Path, store: Path) -> None:
    write(
        root,
        {
            "a": "1",
            "key": "-----BEGIN PRIVATE KEY-----\nx\n",
            ".env": "S=1",
            "x.log": "",
            ".gitignore": "*.log",
        },
    )
    snapshot = freeze(root, store, GIGABYTE)
    assert snapshot.listing == scan(root)
    stored = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in stored and b"S=1" not in stored


def test_our_own_ignore_file_excludes_and_brings_back(root: Path) -> None:
    write(
        root,
        {
            ".gitignore": "data/\n*.log\ndeep/*\n",
            ".sweepfwignore": "!data/\nbig.bin\n!.env.example\n!keep.log\n"
            "!runs/pretrained/*.pt\n!server.pem\n",
            "data/train.csv": "",
            "data/a.log": "",
            "data/.env": "",
            "data/__pycache__/x.pyc": "",
            "deep/x": "",
            "big.bin": "",
            ".env.example": "",
            ".env": "",
            "keep.log": "",
            "lose.log": "",
            "runs/pretrained/model.pt": "",
            "runs/pretrained/other.txt": "",
            "runs/a-1/sweep.yml": "",
            "server.pem": "-----BEGIN PRIVATE KEY-----\n",
        },
    )
    # A folder that is brought back comes with what .gitignore named in it, but with no secrets.
    assert taken(root) == {
        ".gitignore",
        ".sweepfwignore",
        "data/train.csv",
        "data/a.log",
        ".env.example",
        "keep.log",
        "runs/pretrained/model.pt",
        "server.pem",
    }
    assert {e.path for e in scan(root).taken if e.kind == "dir"} == {
        "data",
        "deep",
        "runs",
        "runs/pretrained",
    }


def test_ignore_files_of_the_repository_above_apply(tmp_path: Path) -> None:
    root = tmp_path / "repository" / "projects" / "mine"
    write(root, {"train.py": "", "a.log": "", "out/x": "", "mine/y": "", "z.tmp": "", "kept.tmp": ""})
    write(
        tmp_path / "repository",
        {
            ".git/info/exclude": "*.tmp\n!kept.tmp\n",
            ".gitignore": "*.log\n/projects/mine/out\nprojects/\nmine\n",
            "projects/.gitignore": "/mine/mine\n",
        },
    )
    # That git ignores the project itself does not empty it.
    assert taken(root) == {"train.py", "kept.tmp"}


def test_worktrees_name_their_repository(tmp_path: Path) -> None:
    repository, tree_folder = tmp_path / "main", tmp_path / "tree"
    repository.mkdir()
    git(repository, "init", "-q")
    write(repository, {"a": ""})
    git(repository, "add", "a")
    git(repository, "commit", "-q", "-m", "a")
    git(repository, "worktree", "add", "-q", str(tree_folder))
    (repository / ".git/info/exclude").write_text("*.tmp\n")
    write(tree_folder, {"b.tmp": ""})
    assert taken(tree_folder) == {"a"}


def git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True).stdout


NAMES = ["a", "b", "ab", "a.x", "b.x", "cc", "[d]", "e f", "#g", "!h"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
PIECES = [
    "a",
    "b",
    "*",
    "**",
    "?",
    "/",
    "/**/",
    "**/",
    "/**",
    "[ab]",
    "[!a]",
    "[^b]",
    "[a-c]",
    "[z-a]",
    "[]d]",
    ".x",
]
PIECES += ["\\", " ", "\\ ", "#", "!", "[[:alpha:]]", "[", "]", "***"]
LINES = st.lists(st.sampled_from(PIECES + NAMES), min_size=1, max_size=5).map("".join)
RULES = st.lists(st.one_of(LINES, LINES.map(lambda line: "!" + line)), max_size=6).map("\n".join)


@settings(max_examples=80)
@given(paths=st.lists(PATHS, min_size=1, max_size=12), top=RULES, nested=RULES)
def test_gitignore_is_read_as_git_reads_it(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], top: str, nested: str
) -> None:
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q")
    for path in paths:
        try:
            write(root, {path: "x"})
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # one path is a folder of another
    write(root, {".gitignore": top})
    if (root / "a").is_dir():
        write(root, {"a/.gitignore": nested})
    told = git(root, "ls-files", "-z", "--others", "--exclude-standard").decode().split("\0")
    assert taken(root) == set(told) - {""}


# -- links and special files ---------------------------------------------------------------------------


def test_links_stay_links_and_stay_inside(root: Path, store: Path, tmp_path: Path) -> None:
    write(root, {"data/x": "1"})
    (root / "near").symlink_to("data/x")
    (root / "dangling").symlink_to("nowhere")
    (root / "data" / "absolute").symlink_to(root / "data" / "x")
    checkout(store, freeze(root, store, GIGABYTE).id, tmp_path / "copy")
    assert os.readlink(tmp_path / "copy/near") == "data/x"
    assert os.readlink(tmp_path / "copy/dangling") == "nowhere"
    assert os.readlink(tmp_path / "copy/data/absolute") == "x"  # else the copy would write into the project


def test_links_that_lead_out_are_refused_until_a_rule_names_them(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    write(root, {"a": ""})
    (root / "data").symlink_to("../outside")
    with pytest.raises(SweepError, match=r"data: this link leads out .*outside.*\.sweepfwignore"):
        scan(root)
    write(root, {".sweepfwignore": "data\n"})
    assert "data" not in taken(root)
    write(root, {".sweepfwignore": "!data\n"})
    link = next(entry for entry in scan(root).taken if entry.path == "data")
    assert (link.kind, link.target) == ("link", str(tmp_path / "outside"))  # it holds from any copy


def test_special_files_are_named_and_left(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert scan(root).left_out == (("pipe", "neither file, folder nor link"),)


# Without its capabilities, root reads no more than another owner of a file.
FREEZE = """
import ctypes, sys
from pathlib import Path
from sweepfw.snapshot import freeze
if sys.platform == "linux":
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
freeze(Path(sys.argv[1]), Path(sys.argv[2]), 10**9)
"""


def test_what_can_not_be_read_is_named(root: Path, store: Path) -> None:
    write(root, {"secret": "x"})
    (root / "secret").chmod(0)
    told = subprocess.run([sys.executable, "-c", FREEZE, root, store], capture_output=True, text=True)
    said = told.stderr.splitlines()[-1]
    assert re.search(r"SweepError: .*secret: can't be read .*sweepfwignore", said), told


def test_names_that_are_no_text_come_back_byte_for_byte(root: Path, store: Path, tmp_path: Path) -> None:
    names = [b"caf\xe9", "日本".encode(), b"new\nline", b"-rf"]
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x")
    checkout(store, freeze(root, store, GIGABYTE).id, tmp_path / "copy")
    assert sorted(os.listdir(os.fsencode(tmp_path / "copy"))) == sorted(names)
