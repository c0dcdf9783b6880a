"""A ledger as a crash or a bad disk leaves it: a copy of the real one, damaged, must be recovered or refused.

The run is frozen while it is copied, so the copy is what a power cut at that moment would leave.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ledger_model
import witness
from here_processes import Process, look, ours
from here_scene import Scene
from schedule import Fault

PAGE = 4096


def torn(scene: Scene, fault: Fault) -> tuple[str, str]:
    chance = random.Random(fault.target)
    name, damage = list(DAMAGES.items())[fault.target % len(DAMAGES)]
    copy = scene.world.root / f"torn-{fault.target}"
    (copy / "runs" / scene.sweep).mkdir(parents=True)
    _copy(scene, copy)
    damage(copy / ".sweepfw/ledger.db", chance)
    try:
        results = [_read(scene, copy, name), _write(scene, copy, name), _read(scene, copy, name)]
    finally:
        if name == "read-only":
            subprocess.run(["umount", str(copy / ".sweepfw")], capture_output=True)
        shutil.rmtree(copy, ignore_errors=True)
    return name, ", ".join(results)


def _copy(scene: Scene, to: Path) -> None:
    """Ledger, log and index, while nobody writes."""
    run = scene.world.run
    with scene.world.asking:  # nor does our own `ls`
        writers = {process for process in ours(scene.world.root) if process.name.startswith("python")}
        # Its memory is its own.
        writers |= {process for process in [run and look(run.process.pid)] if process}
        frozen = [process for process in writers if process.state != "T" and process.send(signal.SIGSTOP)]
        deadline = time.monotonic() + 60
        while not all(process.stands_still() for process in frozen) and time.monotonic() < deadline:
            time.sleep(0.01)
        _copy_frozen(scene, to, frozen)


def _copy_frozen(scene: Scene, to: Path, frozen: list[Process]) -> None:
    try:
        (to / ".sweepfw").mkdir(mode=0o700)
        for file in (scene.world.workspace / ".sweepfw").glob("ledger.db*"):
            shutil.copy(file, to / ".sweepfw" / file.name)
    finally:
        for process in frozen:
            process.send(signal.SIGCONT)


def _read(scene: Scene, copy: Path, name: str) -> str:
    told = scene.world.call("show", scene.sweep, "--json", cwd=copy, may_refuse=True)
    if told.returncode:
        return _refused(scene, "show", name, told)
    wrong = _wrong(scene, json.loads(told.stdout))
    if wrong and name in ROTTEN and not _sound(copy):
        return "read, unsound"
    for each in wrong:
        scene.world.complaints.append(f"a ledger with {name} was read, and {each}")
    return "read"


def _sound(copy: Path) -> bool:
    """What SQLite finds where it is asked to read everything twice, as nobody does at every start."""
    db = sqlite3.connect(copy / ".sweepfw/ledger.db")
    try:
        return bool(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


def _write(scene: Scene, copy: Path, name: str) -> str:
    told = scene.world.call("stop", scene.sweep, cwd=copy, may_refuse=True)
    return _refused(scene, "stop", name, told) if told.returncode else "written"


def _refused(scene: Scene, verb: str, name: str, told: subprocess.CompletedProcess[str]) -> str:
    line = told.stderr.strip()
    if told.returncode != 2 or "\n" in line or "ledger" not in line:
        scene.world.complaints.append(
            f"{verb} with {name} of the ledger: exit {told.returncode}, {line[-300:]}"
        )
    if name in SOUND:
        scene.world.complaints.append(f"{verb} with {name} of the ledger was refused: {line[-300:]}")
    return "refused"


def _wrong(scene: Scene, sweep: dict[str, Any]) -> list[str]:
    """What can't be so; and successes that no witness tells of."""
    found = [f"trial {wrong.trial}: {wrong.what}" for wrong in ledger_model.check(sweep)]
    good = {(life.trial, life.attempt) for life in witness.read(scene.world.witness) if life.exit == 0}
    for trial in sweep["trials"]:
        found += [
            f"trial {trial['trial']}: attempt {one['attempt']} succeeded, without a witness"
            for one in ledger_model.accepted(trial)
            if (trial["trial"], one["attempt"]) not in good
        ]
    return found


# -- damages -------------------------------------------------------------------------------------------


def _nothing(ledger: Path, chance: random.Random) -> None:
    """As a power cut leaves it."""


def _wal_cut(ledger: Path, chance: random.Random) -> None:
    wal = Path(f"{ledger}-wal")
    if wal.exists():
        os.truncate(wal, chance.randrange(wal.stat().st_size + 1))


def _wal_garbage(ledger: Path, chance: random.Random) -> None:
    wal = Path(f"{ledger}-wal")
    if wal.exists():
        _overwrite(wal, chance, os.urandom(64))


def _wal_lost(ledger: Path, chance: random.Random) -> None:
    for end in ("-wal", "-shm"):
        Path(f"{ledger}{end}").unlink(missing_ok=True)


def _index_garbage(ledger: Path, chance: random.Random) -> None:
    Path(f"{ledger}-shm").write_bytes(os.urandom(32768))


def _cut(ledger: Path, chance: random.Random) -> None:
    os.truncate(ledger, chance.randrange(1, max(2, ledger.stat().st_size)))


def _page_lost(ledger: Path, chance: random.Random) -> None:
    pages = ledger.stat().st_size // PAGE
    if pages > 1:
        with ledger.open("r+b") as file:
            file.seek(PAGE * chance.randrange(1, pages))
            file.write(bytes(PAGE))


def _head_lost(ledger: Path, chance: random.Random) -> None:
    with ledger.open("r+b") as file:
        file.write(os.urandom(100))


def _read_only(ledger: Path, chance: random.Random) -> None:
    """Nobody may write there, root neither. Without rights to mount: as a power cut leaves it."""
    folder = str(ledger.parent)
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode == 0:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def _overwrite(file: Path, chance: random.Random, data: bytes) -> None:
    with file.open("r+b") as out:
        out.seek(chance.randrange(max(1, file.stat().st_size)))
        out.write(data)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "nothing but its end": _nothing,
    "its log cut off": _wal_cut,
    "garbage in its log": _wal_garbage,
    "its log lost": _wal_lost,
    "garbage in its index": _index_garbage,
    "its end cut off": _cut,
    "a page lost": _page_lost,
    "its head lost": _head_lost,
    "read-only": _read_only,
}
# What only a bad disk does, and SQLite may not see: it has no checksums of pages, and reads its log up to the
# first frame that is wrong, though later ones may be in the database already.
ROTTEN = frozenset({"garbage in its log", "a page lost", "its end cut off"})
# These lose nothing that was committed; what others lose may be the whole sweep.
SOUND = frozenset({"nothing but its end", "garbage in its index"})
