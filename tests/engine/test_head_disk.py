"""A head whose disk fails: it goes on when the disk does, and never with a ledger of which nobody knows what
lies on the disk. The disk is a pretended one (tests/chaos/pretend.c): it says what a bad one would."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_lab import Broker
from test_head_whole import HeadProcess
from worker_lab import until

from sweepfw.core.model import Draft, Spec
from sweepfw.errors import SweepError

PRETEND = Path(__file__).parents[1] / "chaos" / "pretend.c"
SPEC = Spec("p", "t", ("true",))


class Disk:
    def __init__(self, folder: Path) -> None:
        self.told, self.library = folder / "disk", folder / "pretend.so"
        names = [f'-DSTATE="{folder / "state"}"', f'-DTOLD="{self.told}"']
        build = ["gcc", "-shared", "-fPIC", "-O2", *names, "-o", str(self.library), str(PRETEND), "-ldl"]
        subprocess.run(build, check=True)

    def become(self, how: str) -> None:
        with self.told.open("r+") as file:
            file.write(f"0 {how}\n".ljust(64))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    if shutil.which("gcc") is None:
        pytest.skip("a pretended disk needs gcc")
    return Disk(tmp_path)


@pytest.fixture
def head(
    disk: Disk, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HeadProcess]:
    found = HeadProcess(tmp_path, broker)
    monkeypatch.setenv("LD_PRELOAD", str(disk.library))
    found.start()
    monkeypatch.delenv("LD_PRELOAD")
    yield found
    found.client.close()
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


def submit(head: HeadProcess, name: str) -> str:
    return head.ledger.submit(SPEC, "0" * 24, [Draft({})], name=name).uid


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_comes_right_again(head: HeadProcess, disk: Disk, how: str) -> None:
    before = submit(head, "before")
    disk.become(how)
    with pytest.raises(SweepError):
        submit(head, "meanwhile")
    disk.become("whole")
    after = submit(head, "after")
    assert {sweep.uid for sweep in head.ledger.sweeps()} == {before, after}
    assert head.process is not None and head.process.poll() is None


def test_a_disk_that_failed_a_sync_is_read_anew(head: HeadProcess, disk: Disk) -> None:
    """What a failed sync left is known to nobody; Docker starts the head again, which reads what is there."""
    before = submit(head, "before")
    head.ledger.flush()
    disk.become("failing")
    with pytest.raises(SweepError):
        while True:
            submit(head, "meanwhile")
            head.ledger.flush()
    assert head.process is not None
    until(lambda: head.process.poll() is not None, what="the head's end")
    assert head.process.returncode not in (0, None)
    assert "the disk failed" in head.log.read_text()
    disk.become("whole")
    head.start()
    assert before in {sweep.uid for sweep in head.ledger.sweeps()}
    submit(head, "after")
