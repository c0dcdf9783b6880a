"""Opening: what is no ledger, what can't be written, where it may not lie, and ledgers of old versions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_doors import HOST, SPEC, drafts

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Grant, MetricSummary, Outcome
from sweepfw.core.values import Number
from sweepfw.errors import BusyError, LedgerError, SweepError
from sweepfw.ledger import database, schema
from sweepfw.ledger.local import network_mount, open_ledger
from sweepfw.ledger.store import SqliteLedger

CASES = Path(__file__).parent.parent / "cases/ledger"


def opened(folder: Path) -> SqliteLedger:
    return SqliteLedger(folder / "ledger.db", folder / "runs")


def filled(folder: Path) -> Path:
    with opened(folder) as ledger:
        ledger.submit(SPEC, "s", drafts(500))
    return folder / "ledger.db"


def test_the_version_is_that_of_the_newest_migration() -> None:
    numbers = sorted(int(file.name[:4]) for file in Path(schema.__file__).parent.glob("migrations/*.sql"))
    assert numbers == list(range(1, schema.VERSION + 1))


def test_a_workspace_without_ledger_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no sweeps here yet"):
        open_ledger(Workspace(tmp_path), create=False)
    assert list(tmp_path.iterdir()) == []
    open_ledger(Workspace(tmp_path), create=True).disconnect()
    open_ledger(Workspace(tmp_path), create=False).disconnect()
    assert (tmp_path / ".sweepfw/ledger.db").stat().st_size > 0


@pytest.mark.parametrize(
    "text", [b"not a database at all, but long enough to look", b"SQLite format 3\0junk" * 99]
)
def test_a_file_that_is_no_ledger(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "ledger.db"
    file.write_bytes(text)
    with pytest.raises(LedgerError, match=r"ledger\.db: the ledger is damaged or is no ledger; move it away"):
        opened(tmp_path)
    assert file.read_bytes() == text


def test_a_torn_ledger(tmp_path: Path) -> None:
    file = filled(tmp_path)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(LedgerError, match="damaged"):
        opened(tmp_path).sweeps()


def test_a_ledger_with_a_broken_page(tmp_path: Path) -> None:
    file = filled(tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(8192)
        raw.write(b"\xa5" * (size - 8192))
    with pytest.raises(LedgerError, match="damaged"), opened(tmp_path) as ledger:
        ledger.submit(SPEC, "s", drafts(10))


@pytest.mark.parametrize(
    "garbled",
    [
        "UPDATE sweep SET spec = substr(spec, 1, 40)",
        "UPDATE sweep SET spec = '[]'",
        "UPDATE sweep SET spec = replace(spec, 'a', char(0))",
        "UPDATE sweep SET provenance = ''",
        "UPDATE trial SET params = 'x'",
        "UPDATE trial SET params = '[1]'",
        "UPDATE attempt SET outcome = '{'",
        "UPDATE attempt SET metrics = '{\"a\":[1]}'",
        "UPDATE attempt SET reason = CAST(x'ff' AS TEXT)",
    ],
)
def test_records_that_nobody_wrote(tmp_path: Path, garbled: str) -> None:
    """A page that a bad disk lost may hold texts: SQLite does not look at them, and reads what is there."""
    file = filled(tmp_path)
    with opened(tmp_path) as ledger:
        (sweep,) = ledger.sweeps()
        grant = ledger.claim(sweep.uid, 1, HOST, "0", "c")
        assert isinstance(grant, Grant)
        ledger.finish(grant.token, Outcome("failed", exit_code=1))
    with sqlite3.connect(file) as raw:
        raw.execute(garbled)
    raw.close()
    with opened(tmp_path) as ledger, pytest.raises(LedgerError, match=r"damaged.*move it away"):
        for sweep in ledger.sweeps():
            for trial in ledger.trials(sweep.uid):
                dict(trial.params)
            for attempt in ledger.attempts(sweep.uid):
                dict(attempt.metrics)


def test_someone_elses_database(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.execute("CREATE TABLE precious (x)")
    raw.close()
    with pytest.raises(LedgerError, match="no ledger"):
        opened(tmp_path)


def test_a_newer_ledger(tmp_path: Path) -> None:
    raw = sqlite3.connect(filled(tmp_path))
    raw.execute("PRAGMA user_version=99")
    raw.close()
    with pytest.raises(LedgerError, match=r"newer sweepfw made this ledger .* update sweepfw"):
        opened(tmp_path)


def test_an_empty_file_is_a_new_ledger(tmp_path: Path) -> None:
    """As after a kill -9 between making the file and its first migration."""
    (tmp_path / "ledger.db").touch()
    sqlite3.connect(tmp_path / "ledger.db").execute("PRAGMA journal_mode=WAL").close()
    with opened(tmp_path) as ledger:
        assert ledger.sweeps() == []


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = schema.statements(1)
    monkeypatch.setattr(schema, "statements", lambda number: [*whole, "CREATE TABLE broken ("])
    with pytest.raises(LedgerError):
        opened(tmp_path)
    monkeypatch.undo()
    with opened(tmp_path) as ledger:
        assert ledger.sweeps() == []


@pytest.fixture
def seen_by_all() -> Iterator[Path]:
    """A folder that another user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_ledger_that_cannot_be_written(seen_by_all: Path, mode: int) -> None:
    filled(seen_by_all).chmod(mode)
    script = f"""
import os, sys
from pathlib import Path
from sweepfw.errors import SweepError
from sweepfw.ledger.store import SqliteLedger
folder = Path({str(seen_by_all)!r})
os.setgid(65534); os.setuid(65534)
try:
    SqliteLedger(folder / "ledger.db", folder / "runs").sweeps()
except SweepError as error:
    sys.exit(str(error))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "can't be opened for writing; run sweepfw as its owner" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_ledger_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    with opened(tmp_path) as ledger:
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match="locked"):
            ledger.submit(SPEC, "s", drafts(1))
        other.execute("ROLLBACK")
        other.close()
        assert ledger.submit(SPEC, "s", drafts(1)).name == "digits-1"


def test_a_success_stands_against_sql_too(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        uid = ledger.submit(SPEC, "s", drafts(1)).uid
        grant = ledger.claim(uid, 1, HOST, "0", "c")
        assert isinstance(grant, Grant)
        ledger.finish(grant.token, Outcome("succeeded"))
        for change in ("UPDATE trial SET state = 'queued'", "UPDATE attempt SET reason = 'x'"):
            with pytest.raises(SweepError, match="never changes"), ledger._db.write() as db:
                db.execute(change)


MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /home rw shared:1 master:2 - nfs4 server:/home rw,vers=4.2
31 30 254:1 / /home/me/local rw - xfs /dev/vdb rw
32 22 0:30 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:31 / /mnt/ssh rw - fuse.sshfs me@host: rw
34 22 0:32 / /mnt/over rw - nfs server:/x rw
35 34 0:33 / /mnt/over rw - tmpfs tmpfs rw
36 22 0:34 / /mnt/c rw - 9p drvfs rw
37 22 0:35 / /mnt/portal rw - fuse.portal portal rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/x", None),
        ("/home", "nfs4"),
        ("/home/me/x/.sweepfw", "nfs4"),
        ("/home/me/local/x", None),
        ("/homework", None),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/mnt/over/x", None),
        ("/mnt/c/Users", "9p"),
        ("/mnt/portal/x", None),
    ],
)
def test_network_file_systems_are_known(path: str, kind: str | None) -> None:
    assert network_mount(path, MOUNTS) == kind


def test_a_sandbox_whose_own_disk_is_9p_is_no_network() -> None:
    assert network_mount("/x", "22 1 0:1 / / rw - 9p none rw\n") is None


def test_a_ledger_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:1 / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr("sweepfw.ledger.local._MOUNTS", mounts)
    workspace = Workspace(tmp_path / "here")
    workspace.root.mkdir()
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*local disk"):
        open_ledger(workspace, create=True)
    assert list(workspace.root.iterdir()) == []


def test_ledgers_of_schema_1_are_read_for_ever(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.executescript((CASES / "v1.sql").read_text())
    raw.close()
    with opened(tmp_path) as ledger:
        (sweep,) = ledger.sweeps()
        assert (sweep.name, sweep.state, sweep.note) == ("digits-1", "running", "the first")
        assert sweep.counts == {"queued": 1, "running": 1, "succeeded": 1, "cancelled": 1}
        assert sweep.spec.command == ("python", "train.py")
        first, second, third, _ = ledger.trials(sweep.uid)
        assert (first.params, first.attempts) == ({"lr": Number("0.10"), "opt": "sgd"}, 2)
        assert first.metrics == {"loss": MetricSummary(0.5, 0.25, 1.0, 3, 3, 2, 1)}
        assert [(a.state, a.reason) for a in ledger.attempts(sweep.uid, 1)] == [
            ("failed", "exit 3"),
            ("succeeded", ""),
        ]
        (running,) = ledger.running(sweep.uid)
        assert (running.trial, running.slot, third.state) == (second.number, "gpu1", "queued")
        assert ledger.finish(running.token, Outcome("succeeded")).accepted
        grant = ledger.claim(sweep.uid, 3, HOST, "0", "new")
        assert isinstance(grant, Grant) and grant.snapshot == "snapshot-a"
        assert ledger.submit(SPEC, "s", drafts(1)).name == "digits-3"  # digits-2 was removed
