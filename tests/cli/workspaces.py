"""A workspace with sweeps that have run, made with a real ledger and real files, without running anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from sweepfw.config.workspace import Workspace
from sweepfw.core.metrics import Fold, Point
from sweepfw.core.model import Draft, Grant, Objective, Outcome, Spec, Sweep, Worker
from sweepfw.core.values import Number, Value
from sweepfw.ledger.local import open_ledger
from sweepfw.ledger.store import SqliteLedger

HERE = Worker("tower", "boot-1")
SPEC = Spec(
    "digits",
    "train",
    ("python", "train.py"),
    metrics=(("loss", None), ("acc", None)),
    objective=Objective("acc", "maximize", "best"),
)


def value(written: object) -> Value:
    return (
        Number(str(written))
        if isinstance(written, (int, float)) and not isinstance(written, bool)
        else written
    )  # type: ignore[return-value]


@dataclass
class Made:
    """The workspace, its ledger, and ways to fill them."""

    place: Workspace
    ledger: SqliteLedger

    def sweep(self, params: Sequence[Mapping[str, object]], spec: Spec = SPEC, **more: Any) -> Sweep:
        drafts = [
            Draft({k: value(v) for k, v in each.items() if k != "repeat"}, int(str(each.get("repeat", 1))))
            for each in params
        ]
        return self.ledger.submit(spec, more.pop("snapshot", "s1"), drafts, **more)

    def attempt(
        self,
        sweep: Sweep,
        trial: int,
        *,
        state: str | None = "succeeded",
        reports: Sequence[Mapping[str, float]] = (),
        log: bytes = b"",
        **outcome: Any,
    ) -> Grant:
        """One attempt; state None: it goes on."""
        grant = self.ledger.claim(sweep.uid, trial, HERE, "0", os.urandom(4).hex())
        assert isinstance(grant, Grant), grant
        folder = self.place.attempt(sweep.name, trial, grant.attempt)
        folder.mkdir(parents=True)
        (folder / "output.log").write_bytes(log)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
        folded = Fold()
        for report in reports:
            step = report.get("step")
            folded.add(Point(name, number, step) for name, number in report.items() if name != "step")
        if state is not None:
            defaults = {"exit_code": 0 if state == "succeeded" else 3, "ended": 2_000_000_000.0}
            end = Outcome(state, metrics=folded.summaries, **(defaults | outcome))  # type: ignore[arg-type]
            self.ledger.finish(grant.token, end)
        return grant


def make(root: Path) -> Made:
    place = Workspace(root)
    ledger = open_ledger(place, create=True)
    ledger.register(HERE)
    return Made(place, ledger)


def digits(made: Made) -> Sweep:
    """Three trials, one of them failed; the second is best."""
    sweep = made.sweep(
        [{"lr": 0.1, "opt": o, "epochs": 5} for o in ("sgd", "adam", "lion")], note="first try"
    )
    made.ledger.open(sweep.uid)
    for trial, best in ((1, 0.75), (2, 0.875)):
        reports = [{"step": 1, "acc": best, "loss": 0.5}, {"step": 2, "acc": 0.5, "loss": 0.25}]
        made.attempt(sweep, trial, reports=reports, log=b"epoch 1\nepoch 2\n")
    made.attempt(sweep, 3, state="failed", reason="exit 3", log=b"Traceback\nValueError\n")
    made.ledger.close(sweep.uid)
    return sweep


def call(*arguments: str) -> Result:
    """The command in this process; its exceptions are ours."""
    from sweepfw.cli.main import cli

    return CliRunner().invoke(cli, arguments, catch_exceptions=False, prog_name="sweepfw")
