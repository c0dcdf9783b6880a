"""Named places at which this process kills itself when it is told to, so that tests can show what is left.

Each stands between two durable writes: whoever goes on must find a state that it can finish, or has finished.
`SWEEPFW_CRASH=NAME:N` kills the process at its N-th pass (from 1, counted in each process) with SIGKILL, as
the kernel or a person would. `NAME:N:FILE` makes the file first, and where it is there already nobody dies:
so only one process does, and whoever asked for it sees that it did. Unset, a point costs a comparison. The
guardian and its keepers inherit the variable; trials never see it. Standard library only: the guardian has
nothing else.
"""

from __future__ import annotations

import os

VARIABLE = "SWEEPFW_CRASH"

# Name -> what is durable by then, and what is not.
POINTS = {
    # -- snapshots: this machine, the head, workers
    "snapshot.object": "a content is written, and not yet under its name",
    "snapshot.contents": "all contents are stored, and no list names them",
    "snapshot.manifest": "the list is written, and not yet under its name",
    "snapshot.frozen": "the snapshot is whole, and no sweep names it",
    "gc.unlinked": "one file of a snapshot that nobody names is gone, others are not",
    # -- a sweep comes into the ledger
    "submit.rows": "the sweep's rows are written, and not committed",
    "submit.committed": "the sweep is committed, and nobody was told",
    "extend.committed": "the new trials are committed, and nobody runs them",
    "run.secrets": "the head has the secrets of a sweep, and not the sweep",
    "run.submitted": "the sweep is in the ledger, and nobody holds it",
    "run.held": "the sweep's lock is ours, and the ledger says that nobody works on it",
    "run.opened": "the ledger says that the sweep runs, and no slot is there",
    "record.annotated": "the ledger knows where the sweep came from, its folder does not",
    "record.yml": "sweep.yml is there, provenance.json is not",
    # -- an attempt, on every machine
    "claim.rows": "the attempt's row is written, and not committed",
    "claim.committed": "the trial is granted, and who claimed it does not know",
    "attempt.granted": "the trial is granted, and its keeper has no order",
    "attempt.ordered": "the keeper has its order, and nothing was heard of it",
    "keeper.folder": "the attempt's folder is there, and no working copy",
    "keeper.filled": "the working copy is there, and nothing was started in it",
    "keeper.secrets": "the attempt's secrets lie in memory, and nothing was started",
    "keeper.started": "the command runs, and nobody attends to it",
    "keeper.ended": "the command and all that it started have ended, and nothing tells how",
    "keeper.gathered": "the output files are in their place, and there is no outcome.json",
    "keeper.draft": "outcome.json is written, and not yet under its name",
    "keeper.outcome": "outcome.json is there, and the run was not told",
    "keeper.told": "the run was told of the end, and the working copy is not put right",
    "attempt.heard": "the run was told of the end, and the ledger was not",
    "finish.rows": "the end is written to the ledger, and not committed",
    "finish.committed": "the end is committed, and who told it does not know",
    # -- a run begins and ends
    "recover.told": "ends that a killed run left are told, its other attempts still count as running",
    "recover.requeued": "all that a killed run left is queued again, and its sweep still counts as running",
    "close.committed": "the sweep is closed, and nobody was told",
    "session.left": "the ledger says that nobody works on the sweep, and does not say that it is done",
    "session.closed": "the sweep is closed, and not synced",
    # -- orders
    "pause.committed": "the sweep is paused, and its run has not heard of it",
    "stop.committed": "trials are cancelled or asked to stop, and nobody saw to it",
    "reopen.committed": "trials are queued again, and nobody runs them",
    "retry.frozen": "the newer code is frozen, and nothing says where it came from",
    "remove.aside": "the sweep's folder has another name, and the ledger still has the sweep",
    "remove.committed": "the ledger has forgotten the sweep, and its files are there",
    # -- environments
    "environment.built": "the environment is whole, and nothing says so",
    "environment.ready": "the environment is ready, and what it was built from is still there",
    "environment.agreed": "the versions are written, and not yet under their name",
    # -- the head
    "head.registered": "the ledger knows the worker, the scheduler does not",
    "head.roster": "the list of workers is written, and not yet under its name",
    "head.log": "output is stored, and the worker was not told",
    "head.keep": "one small file of an attempt is written, and not yet under its name",
    "head.kept": "an attempt's small files are stored, and the worker was not told",
    "head.concluded": "output and files of an attempt are stored, and its end is not",
    "head.checkpoint": "a checkpoint is written, and not yet under its name",
    "head.checkpointed": "a checkpoint is stored, and the worker was not told",
    "head.lock": "the versions of an environment are written, and not yet under their name",
    "head.secret": "a secret is written, and not yet under its name",
    "head.noted": "the board says that a trial was sent, and it was not",
    "head.published": "the broker has the messages, and the board does not know",
    "head.reaping": "a lease ran out, and the ledger does not say so",
    "expire.committed": "the attempt is expired, and the scheduler does not know",
    "head.forgotten": "the list of removed sweeps is written, and not yet under its name",
    # -- a worker
    "worker.claimed": "the trial is granted to a worker, and nothing of it is here",
    "worker.contents": "the contents of a snapshot are here, its list is not",
    "worker.checkpoint": "the checkpoint is unpacked beside its place",
    "worker.prepared": "all that the attempt needs is here, and its keeper has no order",
    "worker.part": "the head has a part of the output of a trial that runs, and we do not know",
    "worker.saved": "the head has the last checkpoint, and not the output",
    "worker.shipped": "the head has all of the output, and not the files",
    "worker.stored": "the head has output and files, and not the end",
    "worker.concluded": "the head has the end, and this worker does not know",
    "worker.accepted": "the head has accepted a success, and the checkpoint is still here",
    "worker.inherited": "one end that a predecessor left is told, others are not",
    "worker.forgetting": "the worker was told to delete a sweep's files, and has not",
    # -- infra up
    "private.draft": "a file of the state folder is written, and not yet under its name",
    "up.created": "the deployment has a state folder, with no credentials in it",
    "up.copied": "one of credentials and hosts' keys is in the state folder, the other may not be",
    "up.kept": "the state folder is whole, and config.yml is not written",
    "up.configured": "config.yml is written, and nothing is done on hosts",
    "up.created-container": "a container is there, without its settings",
    "up.filled-container": "a container has its settings, and was never started",
    "up.step": "a step is done, and others are not",
    "up.done": "all steps are done, and the state folder does not say so",
    "up.complete": "the state folder says that all is done, and no worker was heard",
    "up.taken-off": "a host that left the deployment is clean, and still remembered",
    # -- infra down, pull
    "down.drained": "no trials are sent any more, and all runs",
    "down.roles": "the workers have ended, the head has not",
    "down.stopped": "all containers have ended, and nothing came home",
    "adopt.rows": "a sweep's rows are written to this ledger, and not committed",
    "adopt.committed": "a sweep is in this ledger, and nothing of its files is here",
    "down.adopted": "all sweeps are in this ledger, and the state folder does not say where",
    "down.memo": "the state folder's memo is written, and not yet under its name",
    "down.received": "a file came home, and is not yet under its name",
    "down.recorded": "logs and small files are home, the code is not",
    "down.snapshot": "a snapshot's contents are home, its list is not",
    "down.unpacked": "a checkpoint is unpacked, and not yet in its place",
    "down.placed": "a checkpoint is in its place, and its pack is still there",
    "down.removal": "one kind of what is ours is gone from a host, others are not",
    "down.removed": "the hosts are clean, and the state folder does not say so",
    "down.forgotten": "the deployment is forgotten, and its keys are still there",
    "pull.marked": "the sweep's folder is there, and not yet under its name",
}


def read(text: str) -> tuple[str, int, str]:
    """A point's name, the pass that ends the process, the file; ValueError with what would be right."""
    name, _, rest = text.partition(":")
    number, _, file = rest.partition(":")
    if name not in POINTS:
        raise ValueError(f"{VARIABLE}={text!r}: is no point of a crash; they are listed in {__file__}")
    if not (number.isascii() and number.isdecimal() and int(number)):
        raise ValueError(f"{VARIABLE}={text!r}: expected NAME:N with N from 1 on, such as {name}:1")
    return name, int(number), file


_name, _left, _file = "", 0, ""
complaint = ""  # what is wrong with the variable, for who talks with people
try:
    if os.environ.get(VARIABLE):
        _name, _left, _file = read(os.environ[VARIABLE])
except ValueError as error:
    complaint = str(error)


def point(name: str) -> None:
    """Die here, if this is the pass that was named."""
    if name == _name:
        _pass()


def _pass() -> None:
    global _left  # noqa: PLW0603  # counted in each process, by whichever thread comes by
    _left -= 1
    if _left <= 0 and _first():
        os.kill(os.getpid(), 9)


def _first() -> bool:
    """Whether nobody died of it before, as far as that is asked."""
    if not _file:
        return True
    try:
        os.close(os.open(_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True
