"""What attempts leave at the head, and what hosts that are not believed may send."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from head_place import B, Place

from sweepfw.core.model import Outcome, Receipt
from sweepfw.engine import keeping
from sweepfw.errors import DiskFullError, SweepError


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / "head")
    yield found
    found.close()


def tar(members: dict[str, bytes | tarfile.TarInfo]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as pack:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            pack.addfile(info, io.BytesIO(data))
    file.seek(0)
    return file


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_small_files_are_kept_and_read(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    head.desk.keep(grant.token, tar({"params.json": b"{}", "files/a/b.txt": b"b" * 700_000}))
    head.desk.keep(grant.token, tar({"params.json": b"{1}"}))  # again: the newer one stands
    head.ledger.append_log(grant.token, 0, b"hello")
    assert head.desk.files(sweep.uid, 1, 1) == {"files/a/b.txt": 700_000, "output.log": 5, "params.json": 3}
    assert b"".join(head.desk.file(sweep.uid, 1, 1, "files/a/b.txt")) == b"b" * 700_000
    for path in ("../1/params.json", "files", "nothing", "/etc/passwd"):
        with pytest.raises(SweepError, match="the head keeps no file"):
            head.desk.file(sweep.uid, 1, 1, path)
    with pytest.raises(SweepError, match="there is no such attempt"):
        head.desk.files(sweep.uid, 1, 2)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "./x", "a//x", "output.log", "", "files/../../../x"]
)
def test_nothing_is_kept_outside_the_attempts_folder(head: Place, name: str) -> None:
    grant = head.claim(head.submit())
    before = keeping.listed(head.place.root)
    with pytest.raises(SweepError):
        head.desk.keep(grant.token, tar({name: b"x"}))
    after = keeping.listed(head.place.root)
    assert {path for path in after if "ledger" not in path} == {
        path for path in before if "ledger" not in path
    }


def test_a_small_end_is_taken_as_a_whole(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    head.ledger.append_log(grant.token, 0, b"hel")
    files = {"params.json": b"{}", "files/a/b.txt": b"b"}
    for _ in range(2):  # the second time its answer was lost
        receipt = head.desk.conclude(grant.token, 1, b"ello", files, Outcome("succeeded", ended=5.0))
        assert receipt == Receipt(recorded=True, accepted=True, trial_state="succeeded")
    assert head.desk.read_log(sweep.uid, 1, 1, 0).data == b"hello"
    assert head.desk.files(sweep.uid, 1, 1) == {"files/a/b.txt": 1, "output.log": 5, "params.json": 2}


@pytest.mark.parametrize(
    ("offset", "files"),
    [(6, {}), (0, {"../x": b"x"}), (0, {"output.log": b"x"}), (0, {"f": b"x" * 1001})],
)
def test_an_end_is_not_taken_before_all_that_came_with_it_is_stored(
    head: Place, monkeypatch: pytest.MonkeyPatch, offset: int, files: dict[str, bytes]
) -> None:
    monkeypatch.setattr(keeping, "LIMIT", 1000)
    grant = head.claim(sweep := head.submit())
    with pytest.raises(SweepError):
        head.desk.conclude(grant.token, offset, b"hello", files, Outcome("succeeded", ended=5.0))
    assert head.ledger.renew(grant.token) == "go on"
    assert [trial.state for trial in head.ledger.trials(sweep.uid, numbers=[1])] == ["running"]


def test_links_and_devices_are_left_out(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    outside = head.place.root / "outside"
    outside.mkdir()
    members = {
        "a": special("a", tarfile.SYMTYPE, str(outside)),
        "b": special("b", tarfile.LNKTYPE, "../../../../outside"),
        "c": special("c", tarfile.FIFOTYPE),
        "d": special("d", tarfile.CHRTYPE),
        "a/x": b"x",
    }
    head.desk.keep(grant.token, tar(members))
    assert head.desk.files(sweep.uid, 1, 1) == {"a/x": 1}
    assert not list(outside.iterdir())


def test_too_much_is_refused(head: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = head.claim(sweep := head.submit())
    monkeypatch.setattr(keeping, "LIMIT", 1000)
    with pytest.raises(SweepError, match="keeps at most"):
        head.desk.keep(grant.token, tar({"big": b"x" * 1001}))
    monkeypatch.setattr(keeping, "COUNT", 3)
    with pytest.raises(SweepError, match="keeps at most"):
        head.desk.keep(grant.token, tar({f"f{n}": b"" for n in range(4)}))
    with pytest.raises(SweepError, match="did not arrive whole"):
        head.desk.keep(grant.token, io.BytesIO(b"this is no tar" * 100))
    assert "big" not in head.desk.files(sweep.uid, 1, 1)


def test_a_checkpoint_is_the_current_attempts_and_whole_or_not_there(head: Place) -> None:
    sweep = head.submit()
    first = head.claim(sweep)
    assert head.desk.checkpoint(first.token) is None
    assert head.desk.put_checkpoint(first.token, io.BytesIO(b"1" * 600_000))

    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises((OSError, SweepError)):
        head.desk.put_checkpoint(first.token, Torn())
    head.ledger.expire(first.token)
    assert head.desk.put_checkpoint(first.token, io.BytesIO(b"2"))  # nobody else has it yet
    second = head.claim(sweep, worker=B)
    assert not head.desk.put_checkpoint(first.token, io.BytesIO(b"3"))
    pieces = head.desk.checkpoint(second.token)
    assert pieces is not None
    assert head.desk.put_checkpoint(second.token, io.BytesIO(b"4"))
    assert b"".join(pieces) == b"2"  # what was being read stays as it was
    assert sorted(p.name for p in head.place.trial(sweep.name, 1).iterdir()) == ["checkpoint.tar"]
    assert drafts(head) == []


def test_a_checkpoint_that_was_overtaken_while_it_came_is_not_stored(head: Place) -> None:
    sweep = head.submit()
    first = head.claim(sweep)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                head.ledger.expire(first.token)
                head.claim(sweep, worker=B)
            return data

    assert not head.desk.put_checkpoint(first.token, Slow(b"old"))
    assert not list(head.place.trial(sweep.name, 1).glob("*"))
    assert drafts(head) == []


def test_a_checkpoint_leaves_the_last_of_the_disk_to_others(
    head: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent without an end, it would take the ledger's room."""
    grant = head.claim(head.submit())
    asked: list[object] = []

    def shrinking(path: object) -> SimpleNamespace:
        asked.append(path)
        left = keeping.RESERVE + 2 - len(asked)
        return SimpleNamespace(f_bavail=left, f_blocks=keeping.RESERVE * 1000, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", shrinking)
    with pytest.raises(SweepError, match="nearly full; make room") as raised:
        head.desk.put_checkpoint(grant.token, io.BytesIO(bytes(10 * keeping.PIECE)))
    assert len(asked) == 3 and drafts(head) == []
    assert not isinstance(raised.value, DiskFullError)  # which is asked again, and would hold the slot
    head.desk.keep(grant.token, tar({"params.json": b"{}"}))  # the rest is small, and has its room


def test_what_a_killed_head_had_begun_to_write_goes_with_the_next(head: Place, tmp_path: Path) -> None:
    (head.place.state / "drafts" / "a").write_bytes(b"half of it")
    head.close()
    new = Place(tmp_path / "head")
    assert drafts(new) == []
    new.close()


def drafts(head: Place) -> list[Path]:
    """What is not whole yet."""
    return list((head.place.state / "drafts").iterdir())
