"""State read from beside its container, with a real Docker engine; skipped where there is none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweepfw import snapshot
from sweepfw.core.model import Draft, Grant, Outcome, Spec, Worker
from sweepfw.errors import SweepError
from sweepfw.fleet.volumes import Volume
from sweepfw.ledger.store import SqliteLedger
from sweepfw.shell.local import LocalShell
from sweepfw.shell.shell import Result

TEXT = b"print('hello')\n"
DIGEST = hashlib.sha256(TEXT).hexdigest()
LIST = json.dumps({"files": [["train.py", "file", 0o644, DIGEST, len(TEXT)]]}).encode()
ID = hashlib.sha256(LIST).hexdigest()[:24]


def docker(*words: str, **options: object) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True, **options)
    return done.stdout.strip()


def image() -> str:
    """Any image of the lab with tar and find; the tests are skipped where there is none."""
    try:
        found = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "sweepfw-lab/base")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Docker engine answers here")
    if not found:
        pytest.skip("the lab's images are not made here; `scripts/lab images` makes them")
    return found.splitlines()[0]


def fill(root: Path) -> None:
    """What a head's volume holds."""
    for name, data in {
        "runs/digits-1/sweep.yml": b"sweep: digits-1\n",
        "runs/digits-1/trials/1/1/output.log": b"epoch 1\n",
        "runs/digits-1/trials/1/1/files/best of\nall.bin": os.urandom(200_000),
        "runs/digits-1/trials/1/1/work/train.py": TEXT,
        "runs/digits-1/trials/2/1/output.log": b"",
        f".sweepfw/snapshots/objects/{DIGEST[:2]}/{DIGEST[2:]}": TEXT,
        f".sweepfw/snapshots/{ID}.json": LIST,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "runs/digits-1/trials/1/1/files/latest").symlink_to("best of\nall.bin")
    with SqliteLedger(root / ".sweepfw/ledger.db", root / "runs") as ledger:
        sweep = ledger.submit(Spec("digits", "train", ("true",)), ID, [Draft({}, n) for n in (1, 2)])
        worker = Worker("gpu1", "boot")
        ledger.register(worker)
        ledger.open(sweep.uid)
        grant = ledger.claim(sweep.uid, 1, worker, "0", "claim")
        assert isinstance(grant, Grant)
        ledger.finish(grant.token, Outcome("succeeded", exit_code=0))


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    name, base = f"sweepfw-home-test-{os.getpid()}", image()
    folder = tmp_path_factory.mktemp("state")
    fill(folder)
    docker("volume", "create", name)
    try:
        packed = subprocess.run(
            ["tar", "-C", folder, "-cf", "-", "."], capture_output=True, check=True
        ).stdout
        into = ["run", "--rm", "-i", "-v", f"{name}:/into", base, "tar", "-C", "/into", "-xf", "-"]
        subprocess.run(["docker", *into], input=packed, check=True)
        yield Volume("gpu1", LocalShell(), name, base, "0:0", name)
    finally:
        docker("volume", "rm", "-f", name)


def test_files_come_home_and_only_what_is_missing(volume: Volume, tmp_path: Path) -> None:
    items = {item.path: item for item in volume.listing()}
    assert set(items) == {
        "digits-1/sweep.yml",
        "digits-1/trials/1/1/output.log",
        "digits-1/trials/1/1/files/best of\nall.bin",
        "digits-1/trials/1/1/files/latest",
        "digits-1/trials/2/1/output.log",
    }
    assert {item.path for item in volume.listing(["digits-1"])} == set(items)
    assert volume.listing(["digits-9"]) == []
    took: list[int] = []
    received = volume.fetch({path: tmp_path / path for path in items}, tmp_path, took.append)
    assert received.paths == set(items)
    assert not received.refused
    assert sum(took) == sum(item.size for item in items.values())
    model = tmp_path / "digits-1/trials/1/1/files/best of\nall.bin"
    assert model.stat().st_size == 200_000
    assert (model.parent / "latest").read_bytes() == model.read_bytes()
    assert int(model.stat().st_mtime) == items["digits-1/trials/1/1/files/best of\nall.bin"].changed


def test_a_file_that_is_gone_is_missing_in_the_answer(volume: Volume, tmp_path: Path) -> None:
    gone, there = "digits-1/trials/7/1/files/x", "digits-1/sweep.yml"
    received = volume.fetch({path: tmp_path / path for path in (gone, there)}, tmp_path)
    assert received.paths == {there}


def test_half_a_list_is_none(volume: Volume) -> None:
    class Deaf(LocalShell):
        """Loses the end of what it hears."""

        def stream(self, *arguments: Any, **options: Any) -> Result:
            command, stdin, sink = arguments
            whole = io.BytesIO()
            done = super().stream(command, stdin, whole, **options)
            sink.write(whole.getvalue()[:-1])
            return done

    with pytest.raises(SweepError, match="gpu1: its files can't be listed"):
        replace(volume, shell=Deaf()).listing()


def test_the_ledger_comes_whole_with_what_is_not_in_its_main_file(volume: Volume, tmp_path: Path) -> None:
    path = volume.fetch_ledger(tmp_path)
    with SqliteLedger(path, tmp_path / "runs") as ledger:
        [sweep] = ledger.sweeps()
        assert dict(sweep.counts) == {"queued": 1, "succeeded": 1}


def test_a_snapshot_comes_once_and_can_be_checked_out(volume: Volume, tmp_path: Path) -> None:
    store = tmp_path / "snapshots"
    volume.fetch_snapshot(ID, store)
    snapshot.checkout(store, ID, tmp_path / "copy")
    assert (tmp_path / "copy/train.py").read_bytes() == TEXT
    volume.fetch_snapshot(ID, store)
    with pytest.raises(SweepError, match="gpu1: snapshot"):
        volume.fetch_snapshot("0" * 24, store)


def test_reading_changes_nothing_and_leaves_no_container(
    volume: Volume, wait_until: Callable[..., None]
) -> None:
    done = volume.shell.run(volume.reader("sh", "-c", "touch /state/x || touch /x"))
    assert done.code != 0
    # The engine takes a container away a moment after its command has ended.
    wait_until(
        lambda: docker("ps", "-aq", "--filter", f"label=sweepfw.deployment={volume.deployment}") == "", 60
    )


def test_a_volume_that_is_not_there_is_one_line(volume: Volume) -> None:
    broken = Volume("gpu1", volume.shell, volume.name, "no-such-image-of-ours", "0:0", volume.name)
    with pytest.raises(SweepError, match="gpu1: its files can't be listed"):
        broken.listing()
