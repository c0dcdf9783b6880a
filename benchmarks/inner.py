"""The parts of startup.py that are measured inside one process: `inner.py expand|submit WORKSPACE`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from sweepfw.config.project import find_project, load_project, spec_for
from sweepfw.config.workspace import Workspace
from sweepfw.core.grid import expand
from sweepfw.core.space import Space
from sweepfw.ledger.local import open_ledger


def main() -> None:
    part, folder = sys.argv[1], Path(sys.argv[2])
    workspace = Workspace.find(folder)
    spec = spec_for(load_project(find_project(workspace, part, folder)), None)
    space = Space.from_json(spec.space)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    if part == "expand":
        made = sum(1 for _ in expand(space))
    else:
        made = open_ledger(workspace, create=True).submit(spec, "0" * 16, expand(space)).total
    spent = time.perf_counter() - begun
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"made": made, "seconds": spent, "grown_mb": grown / 1024}))


if __name__ == "__main__":
    main()
