"""Snapshots: what is stored, once; what changes meanwhile; and what is collected."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweepfw.cli.run import _settle
from sweepfw.errors import SweepError
from sweepfw.snapshot import (
    Entry,
    checkout,
    collect,
    differences,
    freeze,
    manifest,
    objects,
    read,
    settle,
)
from sweepfw.snapshot.objects import Cache

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


def tree(folder: Path) -> dict[str, tuple[str, object]]:
    """All of a folder: kind, and content or target, and the x bit."""
    found: dict[str, tuple[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("dir", None)
        else:
            found[name] = ("file", (path.read_bytes(), bool(path.stat().st_mode & 0o100)))
    return found


# -- storing -------------------------------------------------------------------------------------------


def test_a_checkout_is_the_project(root: Path, store: Path, tmp_path: Path) -> None:
    write(root, {"train.py": "a", "lib/same.py": "a", "run.sh": "#!/bin/sh\n", "none": ""})
    (root / "run.sh").chmod(0o700)
    (root / "lib/empty").mkdir()
    (root / "big").write_bytes(os.urandom(3_000_000))
    snapshot = freeze(root, store, GIGABYTE)
    checkout(store, snapshot.id, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(root)
    assert read(store, snapshot.id, "lib/same.py") == b"a"
    assert read(store, snapshot.id, "lib/nothing.py") is None


def test_equal_projects_are_one_snapshot_and_equal_files_one_object(
    root: Path, store: Path, tmp_path: Path
) -> None:
    write(root, {"a": "same", "b": "same", "c": "other"})
    first = freeze(root, store, GIGABYTE)
    settle(store, first)
    other = tmp_path / "elsewhere"
    write(other, {"c": "other", "b": "same", "a": "same"})
    second = freeze(other, store, GIGABYTE)
    assert (first.id, second.fresh) == (second.id, ())
    assert len([path for path in objects(store).rglob("*") if path.is_file()]) == 2


def test_a_disk_that_fails_beside_the_trials_is_one_line(
    root: Path, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(root, {"a": "x"})
    snapshot = freeze(root, store, GIGABYTE)
    snapshot.fresh[0].unlink()
    thread = threading.Thread(target=_settle, args=(store, snapshot))
    thread.start()
    thread.join()
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"sweepfw: warning: {snapshot.fresh[0]} can't be"), said


@pytest.mark.parametrize("change", ["content", "mode", "name", "link", "empty folder"])
def test_every_change_makes_another_snapshot(root: Path, store: Path, change: str) -> None:
    write(root, {"a": "1"})
    (root / "l").symlink_to("a")
    before = freeze(root, store, GIGABYTE).id
    if change == "content":
        write(root, {"a": "2"})
    elif change == "mode":
        (root / "a").chmod(0o755)
    elif change == "name":
        (root / "a").rename(root / "b")
    elif change == "link":
        (root / "l").unlink()
        (root / "l").symlink_to("b")
    else:
        (root / "d").mkdir()
    assert freeze(root, store, GIGABYTE).id != before


def test_the_manifest_is_what_the_keepers_read(root: Path, store: Path) -> None:
    write(root, {"d/x": "1"})
    (root / "d/x").chmod(0o755)
    (root / "l").symlink_to("d/x")
    rows = json.loads(manifest(store, freeze(root, store, GIGABYTE).id).read_bytes())["files"]
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert rows == [
        ["d", "dir", 0o755, "", 0],
        ["d/x", "file", 0o755, digest, 1],
        ["l", "link", 0o777, "d/x", 0],
    ]
    assert (objects(store) / digest[:2] / digest[2:]).read_text() == "1"


def test_over_the_limit_is_refused_before_anything_is_read(root: Path, store: Path) -> None:
    for number in range(7):
        with (root / f"f{number}").open("wb") as file:
            file.truncate(number * 10**9)  # sparse: reading them would take minutes
    with pytest.raises(SweepError) as refused:
        freeze(root, store, 500_000_000)
    text = str(refused.value)
    assert "21 GB" in text and "500 MB" in text and "\n" not in text
    assert "f6 (6 GB), f5 (5 GB), f4 (4 GB), f3 (3 GB), f2 (2 GB)" in text and "f1" not in text
    assert not store.exists()


def test_a_root_that_is_no_folder(tmp_path: Path, store: Path) -> None:
    with pytest.raises(SweepError, match="no such folder"):
        freeze(tmp_path / "nothing", store, GIGABYTE)


def test_a_store_that_can_not_be_written(root: Path, tmp_path: Path) -> None:
    write(root, {"a": ""})
    (tmp_path / "file").write_text("")
    with pytest.raises(SweepError, match="can't be stored"):
        freeze(root, tmp_path / "file" / "store", GIGABYTE)


def test_an_object_that_a_power_cut_shortened_is_stored_again(root: Path, store: Path) -> None:
    write(root, {"a": "whole"})
    path = next(p for p in freeze(root, store, GIGABYTE).fresh if p.suffix != ".json")
    path.chmod(0o644)
    path.write_text("")
    freeze(root, store, GIGABYTE)
    assert path.read_text() == "whole"


def test_what_is_stored_is_what_its_digest_says_while_files_change(root: Path, store: Path) -> None:
    from hashlib import sha256

    running = True

    def scribble() -> None:
        number = 0
        while running:
            number += 1
            (root / "small").write_text(f"{number}" * 1000)
            (root / "large").write_bytes(os.urandom(100_000) * 20)

    write(root, {"small": "x", "large": "y"})
    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(15):
            freeze(root, store, GIGABYTE)
    finally:
        running = False
        writer.join()
    contents = [path for path in objects(store).rglob("*") if path.is_file()]
    assert contents
    for path in contents:
        assert sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


# -- the cache -----------------------------------------------------------------------------------------


def old(root: Path) -> None:
    """Let the files look as if nobody had touched them for long; ctime can't be set, so wait for it."""
    newest = max(path.stat().st_ctime_ns for path in root.rglob("*"))
    while time.time_ns() < newest + 2_100_000_000:
        time.sleep(0.05)


def test_an_unchanged_project_is_not_read_again(root: Path, store: Path) -> None:
    write(root, {f"d/{number}": f"{number}" for number in range(60)})
    old(root)
    first = freeze(root, store, GIGABYTE)
    for path in objects(store).rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_text("?" * path.stat().st_size)  # who reads the project again would not see this
    cache = Cache.load(store, root)
    assert len(cache.known) == 60
    assert freeze(root, store, GIGABYTE).id == first.id
    write(root, {"d/7": "!"})  # the same length
    changed = freeze(root, store, GIGABYTE)
    assert differences(store, first.id, changed.id).changed == ("d/7",)


def test_young_files_are_never_remembered(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one tick of the clock a file can change twice and keep its times."""
    now, long_ago = 10**18, 10**18 - 10**11
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**9)
    cache = Cache.load(store, root)
    for name, mtime, ctime in (("a", now, now), ("b", long_ago, now), ("c", long_ago, long_ago)):
        cache.remember(Entry(name, "file", size=1, stamp=(1, 1, mtime, ctime)), "digest")
    assert set(cache.now) == {"c"}


def test_a_broken_cache_is_as_none(root: Path, store: Path) -> None:
    write(root, {f"{number}": f"{number}" for number in range(60)})
    first = freeze(root, store, GIGABYTE)
    for path in (store / "cache").glob("*.json"):
        path.write_text("{")
    assert freeze(root, store, GIGABYTE).id == first.id


# -- differences and collecting ------------------------------------------------------------------------


def test_differences_are_named(root: Path, store: Path) -> None:
    write(root, {"a": "1", "b": "1", "c": "1"})
    first = freeze(root, store, GIGABYTE).id
    (root / "a").unlink()
    write(root, {"b": "2", "d": "1"})
    found = differences(store, first, freeze(root, store, GIGABYTE).id)
    assert (found.added, found.removed, found.changed) == (("d",), ("a",), ("b",))


def test_collect_takes_what_nobody_names(root: Path, store: Path, tmp_path: Path) -> None:
    write(root, {"shared": "s", "old": "o" * 100})
    first = freeze(root, store, GIGABYTE).id
    (root / "old").unlink()
    write(root, {"new": "n"})
    second = freeze(root, store, GIGABYTE).id
    (objects(store) / "tmp-1-dead").write_text("left by a freeze that was killed")
    assert collect(store, set()).files == 1  # all snapshots are young
    freed = collect(store, {second}, age=3600, clock=lambda: time.time() + 7200)
    assert freed.files == 2 and freed.bytes > 100
    checkout(store, second, tmp_path / "copy")
    with pytest.raises(SweepError, match="gone"):
        checkout(store, first, tmp_path / "other")


def test_freezing_again_makes_a_snapshot_young(root: Path, store: Path) -> None:
    write(root, {"a": "1"})
    path = manifest(store, freeze(root, store, GIGABYTE).id)
    os.utime(path, (1, 1))
    freeze(root, store, GIGABYTE)
    assert collect(store, set(), age=3600).files == 0


def test_collecting_beside_freezes_loses_nothing(tmp_path: Path, store: Path) -> None:
    """Each freeze finds its objects whole, though others are collected beside it."""

    def freeze_often(number: int) -> list[str]:
        root, lost = tmp_path / f"p{number}", []
        for turn in range(15):
            write(root, {f"f{n}": f"{n}" for n in range(10)} | {"own": f"{number} {turn}"})
            listed = manifest(store, freeze(root, store, GIGABYTE).id)
            rows = json.loads(listed.read_bytes())["files"]
            lost += [row[0] for row in rows if not (objects(store) / row[3][:2] / row[3][2:]).is_file()]
            os.utime(listed, (1, 1))  # from now on it may go
        return lost

    collected = 0
    with ThreadPoolExecutor(3) as pool:
        freezing = [pool.submit(freeze_often, number) for number in range(3)]
        while not all(each.done() for each in freezing):
            collected += collect(store, set()).files
    assert [each.result() for each in freezing] == [[], [], []]
    assert collected + collect(store, set()).files >= 45


def test_collect_in_a_store_that_is_not_there(store: Path) -> None:
    assert collect(store, set()).files == 0
    assert not store.exists()
