"""Our line in authorized_keys: there once or not at all, and nothing else is touched. With the real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sweepfw.core.command import Cmd
from sweepfw.fleet import authorized

UID = "c0ffee0123456789c0ffee0123456789"
TAG, OTHER = authorized.tag(UID, "1" * 32), authorized.tag(UID, "2" * 32)
LINE = authorized.line("ssh-ed25519 AAAA", "/usr/bin/docker", "sweepfw-t-c0ffee-worker", TAG)


def run(command: Cmd, home: Path) -> None:
    done = subprocess.run(
        command.reveal(), env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh" / "authorized_keys"


@pytest.mark.parametrize(
    "before", ["", "ssh-rsa A me\n", '# note\n\nssh-rsa A me\ncommand="x" ssh-rsa B you']
)
def test_there_and_away(keys: Path, tmp_path: Path, before: str) -> None:
    keys.write_text(before)
    keys.chmod(0o640)
    for _ in range(2):
        run(authorized.put(TAG, LINE), tmp_path)
    whole = before if before.endswith("\n") or not before else f"{before}\n"
    assert keys.read_text() == f"{whole}{LINE}\n"
    assert keys.stat().st_mode & 0o777 == 0o640
    run(authorized.put(TAG, LINE.replace("AAAA", "BBBB")), tmp_path)
    assert keys.read_text() == f"{whole}{LINE.replace('AAAA', 'BBBB')}\n"
    for _ in range(2):
        run(authorized.remove(TAG), tmp_path)
    assert (keys.read_text() if keys.exists() else "") == whole
    assert keys.exists() or not before  # an empty file has served
    assert [each.name for each in keys.parent.glob("*")] == ([keys.name] if before else [])


def test_a_shared_home_holds_a_line_for_each_host(keys: Path, tmp_path: Path) -> None:
    other = LINE.replace(TAG, OTHER)
    run(authorized.put(TAG, LINE), tmp_path)
    run(authorized.put(OTHER, other), tmp_path)
    run(authorized.remove(TAG), tmp_path)
    assert keys.read_text() == f"{other}\n"


def test_hosts_that_share_a_home_take_turns(keys: Path, tmp_path: Path) -> None:
    """Also where they all find what one left that was killed in its turn."""
    keys.write_text("ssh-rsa A me\n")
    (keys.parent / ".sweepfw.lock").mkdir()
    tags = [authorized.tag(UID, f"{n:08}") for n in range(12)]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    def all_of(commands: list[Cmd]) -> None:
        started = [subprocess.Popen(each.reveal(), env=environment) for each in commands]
        assert [each.wait(300) for each in started] == [0] * len(tags)

    all_of([authorized.put(tag, LINE.replace(TAG, tag)) for tag in tags])
    assert sorted(keys.read_text().splitlines()) == sorted(
        ["ssh-rsa A me", *(LINE.replace(TAG, tag) for tag in tags)]
    )
    all_of([authorized.remove(tag) for tag in tags])
    assert keys.read_text() == "ssh-rsa A me\n"
    assert [each.name for each in keys.parent.iterdir()] == [keys.name]


@pytest.mark.parametrize("removing", [False, True])
def test_who_stood_still_while_others_had_a_turn_begins_anew(
    keys: Path, tmp_path: Path, wait_until: Callable[..., None], removing: bool
) -> None:
    """It stops where it has read the file and is about to replace it, or to remove it."""
    keys.write_text(f"{LINE}\n" if removing else "ssh-rsa A me\n")
    programs, stands, goes = tmp_path / "programs", tmp_path / "stands", tmp_path / "goes"
    programs.mkdir()
    stop = f'touch {stands}; while [ ! -e {goes} ]; do sleep 0.05; done; exec {shutil.which("cmp")} "$@"\n'
    (programs / "cmp").write_text(f"#!/bin/sh\n{stop}")
    (programs / "cmp").chmod(0o755)
    still = (authorized.remove(TAG) if removing else authorized.put(TAG, LINE)).reveal()
    environment = {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    with subprocess.Popen(still, env=environment) as process:
        wait_until(stands.exists)
        (keys.parent / ".sweepfw.lock").rmdir()  # as who waited for 10 s does
        other = LINE.replace(TAG, OTHER)
        run(authorized.put(OTHER, other), tmp_path)
        goes.touch()
        assert process.wait(60) == 0
    lines = [other] if removing else ["ssh-rsa A me", other, LINE]
    assert keys.read_text().splitlines() == lines
    assert [each.name for each in keys.parent.iterdir()] == [keys.name]


def test_made_where_there_is_none(tmp_path: Path) -> None:
    run(authorized.remove(TAG), tmp_path)
    assert not (tmp_path / ".ssh").exists()
    run(authorized.put(TAG, LINE), tmp_path)
    keys = tmp_path / ".ssh" / "authorized_keys"
    assert keys.read_text() == f"{LINE}\n"
    assert (keys.parent.stat().st_mode & 0o777, keys.stat().st_mode & 0o777) == (0o700, 0o600)
    run(authorized.remove(TAG), tmp_path)
    assert not (tmp_path / ".ssh").exists()


def test_a_link_stays_one(keys: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles"
    real.write_text("ssh-rsa A me\n")
    keys.symlink_to(real)
    run(authorized.put(TAG, LINE), tmp_path)
    assert keys.is_symlink() and real.read_text() == f"ssh-rsa A me\n{LINE}\n"


def test_what_a_killed_one_left_goes(keys: Path, tmp_path: Path) -> None:
    keys.write_text("ssh-rsa A me\n")
    (tmp_path / ".ssh" / "authorized_keys.sweepfw.AbCdEf").write_text("half")
    run(authorized.remove(TAG), tmp_path)
    assert [each.name for each in keys.parent.iterdir()] == ["authorized_keys"]
