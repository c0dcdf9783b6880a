"""A working copy that trials used and that was put right is exactly what a new one would be."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pytest
from guard_lab import freeze
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.trial.guard.outputs import matcher
from sweepfw.trial.guard.workcopy import WorkCopy, read_manifest

FILES = {
    "a.py": "print(1)",
    "run.sh": "#!/bin/sh",
    "data/x.csv": "1,2",
    "data/deep/y.csv": "3,4",
    "data/deep/empty": b"",
    "void": None,
    "link": "-> a.py",
    "data/loop": "-> ..",
}
NAMES = [*FILES, "data", "data/deep", "new", "new/b", "data/new.csv", "void/c", "."]


def look(root: Path) -> dict[str, object]:
    """All that a trial can see of a folder's content."""
    seen: dict[str, object] = {".": stat.S_IMODE(root.stat().st_mode)}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = (path.read_bytes(), info.st_nlink)
        seen[str(path.relative_to(root))] = (stat.filemode(info.st_mode), info.st_uid, content)
    return seen


def mutate(root: Path, action: str, name: str, other: str) -> None:
    """One thing that a trial may do; what is not possible is not done."""
    path, target = root / name, root / other
    try:
        if action == "write":
            path.write_text("other content")
        elif action == "same length":
            path.write_bytes(path.read_bytes()[::-1])
        elif action == "hide times":
            info = path.stat()
            path.write_bytes(path.read_bytes()[::-1])
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        elif action == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif action == "mode":
            path.chmod(0o500, follow_symlinks=not path.is_symlink())
        elif action == "none":
            path.chmod(0)
        elif action == "rename":
            path.rename(target)
        elif action == "folder":
            path.mkdir(parents=True)
        elif action == "hard link":
            os.link(path, target)
        elif action == "symlink":
            path.unlink()
            path.symlink_to(other)
        elif action == "fifo":
            os.mkfifo(path)
        elif action == "elsewhere":
            path.rename(root.parent / f"moved-{time.time_ns()}")
            path.symlink_to(root.parent)
        elif action == "owner":
            os.chown(path, 1234, 1234, follow_symlinks=False)
    except (OSError, NotImplementedError, shutil.Error):
        pass


ACTIONS = [
    "write", "same length", "hide times", "remove", "mode", "none", "rename", "folder", "hard link",
    "symlink", "fifo", "owner", "elsewhere",
]  # fmt: skip


@given(
    trials=st.lists(
        st.lists(
            st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=5
        ),
        min_size=1,
        max_size=3,
    )
)
def test_put_right_is_as_new(trials: list[list[tuple[str, str, str]]]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        snapshot = freeze(root / "snapshot", FILES, {"run.sh": 0o755})
        copy = WorkCopy(read_manifest(snapshot.manifest), snapshot.objects)
        work = root / "work"
        copy.make(str(work))
        new, stored = look(work), look(root / "snapshot")
        for number, mutations in enumerate(trials):
            begun = time.time_ns()
            for mutation in mutations:
                mutate(work, *mutation)
            copy.restore(str(work), copy.compare(str(work), begun))
            assert look(work) == new
            work = work.rename(root / f"work{number}")
        assert look(root / "snapshot") == stored
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_untouched_copies_are_not_written(tmp_path: Path) -> None:
    snapshot = freeze(tmp_path / "snapshot", FILES)
    copy = WorkCopy(read_manifest(snapshot.manifest), snapshot.objects)
    copy.make(str(tmp_path / "work"))
    before = {path: path.lstat() for path in (tmp_path / "work").rglob("*")}
    changes = copy.compare(str(tmp_path / "work"), time.time_ns())
    copy.restore(str(tmp_path / "work"), changes)
    assert not (changes.new or changes.changed or changes.missing)
    after = {path: path.lstat() for path in (tmp_path / "work").rglob("*")}
    assert {p: (s.st_ino, s.st_ctime_ns) for p, s in before.items()} == {
        p: (s.st_ino, s.st_ctime_ns) for p, s in after.items()
    }


def test_copies_are_never_hard_links(tmp_path: Path) -> None:
    snapshot = freeze(tmp_path / "snapshot", FILES)
    WorkCopy(read_manifest(snapshot.manifest), snapshot.objects).make(str(tmp_path / "work"))
    assert {p.lstat().st_nlink for p in (tmp_path / "work").rglob("*") if p.is_file()} == {1}


def test_folders_may_be_left_out_of_a_manifest(tmp_path: Path) -> None:
    snapshot = freeze(tmp_path / "snapshot", {"a/b/c": "content"})
    WorkCopy(read_manifest(snapshot.manifest), snapshot.objects).make(str(tmp_path / "work"))
    assert (tmp_path / "work/a/b/c").read_text() == "content"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("ckpt/**", ["ckpt/a", "ckpt/a/b"], ["ckpt", "x/ckpt/a", "ckptx/a"]),
        ("*.pt", ["a.pt", "deep/a.pt"], ["a.pth", "a.pt.bak"]),
        ("out", ["out", "out/a", "x/out/b"], ["outer/a"]),
        ("logs/", ["logs/a"], ["logsa"]),
        ("a/*/c", ["a/b/c", "a/b/c/d"], ["a/b/x/c", "a/c"]),
        ("a/**/c", ["a/c", "a/b/x/c"], ["b/a/c"]),
        ("run-[0-9]?.txt", ["run-1x.txt"], ["run-a1.txt", "run-1.txt"]),
        ("[!a].txt", ["b.txt"], ["a.txt"]),
        ("a+(b).txt", ["a+(b).txt"], ["aab.txt"]),
        ("./top.txt", ["top.txt"], ["top_txt"]),
    ],
)
def test_output_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    matches = matcher([pattern])
    assert [path for path in yes if not matches(path)] == []
    assert [path for path in no if matches(path)] == []
    assert not matcher([])("a")


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    """Then the times are the same, and only the content tells."""
    snapshot = freeze(tmp_path / "snapshot", FILES)
    copy = WorkCopy(read_manifest(snapshot.manifest), snapshot.objects)
    work = tmp_path / "work"
    copy.make(str(work))
    (work / "a.py").write_text("print(2)")
    info = (work / "a.py").lstat()
    copy._stamps["a.py"] = (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    changes = copy.compare(str(work), info.st_ctime_ns + 4_000_000)
    assert list(changes.changed) == ["a.py"]
    copy.restore(str(work), changes)
    assert (work / "a.py").read_text() == "print(1)"
