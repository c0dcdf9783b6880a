"""Secrets on the head: where they lie, who gets them, when they go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from head_place import A, B, Place

from sweepfw.config.secrets import LARGEST
from sweepfw.core.model import Outcome
from sweepfw.core.secrets import Secrets
from sweepfw.engine.secrets import ALL, ORPHANED, SecretStore
from sweepfw.errors import SweepError

UID, OTHER = "0123456789abcdef", "fedcba9876543210"
VALUES = {"KEY": b"hunter2-\xff\0", "pip.conf": b"[global]\n"}


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / "head")
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    (tmp_path / "state").mkdir()
    return SecretStore(tmp_path / "state" / "secrets")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


def test_they_lie_for_nobody_but_us_whatever_the_umask(store: SecretStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store.put(UID, VALUES)
    finally:
        os.umask(before)
    folder = tmp_path / "state" / "secrets"
    assert files(folder) == {UID, f"{UID}/KEY", f"{UID}/pip.conf"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / UID)}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / UID).iterdir()} == {0o600}
    assert dict(store.get(UID) or {}) == VALUES


def test_the_last_given_count_and_those_before_are_gone(store: SecretStore, tmp_path: Path) -> None:
    store.put(UID, VALUES)
    store.put(OTHER, {"A": b"1"})
    place = tmp_path / "state" / "secrets" / UID
    (place / ".KEY").write_bytes(b"half of it")  # what a head that died left
    assert store.get(UID) == VALUES
    store.put(UID, {"KEY": b"", "NEW": b"2"})
    assert files(place) == {"KEY", "NEW"}
    assert store.get(UID) == {"KEY": b"", "NEW": b"2"}
    assert store.get(OTHER) == {"A": b"1"}
    store.forget(UID)
    assert store.get(UID) is None
    assert files(place.parent) == {OTHER, f"{OTHER}/A"}


@pytest.mark.parametrize(
    ("uid", "values"),
    [
        ("..", {}),
        ("../../x", {"A": b""}),
        (UID.upper(), {"A": b""}),
        (UID, {"../KEY": b""}),
        (UID, {".KEY": b""}),
        (UID, {"": b""}),
        (UID, {"a\n": b""}),
        (UID, {"x" * 101: b""}),
        (UID, {"A": b"?" * (LARGEST + 1)}),
        (UID, {f"A{i}": b"?" * LARGEST for i in range(ALL // LARGEST + 1)}),
        (UID, {f"A{i}": b"" for i in range(1001)}),
    ],
)
def test_what_can_not_be_kept_is_refused_and_nothing_is_made(
    store: SecretStore, tmp_path: Path, uid: str, values: dict[str, bytes]
) -> None:
    with pytest.raises(SweepError) as told:
        store.put(uid, values)
    assert "\n" not in str(told.value) and "?" * 10 not in str(told.value)
    assert files(tmp_path) == {"state"}


def test_as_much_as_there_may_be(store: SecretStore) -> None:
    values = {f"A{i}": bytes(LARGEST) for i in range(ALL // LARGEST)}
    store.put(UID, values)
    assert store.get(UID) == values


def test_only_the_attempt_that_runs_gets_them(head: Place) -> None:
    sweep = head.submit()
    head.desk.put_secrets(sweep.uid, VALUES)
    grant = head.claim(sweep)
    given = head.desk.secrets(grant.token)
    assert dict(given) == VALUES and isinstance(given, Secrets)
    head.ledger.finish(grant.token, Outcome("failed", again=True))
    with pytest.raises(SweepError, match="this token's does not"):
        head.desk.secrets(grant.token)
    second = head.claim(sweep, worker=B)
    assert dict(head.desk.secrets(second.token)) == VALUES
    for token in (grant.token, "0" * 16, "", "../" + sweep.uid):
        with pytest.raises(SweepError, match="this token's does not"):
            head.desk.secrets(token)


def test_who_gave_none_is_told_so(head: Place) -> None:
    grant = head.claim(head.submit())
    with pytest.raises(SweepError, match=r"are not at the head; send them with: sweepfw retry p-1"):
        head.desk.secrets(grant.token)


def test_another_sweeps_secrets_are_its_own(head: Place) -> None:
    one, other = head.submit(), head.submit()
    head.desk.put_secrets(one.uid, {"A": b"one"})
    head.desk.put_secrets(other.uid, {"A": b"other"})
    assert dict(head.desk.secrets(head.claim(other).token)) == {"A": b"other"}


def test_they_outlive_the_head_and_go_with_the_sweep(head: Place) -> None:
    sweep, left = head.submit(), head.submit()
    head.desk.put_secrets(sweep.uid, VALUES)
    head.desk.put_secrets(left.uid, VALUES)
    folder = head.place.state / "secrets"
    head.close()
    again = Place(head.place.root)
    try:
        assert dict(again.desk.secrets(again.claim(sweep, worker=A).token)) == VALUES
        again.ledger.stop(sweep.uid, now=True)
        again.desk.forget(sweep.uid)
        assert {path.name for path in folder.iterdir()} == {left.uid}
    finally:
        again.close()


def test_they_are_in_nothing_that_comes_home(head: Place) -> None:
    sweep = head.submit()
    head.desk.put_secrets(sweep.uid, {"KEY": b"a-canary-that-sings"})
    head.claim(sweep)
    head.ledger.flush()
    found = [path for path in head.place.root.rglob("*") if path.is_file()]
    holding = [path for path in found if b"a-canary-that-sings" in path.read_bytes()]
    assert holding == [head.place.state / "secrets" / sweep.uid / "KEY"]


def test_what_came_for_a_sweep_that_never_did_goes_after_a_day(head: Place) -> None:
    sweep = head.submit()
    head.desk.put_secrets(sweep.uid, VALUES)
    head.desk.put_secrets(UID, VALUES)  # its sweep is on its way
    folder = head.place.state / "secrets"
    for after, left in ((ORPHANED / 2, {sweep.uid, UID}), (ORPHANED * 2, {sweep.uid})):
        now = folder.stat().st_mtime + after
        SecretStore(folder, clock=lambda now=now: now).tidy({sweep.uid})
        assert {path.name for path in folder.iterdir()} == left
    head.desk.put_secrets(UID, VALUES)
    os.utime(folder / UID, (1, 1))
    head.desk.put_secrets(OTHER, VALUES)
    assert {path.name for path in folder.iterdir()} == {sweep.uid, OTHER}
    head.desk.put_secrets(OTHER, {})
    assert {path.name for path in folder.iterdir()} == {sweep.uid}
