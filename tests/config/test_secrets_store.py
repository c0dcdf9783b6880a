"""The user's secrets in the state folder: theirs alone, and what is missing is said with what to type."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sweepfw.config.secrets import LARGEST, gather, lacking, remove, store, stored
from sweepfw.config.workspace import state_home
from sweepfw.core.secrets import NONE, Need
from sweepfw.errors import SweepError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_stored_for_the_owner_alone(umask: int) -> None:
    state_home().mkdir(parents=True)
    before = os.umask(umask)
    try:
        store("KEY", b"hunter22")
        store("KEY", b"hunter23\n")
    finally:
        os.umask(before)
    folder = state_home() / "secrets"
    assert (mode(folder), mode(folder / "KEY")) == (0o700, 0o600)
    assert [(each.name, each.bytes) for each in stored()] == [("KEY", 9)]
    assert gather([Need("KEY", "env")]) == {"KEY": b"hunter23\n"}


def test_others_could_have_read_it() -> None:
    store("KEY", b"hunter22")
    path = state_home() / "secrets/KEY"
    path.chmod(0o640)
    with pytest.raises(SweepError, match=f"chmod 600 {path}, and if somebody may have read it, set it anew"):
        gather([Need("KEY", "env")])
    path.chmod(0o600)
    path.parent.chmod(0o730)
    with pytest.raises(SweepError, match="chmod 700"):
        gather([Need("KEY", "env")])


def test_removed_all_or_none() -> None:
    store("A", b"aaaaaa")
    store("B", b"bbbbbb")
    with pytest.raises(SweepError, match="there is no secret 'C'; known: A, B"):
        remove(["A", "C"])
    remove(["A", "A"])
    assert [each.name for each in stored()] == ["B"]
    remove(["B"])
    assert stored() == []


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", ".a", "1a", "a" * 101, "a\n", "é"])
def test_names_that_can_t_be(name: str) -> None:
    with pytest.raises(SweepError, match="can't be a secret's name"):
        store(name, b"hunter22")


def test_values_that_can_t_be() -> None:
    with pytest.raises(SweepError, match="secret A: the value is empty"):
        store("A", b" \n")
    with pytest.raises(SweepError, match="secret A: more than 1,000,000 bytes"):
        store("A", b"a" * (LARGEST + 1))
    store("A", b"a\0b")
    with pytest.raises(SweepError, match=r"a variable can't hold a NUL byte; .* A: file"):
        gather([Need("A", "env")])
    assert gather([Need("A", "file")]) == {"A": b"a\0b"}
    store("A", b"a" * 100_001)
    with pytest.raises(SweepError, match="100,001 bytes are too many for a variable"):
        gather([Need("A", "env")])


def test_what_is_missing_is_named_with_what_to_type(tmp_path: Path) -> None:
    store("A", b"aaaaaa")
    needs = [Need("A", "env"), Need("B", "env"), Need("C", "file", str(tmp_path / "c"))]
    assert lacking(needs) == ["B", "C"]
    with pytest.raises(SweepError) as caught:
        gather(needs)
    assert str(caught.value) == (
        f"the secrets B, C (nor is there {tmp_path}/c) are needed and not stored; "
        "store them with: sweepfw secret set B, sweepfw secret set C"
    )
    with pytest.raises(SweepError, match=r"the secret B is needed and not stored; .* sweepfw secret set B$"):
        gather(needs[:2])
    assert gather([]) is NONE


def test_a_file_that_the_project_names_is_read_where_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    need = Need("pip.conf", "file", "~/pip.conf")
    (tmp_path / "pip.conf").write_bytes(b"[global]\n")
    assert gather([need]) == {"pip.conf": b"[global]\n"}
    store("pip.conf", b"stored\n")
    assert gather([need]) == {"pip.conf": b"stored\n"}
