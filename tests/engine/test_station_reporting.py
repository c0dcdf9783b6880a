"""The order in which an attempt's end is told, and what keeps none of it back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Grant, Outcome, Receipt, Spec
from sweepfw.engine import shipping
from sweepfw.engine.host import trials_environment
from sweepfw.engine.shipping import Head, LogLine, Reporting
from sweepfw.errors import DiskFullError, SweepError, UnreachableError

SPEC = Spec("p", "t", ("true",), log_limit=100)
GRANT = Grant("p-1", "uid", 1, 1, "token", {}, 1, "snapshot")


class Doors:
    """Ledger and desk in one, which write down what they are told; `trouble` is raised where it is put."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.log = b""
        self.trouble: dict[str, list[Exception]] = {}

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if self.trouble.get(what):
            raise self.trouble[what].pop(0)

    def append_log(self, token: str, offset: int, data: bytes) -> int:
        self._tell("log")
        assert offset <= len(self.log)
        self.log = self.log + data[len(self.log) - offset :]
        return len(self.log)

    def keep(self, token: str, pack: Any) -> None:
        self._tell("files")

    def conclude(
        self, token: str, offset: int, log: bytes, files: dict[str, bytes], outcome: Outcome
    ) -> Receipt:
        self._tell("conclude")
        assert offset == len(self.log)
        self.log, self.files, self.outcome = self.log + log, files, outcome
        return Receipt(True, True, "succeeded")

    def finish(self, token: str, outcome: Outcome) -> Receipt:
        self._tell("finish")
        self.outcome = outcome
        return Receipt(True, True, "succeeded")


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
def head(doors: Doors, tmp_path: Path) -> Head:
    doors_: Any = doors
    return Head(doors_, doors_, threading.Event(), doors.told.append, tmp_path)


@pytest.fixture
def reporting(head: Head, doors: Doors, tmp_path: Path) -> Callable[[], Reporting]:
    def make() -> Reporting:
        folder = tmp_path / "attempt"
        folder.mkdir()
        (folder / "output.log").write_bytes(b"x" * 70)
        (folder / "params.json").write_text("{}")
        before = lambda _: doors.told.append("checkpoint")  # noqa: E731
        release = lambda: doors.told.append("release")  # noqa: E731
        return Reporting(head, GRANT, SPEC, str(folder), "a", before=before, release=release)

    return make


@pytest.fixture
def piecewise(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that attempts leave here is more than is told in one call."""
    monkeypatch.setattr(shipping, "LITTLE", 69)


def test_a_small_end_is_told_in_one_call_once_the_slot_is_free(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    made = reporting()
    doors.log = b"x" * 30
    made.log._offset = 30
    assert made.finish("token", Outcome("succeeded")).accepted
    assert doors.told == ["checkpoint", "release", "conclude", "release"]
    assert doors.log == b"x" * 70 and doors.files == {"params.json": b"{}"}
    assert "files_on" not in doors.outcome.details and doors.outcome.ended


def test_a_small_end_with_something_that_is_refused_is_told_piece_by_piece(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    doors.trouble = {"conclude": [SweepError("no")], "files": [SweepError("no")]}
    reporting().finish("token", Outcome("succeeded"))
    assert doors.told[:5] == ["checkpoint", "release", "conclude", "log", "files"]
    assert doors.told[-1] == "finish" and doors.log == b"x" * 70
    assert doors.outcome.details == {"files_on": "a"}


def test_a_silent_head_keeps_a_small_end_for_the_next_worker(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    doors.trouble = {"conclude": [UnreachableError("away")]}
    with pytest.raises(UnreachableError):
        reporting().finish("token", Outcome("succeeded"))
    assert doors.told == ["checkpoint", "release", "conclude", "release"]


@pytest.mark.parametrize("large", ["output", "files", "many", "unknown", "link"])
def test_an_end_that_is_not_small_goes_piece_by_piece(
    reporting: Callable[[], Reporting], doors: Doors, tmp_path: Path, large: str
) -> None:
    made, files = reporting(), tmp_path / "attempt" / "files"
    files.mkdir()
    if large == "output":
        (tmp_path / "attempt" / "output.log").write_bytes(b"x" * (shipping.LITTLE + 1))
    elif large == "files":
        (files / "a").write_bytes(b"x" * (shipping.LITTLE + 1))
    elif large == "many":
        for number in range(shipping.FEW + 1):
            (files / str(number)).touch()
    elif large == "unknown":  # what the head has
        made.log._offset = -1
    else:
        (files / "link").symlink_to("/etc/passwd")
    made.finish("token", Outcome("succeeded"))
    assert "conclude" not in doors.told and doors.told[-3:] == ["files", "release", "finish"]


@pytest.mark.usefixtures("piecewise")
def test_the_slot_is_free_before_the_head_may_send_the_next_trial(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    reporting().finish("token", Outcome("succeeded"))
    assert doors.told == ["checkpoint", "log", "files", "release", "finish"]
    assert doors.log == b"x" * 70 and "files_on" not in doors.outcome.details


@pytest.mark.usefixtures("piecewise")
def test_what_the_head_refuses_does_not_hold_up_the_end(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    doors.trouble = {"log": [SweepError("no")] * 9, "files": [SweepError("no")]}
    reporting().finish("token", Outcome("succeeded"))
    assert doors.told[-2:] == ["release", "finish"]
    assert doors.outcome.details == {"files_on": "a"}


@pytest.mark.usefixtures("piecewise")
def test_a_worker_that_ends_leaves_all_of_it_to_the_next(
    reporting: Callable[[], Reporting], doors: Doors
) -> None:
    doors.trouble = {"files": [UnreachableError("away")]}
    with pytest.raises(UnreachableError):
        reporting().finish("token", Outcome("succeeded"))
    assert doors.told == ["checkpoint", "log", "files", "release"]


@pytest.mark.usefixtures("piecewise")
def test_a_full_disk_at_the_head_is_waited_for(
    reporting: Callable[[], Reporting], doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweepfw.engine.shipping._PAUSE", 0.01)
    doors.trouble = {what: [DiskFullError("full")] * 3 for what in ("log", "files", "finish")}
    reporting().finish("token", Outcome("succeeded"))
    assert doors.told.count("finish") == 4 and doors.log == b"x" * 70


def test_only_the_part_of_a_log_that_stays_is_sent_while_it_grows(
    head: Head, doors: Doors, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    line = LogLine(head, "token", str(path), 100)
    line.send()
    assert doors.told == []  # there is none yet
    path.write_bytes(b"a" * 30)
    line.send()
    assert doors.log == b"a" * 30
    path.write_bytes(b"a" * 80)
    line.send()
    assert doors.log == b"a" * 50
    path.write_bytes(b"a" * 50 + b"mark" + b"b" * 50)
    line.send(ended=True)
    assert doors.log == b"a" * 50 + b"mark" + b"b" * 50


def test_a_head_that_lost_the_end_of_a_log_gets_it_again(head: Head, doors: Doors, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    line = LogLine(head, "token", str(path), 100)
    line.send()
    doors.log = doors.log[:4]
    path.write_bytes(b"0123456789abc")
    doors.trouble = {"log": [SweepError("bytes from 10 on don't join the log")]}
    line.send()
    assert doors.log == b"0123456789abc"


def test_a_successor_asks_what_the_head_has(head: Head, doors: Doors, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    doors.log = b"01234"
    LogLine(head, "token", str(path), 100, begun=True).send(ended=True)
    assert doors.log == b"0123456789" and doors.told == ["log", "log"]


def test_trials_get_the_images_variables_and_a_home(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    place.prepare()
    there = {"PATH": "/bin", "CUDA_HOME": "/cuda", "SWEEPFW_X": "1", "CELERY_Y": "1", "HOME": "/nowhere"}
    home = str(tmp_path / ".sweepfw/home")
    assert trials_environment(there, place) == {"PATH": "/bin", "CUDA_HOME": "/cuda", "HOME": home}
    assert Path(home).is_dir()
    assert trials_environment({"HOME": str(tmp_path)}, place)["HOME"] == str(tmp_path)
