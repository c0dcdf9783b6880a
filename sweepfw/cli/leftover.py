"""What a sweep has left to run, and what to say where that is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sweepfw.cli.options import Running
    from sweepfw.core.model import Sweep


def work(sweep: Sweep) -> bool:
    """Whether there is anything to run."""
    return bool(sweep.counts.get("queued") or sweep.counts.get("running") or sweep.counts.get("held"))


def nothing_left(sweep: Sweep, how: Running) -> int:
    """Say so, with what could be run again."""
    if not how.quiet and not how.as_json:
        hints = {
            "failed": f"; `sweepfw retry {sweep.name}` runs its {sweep.counts.get('failed')} failed again",
            "cancelled": f"; `sweepfw resume {sweep.name} --cancelled` runs what was stopped",
        }
        told = "".join(hint for state, hint in hints.items() if sweep.counts.get(state))
        click.echo(f"{sweep.name} has nothing left to run{told}")
    return 0
