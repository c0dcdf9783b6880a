"""No room: a clear error, nothing changed, fine once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_doors import HOST, SPEC, drafts

from sweepfw.core.model import Grant, Outcome
from sweepfw.errors import DiskFullError
from sweepfw.ledger.store import SqliteLedger


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_and_healed(small_disk: Path) -> None:
    with SqliteLedger(small_disk / "ledger.db", small_disk / "runs") as ledger:
        uid = ledger.submit(SPEC, "s", drafts(3)).uid
        grant = ledger.claim(uid, 1, HOST, "0", "c1")
        assert isinstance(grant, Grant)
        ballast = small_disk / "ballast"
        with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        outcome = Outcome("succeeded", details={"big": "x" * 200_000})
        with pytest.raises(DiskFullError, match="disk is full"):
            ledger.finish(grant.token, outcome)
        with pytest.raises(DiskFullError):
            ledger.submit(SPEC, "s", drafts(20_000))
        with pytest.raises(DiskFullError, match="disk is full"):
            ledger.append_log(grant.token, 0, b"x" * 200_000)
        assert [t.state for t in ledger.trials(uid)] == ["running", "queued", "queued"]
        assert len(ledger.sweeps()) == 1
        ballast.unlink()
        assert ledger.finish(grant.token, outcome).accepted
        assert ledger.append_log(grant.token, 0, b"x" * 200_000) == 200_000
        ledger.flush()


def test_a_ledger_that_may_not_grow_is_told_and_healed(tmp_path: Path) -> None:
    """The same through SQLite's own limit, for those who can't mount."""
    with SqliteLedger(tmp_path / "ledger.db", tmp_path / "runs") as ledger:
        uid = ledger.submit(SPEC, "s", drafts(1)).uid
        grant = ledger.claim(uid, 1, HOST, "0", "c1")
        assert isinstance(grant, Grant)
        ledger._db._writer.execute("PRAGMA max_page_count=1")  # not below what it has
        outcome = Outcome("succeeded", details={"big": "x" * 200_000})
        with pytest.raises(DiskFullError, match=r"ledger\.db: the disk is full; make room"):
            ledger.finish(grant.token, outcome)
        assert next(ledger.trials(uid)).state == "running"
        ledger._db._writer.execute("PRAGMA max_page_count=1000000")
        assert ledger.finish(grant.token, outcome).accepted
