"""`debug`: one trial's snapshot, environment and command, in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from sweepfw import modes
from sweepfw.cli import options
from sweepfw.cli.complete import trial_names

if TYPE_CHECKING:
    from sweepfw.cli.site import Sites
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Grant, Sweep, Trial


@click.command()
@click.argument("trial", metavar="SWEEP/N", shell_complete=trial_names)
@click.option("--shell", is_flag=True, help="Open a shell there instead of running the command.")
@options.sites
def debug(sites: Sites, trial: str, shell: bool) -> int:
    """Run trial SWEEP/N again on this machine: its code, environment, command. The ledger is not told.

    What it reports and saves goes to a folder `debug` beside its attempts. The exit code is the command's.
    """
    from sweepfw.core.naming import parse_target
    from sweepfw.errors import SweepError

    target = parse_target(trial, trial=True)
    site, sweep = sites.find(target.sweep)
    for found in site.ledger.trials(sweep.uid, numbers=[target.trial or 0]):
        site.fetch(found.snapshot or sweep.snapshot)
        return _debug(site.place, sweep, found, shell)
    raise SweepError(f"{sweep.name} has no trial {target.trial}; it has {sweep.total}")


def _debug(place: Workspace, sweep: Sweep, trial: Trial, shell: bool) -> int:
    import shutil
    import signal
    import subprocess

    from sweepfw.cli.terminal import safe
    from sweepfw.core.command import shown
    from sweepfw.engine.jobs import Jobs
    from sweepfw.snapshot import checkout
    from sweepfw.trial.attempt import Slot, order
    from sweepfw.trial.secrets import revealed
    from sweepfw.trial.slots import cpus

    snapshot = trial.snapshot or sweep.snapshot
    jobs = Jobs(place, sweep, lambda line: click.echo(safe(line), err=True))
    if sweep.spec.secrets:
        from sweepfw.cli.needed import needed

        jobs.give(needed(sweep.spec, here=True))
    job = jobs(snapshot)
    folder = place.trial(sweep.name, trial.number) / "debug"
    if folder.exists():
        shutil.rmtree(folder)
    for name in ("files", "checkpoint"):
        (folder / name).mkdir(parents=True)
    checkout(place.snapshots, snapshot, folder / "work")
    start = order(
        _grant(sweep, trial, snapshot),
        job,
        Slot("debug", "", max(1, int(cpus()))),
        str(folder),
        str(folder / "checkpoint"),
    )
    (folder / "params.json").write_text(start.params)
    argv = [os.environ.get("SHELL", "/bin/sh")] if shell else list(start.argv)
    click.echo(f"in {safe(str(folder / 'work'))}:\n{safe(shown(start.argv))}", err=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command, a debugger or shell perhaps
    try:
        with revealed(job.setup.secrets, job.setup.env) as env:
            code = subprocess.run(
                argv, cwd=folder / "work", env={**env, **start.env}, check=False, umask=modes.users()
            ).returncode
    except OSError as error:
        click.echo(f"sweepfw: {safe(argv[0])}: {error.strerror}", err=True)
        return 127
    return code if code >= 0 else 128 - code


def _grant(sweep: Sweep, trial: Trial, snapshot: str) -> Grant:
    from sweepfw.core.model import Grant

    return Grant(sweep.name, sweep.uid, trial.number, 0, "", trial.params, trial.repeat, snapshot)
