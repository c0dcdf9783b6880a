"""Tar streams from hosts: what was asked for lands in its place, and nothing else lands anywhere."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.errors import StoppedError
from sweepfw.fleet.parcels import FIND, Item, lacking, place, read_listing, unpack

FILE = "digits-1/trials/3/1/files/model.npz"


def packed(*members: tuple[str, bytes | None, dict[str, object]]) -> io.BytesIO:
    """A tar of members: name, content, attributes of the TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data, more in members:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            info.mtime = 1_700_000_000
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data or b""))
    stream.seek(0)
    return stream


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_file_lands_in_its_place_with_its_time(tmp_path: Path) -> None:
    stream = packed((FILE, b"weights", {"mode": 0o755}))
    received = unpack(stream, {FILE: tmp_path / FILE}.get, tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"weights"
    assert (tmp_path / FILE).stat().st_mtime == 1_700_000_000
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o744
    assert received.paths == {FILE}
    assert lacking([Item(FILE, 7, 1_700_000_000)], lambda item: tmp_path / item.path) == []
    assert lacking([Item(FILE, 8, 1_700_000_000)], lambda item: tmp_path / item.path)
    assert lacking([Item(FILE, 7, 1_700_000_001)], lambda item: tmp_path / item.path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("../evil", {}),
        ("/etc/evil", {}),
        ("digits-1/trials/3/1/files/../../../../../evil", {}),
        (FILE + "/below", {}),
        ("digits-1/trials/3/1/files/other", {}),
        (FILE, {"type": tarfile.CHRTYPE}),
        (FILE, {"type": tarfile.BLKTYPE}),
        (FILE, {"type": tarfile.FIFOTYPE}),
        (FILE, {"type": tarfile.DIRTYPE}),
        (FILE, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        (FILE, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        (FILE, {"type": tarfile.SYMTYPE, "linkname": "../output.log"}),
        (FILE, {"type": tarfile.SYMTYPE, "linkname": "a/../../../x"}),
    ],
)
def test_what_was_not_asked_for_and_what_leads_out_lands_nowhere(
    tmp_path: Path, name: str, more: dict[str, object]
) -> None:
    root = tmp_path / "deep" / "runs"
    received = unpack(packed((name, b"", more)), {FILE: root / FILE}.get, root)
    assert received.paths == set()
    assert not [found for found in tmp_path.rglob("*") if not found.is_dir()]


def test_a_link_that_stays_in_its_folder_is_kept(tmp_path: Path) -> None:
    link = "digits-1/trials/3/1/files/best"
    stream = packed((link, None, {"type": tarfile.SYMTYPE, "linkname": "model.npz"}))
    assert unpack(stream, {link: tmp_path / link}.get, tmp_path).paths == {link}
    assert os.readlink(tmp_path / link) == "model.npz"
    assert lacking([Item(link, 0, 0, "model.npz")], lambda item: tmp_path / item.path) == []


def test_nothing_is_written_through_a_link_at_home(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "digits-1/trials/3/1").mkdir(parents=True)
    (root / "digits-1/trials/3/1/files").symlink_to(elsewhere)
    received = unpack(packed((FILE, b"x", {})), {FILE: root / FILE}.get, root)
    assert FILE in received.refused
    assert everything(elsewhere) == set()


def test_a_sparse_file_that_would_fill_the_disk_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)
    tar = subprocess.run(["tar", "-C", tmp_path, "-Scf", "-", "huge"], capture_output=True, check=True).stdout
    received = unpack(io.BytesIO(tar), {"huge": tmp_path / "home"}.get, tmp_path)
    assert received.paths == set()
    assert not (tmp_path / "home").exists()


def test_a_stream_that_ends_too_early_leaves_whole_files_only(tmp_path: Path) -> None:
    second = FILE + "2"
    data = packed((FILE, b"a" * 5000, {}), (second, b"b" * 50_000, {})).getvalue()
    with pytest.raises(StoppedError, match="too early"):
        unpack(io.BytesIO(data[:30_000]), {FILE: tmp_path / FILE, second: tmp_path / second}.get, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.npz"]


WHOLE = packed((FILE, b"a" * 700, {}), ("x" * 300, b"b", {}), (FILE + "2", b"c", {})).getvalue()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), max_size=4))
def test_a_damaged_stream_is_one_line(damages: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for at, new in damages:
        data[at : at + len(new)] = new
    with suppress(StoppedError):
        assert unpack(io.BytesIO(data), {}.get, Path("/nonexistent")).paths == set()


@given(st.lists(st.sampled_from(["digits-1", "trials", "1", "files", "..", ".", "", "a b\n", "-x", "/"])))
def test_a_path_is_ours_or_nothing(parts: list[str]) -> None:
    path = "/".join(parts)
    found = place(path)
    if found is not None:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert path.startswith(found.sweep + "/")


def test_find_lists_what_attempts_left_without_working_copies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in (
        "digits-1/sweep.yml",
        "digits-1/trials/3/checkpoint.tar",
        "digits-1/trials/3/checkpoint/epoch",
        "digits-1/trials/3/1/work/train.py",
        "digits-1/trials/3/1/output.log",
        "digits-1/trials/3/1/files/work/a\nb",
        "digits-1/trials/3/1/files/checkpoint/\udcff",
        "not ours/x",
    ):
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_bytes(b"12345")
    (runs / "digits-1/trials/3/1/files/inside").symlink_to("work")
    (runs / "digits-1/trials/3/1/files/outside").symlink_to("/etc")
    done = subprocess.run(["find", ".", *FIND], cwd=runs, capture_output=True, check=True)
    items = {item.path: item for item in read_listing(done.stdout)}
    assert set(items) == {
        "digits-1/sweep.yml",
        "digits-1/trials/3/checkpoint.tar",
        "digits-1/trials/3/1/output.log",
        "digits-1/trials/3/1/files/work/a\nb",
        "digits-1/trials/3/1/files/checkpoint/\udcff",
        "digits-1/trials/3/1/files/inside",
    }
    assert items["digits-1/sweep.yml"].size == 5
    assert [path for path in items if items[path].place.output] == [
        path for path in items if "/files/" in path
    ]
    assert read_listing(done.stdout[:-20])  # cut off: no failure
