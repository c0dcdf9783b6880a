"""The head's desk: orders, what attempts leave, and what hosts that are not believed may send."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import Advert
from sweepfw.core.gpus import Gpu
from sweepfw.core.model import Draft, Grant, Outcome, Receipt, Spec, Sweep, Worker
from sweepfw.engine import keeping
from sweepfw.engine.desk import HeadDesk
from sweepfw.engine.leases import LeasedLedger, Leases
from sweepfw.engine.publisher import Publisher
from sweepfw.engine.roster import Roster
from sweepfw.engine.scheduler import Scheduler
from sweepfw.errors import SweepError
from sweepfw.snapshot import transfer

A, A2, B = Worker("a", "a1"), Worker("a", "a2"), Worker("b", "b1")
ADVERT = Advert(
    2, 2, gpus=(Gpu(0, "GPU-0", "A100", 80, 1, (7,)),), labels=("x",), mounts=("/data",), queue="q"
)


class Place:
    """A desk without a broker, on a folder that outlives it."""

    def __init__(self, root: Path) -> None:
        self.place = Workspace(root)
        root.mkdir(exist_ok=True)
        self.place.prepare()
        self.ledger = LeasedLedger(self.place.ledger, self.place.runs, Leases(300))
        self.roster = Roster(self.place.state / "workers.json", ("a", "b"), 30)
        self.scheduler = Scheduler(self.ledger, self.roster, Publisher("amqp://127.0.0.1:1/x"))
        self.desk = HeadDesk(self.place, self.ledger, self.roster, self.scheduler, deployment="d", uid="u")

    def submit(self, trials: int = 3) -> Sweep:
        return self.ledger.submit(
            Spec("p", "t", ("true",)), "5" * 24, [Draft({}, n) for n in range(1, trials + 1)]
        )

    def claim(self, sweep: Sweep, trial: int = 1, worker: Worker = A) -> Grant:
        grant = self.ledger.claim(sweep.uid, trial, worker, "0", os.urandom(4).hex())
        assert isinstance(grant, Grant)
        return grant

    def close(self) -> None:
        self.desk.end()
        self.ledger.disconnect()


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


# -- workers -------------------------------------------------------------------------------------------


def test_a_stop_reaches_its_worker_at_once(head: Place) -> None:
    sweep = head.submit()
    head.desk.announce(A, ADVERT)
    head.desk.announce(B, ADVERT)
    mine, other = head.claim(sweep, 1, A), head.claim(sweep, 2, B)
    first = head.desk.orders(A, 0, 0)
    assert not first.stop
    told: list[Any] = []
    begun = time.monotonic()
    thread = threading.Thread(target=lambda: told.append(head.desk.orders(A, first.seen, 30)))
    thread.start()
    time.sleep(0.2)
    head.ledger.stop(sweep.uid, [1], now=True)
    thread.join(10)
    assert time.monotonic() - begun < 8
    assert told[0].stop == {mine.token: "stop now"}
    assert head.desk.orders(B, 0, 0).stop == {}
    head.ledger.stop(sweep.uid)
    assert head.desk.orders(B, 0, 0).stop == {other.token: "stop"}
    assert head.desk.orders(A, told[0].seen, 0) == told[0]  # nothing new: the same


def test_a_question_without_news_takes_as_long_as_it_may(head: Place) -> None:
    head.desk.announce(A, ADVERT)
    seen = head.desk.orders(A, 0, 0).seen
    begun = time.monotonic()
    assert head.desk.orders(A, seen, 0.5).seen == seen
    assert time.monotonic() - begun >= 0.5


def test_who_lost_the_broker_is_asked_again_soon(head: Place) -> None:
    head.desk.announce(A, ADVERT)
    seen = head.desk.orders(A, 0, 0).seen
    begun = time.monotonic()
    head.desk.orders(A, seen, 30, connected=False)
    assert time.monotonic() - begun < 10
    assert not head.desk.status().workers[0].alive
    head.desk.orders(A, seen, 0, connected=True)
    assert head.desk.status().workers[0].alive


def test_who_was_replaced_has_to_end_and_does_not_count_as_alive(head: Place) -> None:
    head.desk.announce(A, ADVERT)
    head.desk.announce(A2, ADVERT)
    assert head.desk.orders(A, 0, 0).drain
    assert not head.desk.orders(A2, 0, 0).drain
    with pytest.raises(SweepError):
        head.desk.announce(A, ADVERT)
    assert head.desk.status().workers[0].worker == A2


def test_a_new_head_knows_the_workers_and_their_orders(head: Place, tmp_path: Path) -> None:
    sweep = head.submit()
    head.desk.announce(A, ADVERT)
    grant = head.claim(sweep)
    seen = head.desk.orders(A, 0, 0).seen
    head.ledger.stop(sweep.uid)
    head.close()
    new = Place(tmp_path / "head")
    try:
        assert [each.alive for each in new.desk.status().workers] == [False]
        begun = time.monotonic()
        orders = new.desk.orders(A, seen, 30)
        assert time.monotonic() - begun < 10  # at once: what an earlier head told is not the newest
        assert orders.stop == {grant.token: "stop"}
        [worker] = new.desk.status().workers
        assert (worker.alive, worker.advert) == (True, ADVERT._replace(queue="sweepfw.u.a.a1"))
        with pytest.raises(SweepError, match="announce it first"):
            new.desk.orders(B, 0, 0)
    finally:
        new.close()


def test_a_drained_host_stays_so_over_a_new_head(head: Place, tmp_path: Path) -> None:
    head.desk.announce(A, ADVERT)
    head.desk.drain("a")
    with pytest.raises(SweepError, match="no worker of this deployment; there are: a"):
        head.desk.drain("c")
    head.close()
    new = Place(tmp_path / "head")
    try:
        new.desk.announce(A2, ADVERT)
        assert new.desk.status().workers[0].draining
        assert not new.roster.ready()
        new.desk.drain("a", off=True)
        assert new.roster.ready()
    finally:
        new.close()


def test_the_first_list_of_versions_stands(head: Place) -> None:
    sweep = head.submit()
    assert head.desk.environment_lock(sweep.uid, "5" * 24, None) is None
    given = ["numpy==1\n", "numpy==2\n"]
    answers: list[str | None] = []
    threads = [
        threading.Thread(
            target=lambda t=text: answers.append(head.desk.environment_lock(sweep.uid, "5" * 24, t))
        )
        for text in given
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1] in given
    assert head.desk.environment_lock(sweep.uid, "5" * 24, None) == answers[0]
    with pytest.raises(SweepError):
        head.desk.environment_lock(sweep.uid, "../../x", "text")


# -- snapshots -----------------------------------------------------------------------------------------


def test_a_snapshot_comes_and_goes_whole(head: Place, tmp_path: Path) -> None:
    project, store = tmp_path / "project", tmp_path / "store"
    project.mkdir()
    (project / "train.py").write_text("print(1)\n")
    frozen = snapshots.freeze(project, store, 10**6)
    digests = transfer.listed(store, frozen.id)
    text = snapshots.manifest(store, frozen.id).read_bytes()
    assert head.desk.lacks(digests) == set(digests)
    with pytest.raises(SweepError, match="contents are not here"):
        head.desk.put_manifest(frozen.id, text)
    head.desk.put_contents(transfer.reader(transfer.pack(store, digests)))
    head.desk.put_manifest(frozen.id, text)
    assert head.desk.lacks(digests) == set()
    assert head.desk.manifest(frozen.id) == text
    other = tmp_path / "other"
    transfer.unpack(other, transfer.reader(head.desk.contents(digests)))
    assert transfer.lacking(other, digests) == set()
    for wrong in ("0" * 24, "../../../etc/passwd"):
        with pytest.raises(SweepError, match="no such snapshot"):
            head.desk.manifest(wrong)
    with pytest.raises(SweepError, match="no such content"):
        head.desk.contents(["0" * 64])


# -- what attempts leave -------------------------------------------------------------------------------


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


# -- people --------------------------------------------------------------------------------------------


def test_a_log_is_read_as_it_comes_to_its_end(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    assert head.desk.read_log(sweep.uid, 1, 1, 0) == (b"", False)
    timer = threading.Timer(0.2, head.ledger.append_log, (grant.token, 0, b"hello\n"))
    timer.start()
    assert head.desk.read_log(sweep.uid, 1, 1, 0, wait=30) == (b"hello\n", False)
    timer = threading.Timer(0.2, head.ledger.finish, (grant.token, Outcome("succeeded")))
    timer.start()
    assert head.desk.read_log(sweep.uid, 1, 1, 6, wait=30) == (b"", True)
    assert head.desk.read_log(sweep.uid, 1, 1, 0) == (b"hello\n", True)
    assert head.desk.read_log(sweep.uid, 1, 1, 99) == (b"", True)
    assert head.desk.read_log(sweep.uid, 1, 1, -5).data == b"hello\n"


def test_a_long_log_comes_in_parts(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    data = os.urandom(keeping.PIECE * 2 + 5)
    head.ledger.append_log(grant.token, 0, data)
    head.ledger.finish(grant.token, Outcome("succeeded"))
    found, ended = b"", False
    while not ended:
        part = head.desk.read_log(sweep.uid, 1, 1, len(found))
        found, ended = found + part.data, part.ended
    assert found == data


def test_a_sweep_is_forgotten_here_and_its_workers_hear_of_it(head: Place, tmp_path: Path) -> None:
    sweep = head.submit()
    head.desk.announce(A, ADVERT)
    grant = head.claim(sweep)
    head.ledger.append_log(grant.token, 0, b"x")
    seen = head.desk.orders(A, 0, 0).seen
    head.desk.forget(sweep.uid)
    orders = head.desk.orders(A, seen, 30)
    assert orders.forget == (sweep.name,)
    assert orders.stop == {grant.token: "stop now"}
    assert not list(head.place.runs.iterdir())
    with pytest.raises(SweepError):
        head.ledger.sweep(sweep.uid)
    head.close()
    new = Place(tmp_path / "head")
    assert new.desk.orders(A, 0, 0).forget == (sweep.name,)
    new.close()


def test_the_status_tells_what_there_is(head: Place) -> None:
    sweep = head.submit(5)
    head.desk.announce(A, ADVERT)
    head.claim(sweep)
    status = head.desk.status()
    assert (status.deployment, status.uid, status.broker) == ("d", "u", False)
    assert (status.queued, status.running) == (4, 1)
    assert status.disk_free and status.disk_free > 0
    [worker] = status.workers
    assert worker.running == ((sweep.name, 1, 1, "0"),)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"workers": [["a"]], "drained": []}'])
def test_a_torn_roster_is_made_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "workers.json"
    file.write_text(text)
    roster = Roster(file, ("a",), 30)
    assert roster.all() == []
    roster.announce(A, ADVERT)
    assert [member.advert for member, *_ in Roster(file, ("a",), 30).all()] == [ADVERT]
    assert Roster(file, ("b",), 30).all() == []  # the host is no part of the deployment any more


def test_who_is_silent_is_no_more_counted_on(tmp_path: Path) -> None:
    now = [0.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    roster = Roster(tmp_path / "w", ("a",), 30, clock)
    roster.announce(A, ADVERT)
    now[0] = 30
    assert roster.ready()
    now[0] = 31
    assert not roster.ready()
    assert roster.heard(A, connected=True)[1]
    assert not roster.heard(A, connected=True)[1]  # nothing new
