"""Snapshots on their way: what arrives is what was sent, and nothing that is not what it says is taken."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from sweepfw.errors import SweepError
from sweepfw.snapshot import checkout, freeze
from sweepfw.snapshot.transfer import accept, lacking, listed, pack, reader, unpack

LIMIT = 10_000_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "deep/er").mkdir(parents=True)
    (root / "train.py").write_text("print(1)\n")
    (root / "deep/er/data.bin").write_bytes(bytes(range(256)) * 5000)
    (root / "empty").write_bytes(b"")
    (root / "link").symlink_to("train.py")
    return root


def tar(**members: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.removeprefix("x"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    file.seek(0)
    return file


def test_a_snapshot_arrives_as_it_was(tmp_path: Path, project: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    id = freeze(project, here, LIMIT).id
    wanted = listed(here, id)
    assert lacking(there, wanted) == set(wanted)
    assert unpack(there, reader(pack(here, sorted(wanted)))) == len(wanted)
    accept(there, id, (here / f"{id}.json").read_bytes())
    checkout(there, id, tmp_path / "copy")
    assert (tmp_path / "copy/deep/er/data.bin").read_bytes() == (project / "deep/er/data.bin").read_bytes()
    assert (tmp_path / "copy/link").readlink() == Path("train.py")
    assert lacking(there, wanted) == set()


def test_a_cut_stream_is_refused_and_leaves_only_whole_contents(tmp_path: Path, project: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    wanted = listed(here, freeze(project, here, LIMIT).id)
    whole = b"".join(pack(here, sorted(wanted)))
    inside = whole.index(bytes(range(256))) + 4000
    for end in (100, inside, inside + 1_000_000):
        with pytest.raises(SweepError, match=r"whole|name says"):
            unpack(there, io.BytesIO(whole[:end]))
        for path in there.glob("objects/*/*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
    assert not list(there.glob("objects/tmp-*"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "A" * 64, "short", ""])
def test_names_that_are_no_digest_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SweepError, match="SHA-256"):
        unpack(tmp_path / "store", tar(**{f"x{name}": b"data"}))


def test_a_content_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="not what its name says"):
        unpack(tmp_path / "store", tar(**{"x" + "0" * 64: b"data"}))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_links_and_devices_are_no_contents(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("0" * 64)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    file.seek(0)
    with pytest.raises(SweepError, match="no content"):
        unpack(tmp_path / "store", file)


@pytest.mark.parametrize(
    "rows",
    [
        [["../x", "file", 420, "0" * 64, 1]],
        [["/x", "dir", 493, "", 0]],
        [["x", "device", 420, "", 0]],
        [["x"]],
        "text",
        [3],
    ],
)
def test_lists_that_lead_out_or_make_no_sense_are_refused(tmp_path: Path, rows: object) -> None:
    text = json.dumps({"files": rows}).encode()
    with pytest.raises(SweepError, match=r"no list|not here"):
        accept(tmp_path / "store", hashlib.sha256(text).hexdigest()[:24], text)


def test_a_list_is_taken_only_with_its_contents_and_its_own_name(tmp_path: Path, project: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    id = freeze(project, here, LIMIT).id
    text = (here / f"{id}.json").read_bytes()
    with pytest.raises(SweepError, match="not here"):
        accept(there, id, text)
    with pytest.raises(SweepError, match="not the name"):
        accept(there, id[::-1], text)
