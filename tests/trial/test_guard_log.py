"""A trial's output on disk: every byte up to the limit, first and last half beyond it, whatever it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_lab import Lab, children_of, lab_in
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.trial.guard.follow import Follower
from sweepfw.trial.guard.log import BoundedLog

MARK = re.compile(rb"\n\[sweepfw: (\d+) bytes left out here; log_limit is (\d+)\]\n")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_in(tmp_path)


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """A folder on a file system with room for 200 kB."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)


def halves(data: bytes, limit: int) -> bytes:
    """What is to be left of an output, by the words of the promise."""
    if len(data) <= limit:
        return data
    head = limit // 2
    mark = f"\n[sweepfw: {len(data) - limit} bytes left out here; log_limit is {limit}]\n".encode()
    return data[:head] + mark + data[len(data) - (limit - head) :]


@given(pieces=st.lists(st.binary(max_size=60), max_size=12), limit=st.integers(2, 90))
def test_first_and_last_half(pieces: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/output.log"
        log, follower, seen = BoundedLog(path, limit), Follower(path, limit), b""
        for piece in pieces:
            log.write(piece)
            assert Path(path).stat().st_size <= limit
            while part := follower.read(log.total):
                seen += part
        log.close()
        output = b"".join(pieces)
        assert Path(path).read_bytes() == halves(output, limit)
        assert (log.total, log.kept, log.error) == (len(output), min(len(output), limit), None)
        assert len(seen) + follower.skipped == len(output)
        assert follower.skipped or seen == output
        late, whole = Follower(path, limit), b""
        while part := late.read(log.total):
            whole += part
        assert whole == halves(output, limit)
        assert os.listdir(folder) == ["output.log"]


def test_much_output_without_a_newline_leaves_memory_flat(lab: Lab) -> None:
    limit = 1_000_001
    lab.setup(log_limit=limit)
    lab.sh("true")
    keeper = children_of(lab.guardian.pid)[0]
    before = _peak(keeper)
    script = (
        "import sys\n"
        "for i in range(300): sys.stdout.buffer.write(bytes([i % 251]) * 1_000_000)\n"
        "sys.stdout.buffer.write(b'END')"
    )
    outcome, folder = lab.run(sys.executable, "-c", script)
    assert outcome["log_bytes"] == 300_000_003
    assert _peak(keeper) - before < 2_000, "kB more than before"
    kept = (folder / "output.log").read_bytes()
    assert kept[: limit // 2] == b"\0" * (limit // 2)
    mark = MARK.match(kept, limit // 2)
    assert mark and int(mark[1]) == 300_000_003 - limit
    assert kept[mark.end() :] == (b"\x2f" * 1_000_000 + b"\x30" * 1_000_000 + b"END")[-(limit - limit // 2) :]


def _peak(pid: int) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def test_binary_output(lab: Lab) -> None:
    _, folder = lab.run(sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 100)")
    assert (folder / "output.log").read_bytes() == bytes(range(256)) * 100


def test_output_of_what_was_killed_is_whole(lab: Lab) -> None:
    """What is in the pipe when the trial ends is read to its last byte."""
    _, folder = lab.sh("(i=0; while [ $i -lt 9999999 ]; do echo $i; i=$((i+1)); done) & sleep 0.05")
    lines = (folder / "output.log").read_bytes().split(b"\n")[:-1]
    assert [int(line) for line in lines] == list(range(len(lines)))
    outcome, folder = lab.sh("head -c 60000 /dev/zero")
    assert outcome["log_bytes"] == 60000


def test_a_full_disk_is_no_success_and_passes(lab: Lab, full_disk: Path) -> None:
    lab.root = full_disk
    outcome, folder = lab.sh("head -c 300000 /dev/zero; exit 0")
    assert outcome["error"]["kind"] == "disk full"
    assert outcome["exit_code"] == 0
    assert outcome["log_bytes"] == 300_000
    assert 0 < outcome["log_kept"] < 300_000
    (folder / "output.log").unlink()
    assert lab.sh("echo fine")[0]["error"] is None


def test_a_disk_that_is_full_before_the_trial(lab: Lab, full_disk: Path) -> None:
    lab.root = full_disk
    with pytest.raises(OSError, match="No space"), open(full_disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    outcome = lab.sh("true")[0]
    assert outcome["error"]["kind"] == "disk full"
    assert "No space left" in outcome["error"]["text"]
    (full_disk / "ballast").unlink()
    assert lab.sh("true")[0]["error"] is None
