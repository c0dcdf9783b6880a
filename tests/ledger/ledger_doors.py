"""The doors to a ledger, and small things to put in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ledger_service import Door

from sweepfw.core.model import Draft, Spec, Worker
from sweepfw.core.values import Number
from sweepfw.ledger.interface import Ledger
from sweepfw.ledger.store import SqliteLedger

SPEC = Spec("digits", "train", ("python", "train.py"))
HOST = Worker("here", "boot-1")


def sqlite(folder: Path) -> Ledger:
    return SqliteLedger(folder / "ledger.db", folder / "runs")


def http(folder: Path) -> Ledger:
    return Door(folder)  # type: ignore[return-value]  # it hands each method on to whom it is for


DOORS: list[Callable[[Path], Ledger]] = [sqlite, http]


def drafts(count: int) -> list[Draft]:
    return [Draft({"lr": Number("0.1"), "i": Number(str(i))}) for i in range(count)]
