"""The head's desk: workers and their orders, snapshots, and what people ask."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from head_place import A2, ADVERT, A, B, Place

from sweepfw import snapshot as snapshots
from sweepfw.core.model import Outcome
from sweepfw.engine import keeping
from sweepfw.engine.roster import Roster
from sweepfw.errors import SweepError
from sweepfw.snapshot import transfer


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / "head")
    yield found
    found.close()


# -- workers -------------------------------------------------------------------------------------------


def test_a_stop_reaches_its_worker_at_once(head: Place) -> None:
    sweep = head.submit()
    head.desk.announce(A, ADVERT)
    head.desk.announce(B, ADVERT)
    mine, other = head.claim(sweep, 1, A), head.claim(sweep, 2, B)
    first = head.desk.orders(A, 0, 0)
    assert not first.stop
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.append(head.desk.orders(A, first.seen, 120)))
    thread.start()
    time.sleep(0.2)
    head.ledger.stop(sweep.uid, [1], now=True)
    thread.join(60)
    assert not thread.is_alive()
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
    head.desk.orders(A, seen, 120, connected=False)
    assert time.monotonic() - begun < 60
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
        orders = new.desk.orders(A, seen, 120)
        assert time.monotonic() - begun < 60  # at once: what an earlier head told is not the newest
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


# -- people --------------------------------------------------------------------------------------------


def test_a_log_is_read_as_it_comes_to_its_end(head: Place) -> None:
    grant = head.claim(sweep := head.submit())
    assert head.desk.read_log(sweep.uid, 1, 1, 0) == (b"", False)
    timer = threading.Timer(0.2, head.ledger.append_log, (grant.token, 0, b"hello\n"))
    timer.start()
    assert head.desk.read_log(sweep.uid, 1, 1, 0, wait=120) == (b"hello\n", False)
    timer = threading.Timer(0.2, head.ledger.finish, (grant.token, Outcome("succeeded")))
    timer.start()
    assert head.desk.read_log(sweep.uid, 1, 1, 6, wait=120) == (b"", True)
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
    orders = head.desk.orders(A, seen, 120)
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
