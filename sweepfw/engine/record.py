"""What a sweep's folder tells a person without sweepfw: sweep.yml as it was run, provenance.json."""

from __future__ import annotations

import json
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Sweep
from sweepfw.core.spec import to_json
from sweepfw.ledger.interface import Ledger
from sweepfw.shell.local import LocalShell


def record(place: Workspace, ledger: Ledger, sweep: Sweep) -> None:
    """Write both files, and the provenance into the ledger, unless that was done before."""
    folder = place.run(sweep.name)
    if (folder / "provenance.json").exists():
        return
    from sweepfw.trial.provenance import describe

    folder.mkdir(parents=True, exist_ok=True)
    root = str(sweep.provenance.get("root", ""))
    facts = {**describe(Path(root), LocalShell()), "root": root}
    ledger.annotate(sweep.uid, facts)
    (folder / "sweep.yml").write_text(_yaml(sweep))
    (folder / "provenance.json").write_text(json.dumps(facts, indent=2) + "\n")


def _yaml(sweep: Sweep) -> str:
    import yaml

    facts = {"sweep": sweep.name, "snapshot": sweep.snapshot, "note": sweep.note} | to_json(sweep.spec)
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
