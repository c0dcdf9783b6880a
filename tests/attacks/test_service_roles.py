"""Every call of the service, made by one who may not make it: 403, and nothing has changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacked_head import A, AttackedHead
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ledger_service import PEOPLE, token
from ledger_wire import framed, opening

from sweepfw.core.model import Grant
from sweepfw.ledger.wire.access import Access
from sweepfw.ledger.wire.methods import METHODS

B64 = base64.b64encode(b"x").decode()
OUTCOME = {"state": "succeeded", "reason": "", "exit_code": 0, "ended": 5.0, "metrics": {}, "details": {}}
ADVERT = {"slots": 2, "cpus": 2, "memory": None, "gpus": [], "labels": [], "mounts": [], "version": "1"}
ADVERT |= {"python": "3", "disk_free": None, "queue": ""}


# Arguments that calls would be granted with, beside those that are about an attempt.
KNOWN: dict[str, Any] = {
    "attempt": 1,
    "spec": {"project": "p", "task": "t", "command": ["true"]},
    "name": "a-new-name",
    "note": "",
    "provenance": {},
    "only": None,
    "after": 0,
    "limit": 10,
    "slot": "0",
    "claim_id": "new",
    "offset": 0,
    "outcome": OUTCOME | {"again": False},
    "state": "lost",
    "why": "x",
    "reason": "x",
    "trials": None,
    "now": True,
    "but": [],
    "states": ["failed"],
    "seen": 0,
    "wait": 0,
    "numbers": None,
    "objective": {"metric": "loss", "goal": "minimize", "at": "best"},
    "cursor": 0,
    "advert": ADVERT,
    "connected": True,
    "text": "numpy==1",
    "digests": [],
    "id": "6" * 24,
    "log": B64,
    "files": {"f": B64},
    "path": "output.log",
    "host": "a",
    "off": False,
    "values": {"NAME": B64},
}


class World:
    def __init__(self, folder: Path) -> None:
        self.head = AttackedHead(folder)
        self.mine, self.other = self.head.populate()

    def arguments(self, path: str, grant: Grant) -> dict[str, Any]:
        """Such as the call would be granted with, of this attempt's trial and host."""
        known = KNOWN | {
            "uid": grant.uid,
            "token": grant.token,
            "trial": grant.trial if path != "ledger/claim" else 5,
            "worker": {"host": "a" if grant.token == self.mine.token else "b", "boot": "ff"},
            "snapshot": self.head.ledger.sweep(grant.uid).snapshot,
        }
        if path == "ledger/sweep":
            known["name"] = grant.uid
        if path == "ledger/submit":
            known["uid"] = known["name"] = None
        return {name: known[name] for name in METHODS[path].takes}

    def ask(self, path: str, grant: Grant, shown: str) -> int:
        told, kind = self.arguments(path, grant), METHODS[path].body[0]
        if kind == "drafts":
            import json

            body = json.dumps(told).encode() + b'\n[[{"x":"1"},1]]\n'
            lines = opening(f"/{path}", "Connection: close", shown=shown)
            return self.head.send(lines + framed(body)).status
        return self.head.ask(path, told, shown, b"xx" if kind else None).status


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    found = World(tmp_path_factory.mktemp("roles"))
    yield found
    found.head.stop()


def unchanged(world: World, path: str, grant: Grant, shown: str, status: int) -> None:
    before = world.head.content(), world.head.files()
    assert world.ask(path, grant, shown) == status
    assert (world.head.content(), world.head.files()) == before


PEOPLES = sorted(path for path, method in METHODS.items() if method.who == "people")
WORKERS = sorted(path for path, method in METHODS.items() if method.who == "worker")
OF_A_HOST = sorted(
    path
    for path, method in METHODS.items()
    if {"token", "worker"} & set(method.takes) and path not in PEOPLES
)


def test_the_table_is_what_it_should_be() -> None:
    """So that a call that is added is thought about here: workers have no others than these."""
    both = {"ledger/granted", "ledger/sweep", "ledger/running_on"}
    both |= {f"desk/{name}" for name in ("manifest", "contents", "checkpoint")}
    assert {path for path, method in METHODS.items() if method.who == "both"} == both
    # What names no host's: a worker needs it before it has an attempt, or for all of them.
    free = {"ledger/sweep", "desk/environment_lock", "desk/manifest", "desk/contents"}
    assert {*WORKERS, *both} - set(OF_A_HOST) == free
    assert "desk/secrets" in OF_A_HOST and METHODS["desk/secrets"].current
    assert METHODS["desk/environment_lock"].involved


@pytest.mark.parametrize("path", PEOPLES)
def test_what_is_for_people_is_not_for_workers(world: World, path: str) -> None:
    unchanged(world, path, world.mine, token("a"), 403)


@pytest.mark.parametrize("path", WORKERS)
def test_what_is_for_workers_is_not_for_people(world: World, path: str) -> None:
    unchanged(world, path, world.mine, PEOPLE, 403)


@pytest.mark.parametrize("path", OF_A_HOST)
def test_another_hosts_attempts_are_not_a_workers(world: World, path: str) -> None:
    unchanged(world, path, world.other, token("a"), 403)
    unchanged(world, path, world.mine, token("gpu1"), 403)  # nor of one that has none


@pytest.mark.parametrize("path", sorted(METHODS))
@pytest.mark.parametrize("shown", ["", PEOPLE[:-1], f"{token('a')} {PEOPLE}"])
def test_nobody_calls_anything(world: World, path: str, shown: str) -> None:
    assert world.ask(path, world.mine, shown) == 401


def test_nothing_has_changed_but_by_those_who_may(world: World) -> None:
    """The same arguments are granted to whom they belong: so it was the role that was refused."""
    for path in ("ledger/granted", "ledger/renew", "desk/orders", "ledger/running_on", "desk/checkpoint"):
        told = world.arguments(path, world.mine)
        if "worker" in told:
            told["worker"] = A._asdict()
        assert world.head.ask(path, told, token("a")).status in (200, 204), path
    assert world.ask("ledger/append_log", world.mine, token("a")) == 200
    assert world.ask("ledger/pause", world.mine, PEOPLE) == 200
    world.head.check()


def test_who_runs_nothing_of_a_sweep_settles_none_of_its_versions(tmp_path: Path) -> None:
    """Nor fills the head's disk with lists for snapshots that there are not."""
    world = World(tmp_path)
    try:
        uid, snapshot = world.mine.uid, world.mine.snapshot
        given = {"uid": uid, "snapshot": snapshot, "text": "evil==1"}
        assert world.head.ask("desk/environment_lock", given, token("gpu1")).status == 403
        assert world.head.ask("desk/environment_lock", given | {"text": None}, token("a")).told is None
        elsewhere = given | {"snapshot": "7" * 24}
        assert world.head.ask("desk/environment_lock", elsewhere, token("a")).status == 409
        good = given | {"text": "numpy==1"}
        assert world.head.ask("desk/environment_lock", good, token("a")).told == "numpy==1"
    finally:
        world.head.stop()


def test_an_attempt_that_ended_gets_no_secrets_and_stores_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        head, mine, mark = world.head, world.mine, token("a")
        head.desk.put_secrets(mine.uid, {"NAME": b"the-value"})
        assert head.ask("desk/secrets", {"token": mine.token}, mark).told == {
            "NAME": base64.b64encode(b"the-value").decode()
        }
        assert "the-value" not in str(head.ask("desk/secrets", {"token": mine.token}, PEOPLE))
        assert "the-value" not in str(head.ask("desk/secrets", {"token": mine.token}, token("b")))
        finish = {"token": mine.token, "outcome": OUTCOME | {"again": False}}
        assert head.ask("ledger/finish", finish, mark).told["accepted"] is True
        for _ in range(3):  # replayed, also with another end
            assert head.ask("ledger/finish", finish, mark).told["accepted"] is True
            failed = {"token": mine.token, "outcome": OUTCOME | {"state": "failed", "again": True}}
            assert head.ask("ledger/finish", failed, mark).told["trial_state"] == "succeeded"
        assert head.ask("desk/secrets", {"token": mine.token}, mark).status in (403, 409)
        stored = head.ask("desk/put_checkpoint", {"token": mine.token}, mark, b"late")
        assert stored.told is False
        claim = {"uid": mine.uid, "trial": 1, "worker": A._asdict(), "slot": "0", "claim_id": "again"}
        assert "denial" in head.ask("ledger/claim", claim, mark).told
        head.check()
    finally:
        world.head.stop()


# -- tokens --------------------------------------------------------------------------------------------


@settings(max_examples=300, derandomize=True, database=None)
@given(st.text(st.characters(codec="utf-8"), max_size=30), st.data())
@example("", None)
def test_no_token_but_the_whole_one_is_taken(noise: str, data: Any) -> None:
    """Beginnings, ends, other cases, more: nothing that is nearly a token is one."""
    right = "Ab3" + "0" * 29
    access = Access(right, {"a": "c" * 32})
    shown = noise
    if data is not None:
        at = data.draw(st.integers(0, len(right)))
        kind = data.draw(st.sampled_from(["begin", "end", "insert", "swap", "twice"]))
        shown = {
            "begin": right[:at],
            "end": right[at:],
            "insert": right[:at] + noise + right[at:],
            "swap": right.swapcase(),
            "twice": right + right,
        }[kind]
    caller = access.caller(f"Bearer {shown}")
    assert (caller is not None) == (shown.strip() == right)
    for scheme in ("Basic", "Digest", "Bearer:", "", "bearer\0"):
        assert access.caller(f"{scheme} {right}") is None
