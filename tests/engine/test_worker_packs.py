"""Folders of trials as tars: there and back again, also while they change; what a foreign tar may do."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.engine.packs import packed, survey, unpack
from sweepfw.engine.shipping import ALL_FILES, OWN_FILES, choose
from sweepfw.errors import SweepError

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=70
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


def pack(folder: Path, names: list[str] | None = None, size: int = 0) -> bytes:
    found = survey(str(folder))
    with packed(str(folder), names or found, folder.parent, size) as file:
        return file.read()


@given(
    files=st.dictionaries(NAMES, st.tuples(st.binary(max_size=2000), st.sampled_from([0o644, 0o600, 0o755]))),
    deep=st.lists(NAMES, max_size=4),
    size=st.sampled_from([0, 1 << 30]),
)
def test_what_is_packed_comes_out_the_same(
    files: dict[str, tuple[bytes, int]], deep: list[str], size: int
) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder, out = Path(home, "in"), Path(home, "out")
        inner = folder / "d"
        for name in deep:
            inner /= name
        inner.mkdir(parents=True)
        for name, (data, mode) in files.items():
            path = inner / name
            path.write_bytes(data)
            path.chmod(mode)
        (folder / "empty").mkdir()
        (folder / "link").symlink_to("empty")
        tar = pack(folder, size=size)
        unpack([tar[at : at + 700] for at in range(0, len(tar), 700)], out)
        told = {name: row[0] for name, row in survey(str(folder)).items()}
        assert {name: row[0] for name, row in survey(str(out)).items()} == told
        for name, mode in told.items():
            if stat.S_ISREG(mode):
                assert (out / name).read_bytes() == (folder / name).read_bytes()
                assert int((out / name).stat().st_mtime) == int((folder / name).stat().st_mtime)
        assert os.readlink(out / "link") == "empty"
        with tarfile.open(fileobj=io.BytesIO(tar)) as others:  # as everybody else reads it
            assert set(others.getnames()) == set(told)


def test_pipes_and_sockets_are_left_out_and_never_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "file").write_text("x")
    assert list(survey(str(folder))) == ["file"]
    assert survey(str(tmp_path / "nowhere")) == {}


def test_a_file_that_vanishes_is_left_out_and_one_that_shrinks_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(b"long" * 1000)
    real, cut, whole = os.fstat, [1, 1], (folder / "a").stat()

    def fstat(file: int) -> os.stat_result:
        told = real(file)
        if os.path.samestat(told, whole) and cut and cut.pop():  # the file is cut off just now
            os.truncate(folder / "a", told.st_size // 2)
        return told

    monkeypatch.setattr("sweepfw.engine.packs.os.fstat", fstat)
    with packed(str(folder), ["gone", "a"], tmp_path, 0) as file, tarfile.open(fileobj=file) as tar:
        [member] = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        assert content.read() == b"long" * 250


def evil(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))

    return add


@pytest.mark.parametrize(
    "members",
    [
        [evil("../out")],
        [evil("/etc/sweepfw-test")],
        [evil("a/../../out")],
        [evil("up", tarfile.SYMTYPE, "../.."), evil("up/out")],
        [evil("abs", tarfile.SYMTYPE, "/tmp"), evil("abs/sweepfw-out")],
        [evil("d", tarfile.CHRTYPE)],
        [evil("h", tarfile.LNKTYPE, "/etc/passwd")],
    ],
)
def test_nothing_lands_outside(tmp_path: Path, members: list[Callable[[tarfile.TarFile], None]]) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for add in members:
            add(tar)
    folder = tmp_path / "deep" / "in"
    try:
        unpack([data.getvalue()], folder)
    except SweepError as error:
        assert "elsewhere" in str(error)
    assert not (tmp_path / "deep/out").exists() and not (tmp_path / "out").exists()
    assert not Path("/tmp/sweepfw-out").exists()
    for path in folder.rglob("*"):
        assert path.is_file() or path.is_dir()
        assert path.resolve().is_relative_to(folder)


def test_a_torn_pack_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(5000))
    with pytest.raises(SweepError, match="torn"):
        unpack([pack(folder)[:3000]], tmp_path / "out")


def attempt(folder: Path, **sizes: int) -> Path:
    for name, size in sizes.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)
    return folder


def test_what_is_small_goes_to_the_head(tmp_path: Path) -> None:
    small = attempt(tmp_path / "1", params_json=3, outcome_json=9, output_log=10**9, files__a__b=5, work__x=1)
    assert choose(str(small)) == (["params.json", "outcome.json", "files/a/b"], 17, True)
    large = attempt(tmp_path / "2", params_json=3, metrics_jsonl=9, files__a=ALL_FILES)
    assert choose(str(large)) == (["params.json", "metrics.jsonl"], 12, False)
    huge = attempt(tmp_path / "3", params_json=3, metrics_jsonl=OWN_FILES)
    assert choose(str(huge)) == (["params.json"], 3, False)
    only = attempt(tmp_path / "4", params_json=3, metrics_jsonl=ALL_FILES)
    assert choose(str(only)) == (["params.json", "metrics.jsonl"], 3 + ALL_FILES, True)
    linked = attempt(tmp_path / "5", params_json=3, files__a=1)
    (linked / "files/link").symlink_to("a")
    assert choose(str(linked)) == (["params.json", "files/a"], 4, False)
    assert choose(str(tmp_path / "none")) == ([], 0, True)
