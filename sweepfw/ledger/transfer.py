"""A sweep on its way from one ledger to another: as records, and as a file of them.

The records are JSON objects: one of the sweep, one of each trial, one of each attempt, and a last one that
tells how many there were. Tokens stay behind: who held one holds nothing at the other ledger. So do the
counts that retries are measured by: they start anew. `SqliteLedger.adopt` takes the records in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweepfw.core import spec as specs
from sweepfw.core import values
from sweepfw.core.model import Attempt, Sweep, Trial
from sweepfw.errors import SweepError
from sweepfw.ledger import rows
from sweepfw.ledger.interface import Ledger

_OURS = {"spec", "params", "metrics", "counts", "token"}  # fields that have a form of their own, or none


def dump(ledger: Ledger, uid: str) -> Iterator[dict[str, Any]]:
    """The records of a sweep, through any door. Nothing should change it meanwhile: `adopt` refuses what does
    not fit together."""
    sweep = ledger.sweep(uid)
    yield {"kind": "sweep", **_plain(sweep), "spec": specs.to_json(sweep.spec)}
    trials = attempts = 0
    for trial in ledger.trials(uid):
        trials += 1
        yield {"kind": "trial", **_plain(trial), "params": values.encode(trial.params), **_metrics(trial)}
    for attempt in ledger.attempts(uid):
        attempts += 1
        yield {"kind": "attempt", **_plain(attempt), **_metrics(attempt)}
    yield {"kind": "end", "trials": trials, "attempts": attempts}


def save(ledger: Ledger, uid: str, file: Path) -> None:
    """Write the records to a file, one a line, as a whole or not at all: what comes from far is fetched
    first, so that nobody has to wait for the ledger that adopts it."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with temporary.open("w") as lines:
            for record in dump(ledger, uid):
                lines.write(json.dumps(record, separators=(",", ":")) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that `save` wrote. SweepError where a line is none."""
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise SweepError(f"{file}:{number}: is no record of a sweep; fetch it again")
            yield record


def _plain(item: Sweep | Trial | Attempt) -> dict[str, Any]:
    return {name: value for name, value in item._asdict().items() if name not in _OURS}


def _metrics(item: Trial | Attempt) -> dict[str, str]:
    """As text, since NaN and infinity are no JSON."""
    return {"metrics": rows.dump_metrics(item.metrics)}
