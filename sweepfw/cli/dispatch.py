"""Running on a deployment: the project goes to the head, and this terminal follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from sweepfw import crash
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.deployed import There
    from sweepfw.cli.options import Running
    from sweepfw.cli.prepared import Prepared
    from sweepfw.cli.progress import Quiet
    from sweepfw.cli.site import Site
    from sweepfw.core.model import Draft, Environment, Spec, Sweep
    from sweepfw.core.secrets import Secrets

REQUIREMENTS = "requirements.txt"
PARTING = 10.0  # seconds
_TRIES = 20  # names that somebody else may take while we look


def dispatch(there: There, project: Prepared, name: str | None, note: str | None, how: Running) -> int:
    """Submit to the deployment and follow; the exit code of `run`."""
    from dataclasses import replace

    from sweepfw.cli.needed import needed
    from sweepfw.cli.progress import listener
    from sweepfw.engine.record import record
    from sweepfw.snapshot import freeze, settle

    view = listener(quiet=how.quiet, as_json=how.as_json, logs=how.logs)
    place, say = there.place, view.note
    secrets = needed(project.spec, here=False)
    listing = project.survey()
    environment, described = _environment(project.spec, any(e.path == REQUIREMENTS for e in listing.files))
    spec = replace(project.spec, environment=environment, at_once=how.jobs, fail_fast=how.fail_fast)
    waits = check_needs(there, spec)
    place.prepare()
    snapshot = freeze(project.root, place.snapshots, spec.snapshot_limit, listing)
    settle(place.snapshots, snapshot)
    built = ", which each host builds once" if environment.kind == "requirements" else ""
    say(f"running on {there.name}; trials use {described}{built}")
    if waits:
        say(waits)
    there.receive(snapshot.id, say)
    with _secrets_there(there, secrets) as uid:
        sweep = _submit(there, project, spec, snapshot.id, name, note, uid)
    crash.point("run.submitted")
    with _beside(lambda: record(place, there.ledger, sweep, described), say):
        return _follow(there, sweep, view, how, 0, fresh=True)


@contextmanager
def _beside(work: Callable[[], None], say: Callable[[str], object]) -> Iterator[None]:
    """Do some work in a thread meanwhile, and wait for its end: git may take seconds, which trials don't."""

    def run() -> None:
        try:
            work()
        except (OSError, SweepError) as error:
            say(f"warning: it is not recorded where the sweep came from: {error}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(PARTING)


def go_on(there: Site, sweep: Sweep, how: Running, cursor: int) -> int:
    """Let the head run what is queued, and follow it, unless it does so already. What ended after `cursor`
    was queued by this command, and was faster than it."""
    from sweepfw.cli.leftover import nothing_left, work
    from sweepfw.cli.progress import listener

    if how.jobs is not None or how.fail_fast:
        raise SweepError(f"-j and --fail-fast are given to `run`; {there.name} keeps what {sweep.name} had")
    # As it was before this command queued anything.
    live = sweep.state in ("queued", "running") and not sweep.counts.keys().isdisjoint(("queued", "running"))
    now = there.ledger.sweep(sweep.uid)
    if work(now):
        now = there.ledger.open(sweep.uid)
    elif there.ledger.last_end(sweep.uid) == cursor:
        there.ledger.close(sweep.uid)
        return nothing_left(now, how)
    if live:
        if not how.quiet and not how.as_json:
            click.echo(f"{sweep.name} runs already and goes on; follow it with: sweepfw attach {sweep.name}")
        return 0
    return _follow(there, now, listener(quiet=how.quiet, as_json=how.as_json, logs=how.logs), how, cursor)


def _environment(spec: Spec, requirements: bool) -> tuple[Environment, str]:
    """The Python of the trials, and what to say of it: this machine's own is not on the hosts."""
    from sweepfw.core.model import Environment

    if spec.environment.kind == "requirements":
        return spec.environment, f"an environment from {spec.environment.value}"
    if spec.environment.kind == "python":
        return spec.environment, f"{spec.environment.value} of each host"
    if requirements:
        return Environment("requirements", REQUIREMENTS), f"an environment from {REQUIREMENTS}"
    return spec.environment, "the Python of the workers' image"


def check_needs(there: There, spec: Spec) -> str | None:
    """What to say where only workers that are silent now could run such trials. SweepError where none could
    ever, with what they have, or where none lives."""
    from sweepfw.core.placement import unmet

    workers = there.desk.status().workers
    if not any(worker.alive for worker in workers):
        raise SweepError(f"{there.name} has no worker that lives; look: sweepfw infra status")
    if all(worker.draining for worker in workers if worker.alive):
        raise SweepError(
            f"{there.name} gets no new trials, an `infra down` had begun; `sweepfw infra up` undoes that"
        )
    reasons = [unmet(worker.worker.host, worker.advert, spec.needs) for worker in workers]
    if all(reasons):
        told = "; ".join(reason for reason in reasons[:3] if reason)
        raise SweepError(f"no host of {there.name} can run these trials: {told}")
    able = [worker for worker, reason in zip(workers, reasons, strict=True) if not reason]
    if any(worker.alive for worker in able):
        return None
    hosts = " or ".join(worker.worker.host for worker in able)
    return f"these trials wait for {hosts}, whose worker is silent; look: sweepfw infra status"


@contextmanager
def _secrets_there(there: There, secrets: Secrets) -> Iterator[str | None]:
    """The uid of a sweep to be, whose secrets are at the head; None where it needs none.

    They come first, so that no trial can be granted without. Whoever dies in between leaves no sweep, and
    what the head deletes by itself.
    """
    if not secrets:
        yield None
        return
    from sweepfw.ledger.part import fresh_token

    uid = fresh_token()
    there.give(uid, secrets)
    crash.point("run.secrets")
    try:
        yield uid
    except SweepError as error:
        if type(error) is SweepError:  # refused: there is no such sweep
            with suppress(SweepError):  # the head deletes them in the end
                there.desk.put_secrets(uid, {})
        raise


def _submit(
    there: There,
    project: Prepared,
    spec: Spec,
    snapshot: str,
    name: str | None,
    note: str | None,
    uid: str | None,
) -> Sweep:
    """A name that is taken neither there nor in this workspace, so that the sweep can come home."""
    provenance = {"root": str(project.root), **_submitter(there)}
    for candidate in _names(there, project.spec.project) if name is None else [name]:
        try:
            _check_name(there, candidate)
        except SweepError:
            if name is not None:
                raise
            continue
        try:
            return there.ledger.submit(
                spec,
                snapshot,
                _drafts(project),
                name=candidate,
                note=note or "",
                provenance=provenance,
                only=project.only,
                uid=uid,
            )
        except SweepError as error:
            if name is not None or type(error) is not SweepError:
                raise
    raise SweepError(f"no name is free for a sweep of {project.spec.project}; give one with --name")


def _drafts(project: Prepared) -> Iterator[Draft]:
    from sweepfw.core.grid import expand

    return expand(project.space)


def _names(there: There, project: str) -> Iterator[str]:
    """`<project>-<n>` from the first n that looks free."""
    known = {sweep.name for sweep in there.ledger.sweeps()}
    begin = 1
    while f"{project}-{begin}" in known:
        begin += 1
    yield from (f"{project}-{n}" for n in range(begin, begin + len(known) + _TRIES))


def _check_name(there: There, name: str) -> None:
    from sweepfw.ledger.local import open_ledger

    there.ledger.check_name(name)
    if there.place.ledger.exists():
        local = open_ledger(there.place, create=False)
        try:
            local.check_name(name)
        finally:
            local.disconnect()


def _submitter(there: There) -> dict[str, str]:
    """Who submitted it, and from where: others may share the deployment."""
    import getpass
    import os

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {"submitter": f"{user}@{os.uname().nodename}", "workspace": str(there.place.root)}


def _follow(there: Site, sweep: Sweep, view: Quiet, how: Running, cursor: int, *, fresh: bool = False) -> int:
    if how.detach:
        view.close()
        _detached(there, sweep, how)
        return 0
    from sweepfw.cli.attach import follow

    return follow(there, sweep, view, cursor, quiet=how.quiet, fresh=fresh)


def _detached(there: Site, sweep: Sweep, how: Running) -> None:
    if how.as_json:
        import json

        click.echo(json.dumps({"event": "detached", "sweep": sweep.name, "place": there.name}))
    elif not how.quiet:
        click.echo(f"{sweep.name} runs on {there.name}; follow it with: sweepfw attach {sweep.name}")
