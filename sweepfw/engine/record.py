"""What a sweep's folder tells a person without sweepfw: sweep.yml as it was run, provenance.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepfw import crash
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Sweep
from sweepfw.core.spec import to_json
from sweepfw.ledger.interface import Ledger
from sweepfw.shell.local import LocalShell


def record(place: Workspace, ledger: Ledger, sweep: Sweep, environment: str) -> None:
    """Write both files, and the provenance into the ledger, unless that was done before. `environment` says
    which Python the trials run with."""
    if (place.run(sweep.name) / "provenance.json").exists():
        return
    facts = {**dict(sweep.provenance), **_describe(_root(sweep)), "environment": environment}
    _write(place, ledger, sweep, facts)


def record_code(place: Workspace, ledger: Ledger, sweep: Sweep, snapshot: str) -> None:
    """Add where a newer snapshot came from, which some of the sweep's trials will run."""
    newer = {**sweep.provenance.get("newer", {}), snapshot: _describe(_root(sweep))}
    _write(place, ledger, sweep, {**sweep.provenance, "newer": newer})


def _root(sweep: Sweep) -> Path:
    return Path(str(sweep.provenance.get("root", "")))


def _describe(root: Path) -> dict[str, Any]:
    from sweepfw.trial.provenance import describe

    return describe(root, LocalShell())


def _write(place: Workspace, ledger: Ledger, sweep: Sweep, facts: Mapping[str, Any]) -> None:
    ledger.annotate(sweep.uid, facts)
    crash.point("record.annotated")
    folder = place.run(sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yml").write_text(_yaml(sweep))
    crash.point("record.yml")
    draft = folder / "provenance.json.part"  # where the file is, it is taken to be whole
    draft.write_text(json.dumps(facts, indent=2) + "\n")
    draft.replace(folder / "provenance.json")


def _yaml(sweep: Sweep) -> str:
    import yaml

    facts = {"sweep": sweep.name, "snapshot": sweep.snapshot, "note": sweep.note} | to_json(sweep.spec)
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
