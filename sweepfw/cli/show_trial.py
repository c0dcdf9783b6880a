"""One trial for people: its parameters, command, metrics, attempts and files, and what to type next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sweepfw.cli.render import Screen, assignments, duration, local_time, number, safe, size, table
from sweepfw.cli.site import Site
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Attempt, Sweep, Trial

MOST_FILES = 20
MOST_METRICS = 20


def describe(site: Site, sweep: Sweep, wanted: int, screen: Screen) -> Iterator[str]:
    """SweepError where the sweep has no such trial."""
    place = site.place
    (trial,) = site.ledger.trials(sweep.uid, numbers=[wanted])
    attempts = list(site.ledger.attempts(sweep.uid, wanted))
    name = f"{sweep.name}/{trial.number}"
    reason = f": {safe(trial.reason)}" if trial.reason else ""
    yield f"{screen.paint(safe(name), 'bold')}  {screen.paint(trial.state)}{reason}"
    yield f"  params    {assignments(trial.params) or '-'}"
    yield f"  repeat    {trial.repeat}"
    yield f"  command   {safe(shlex.join(command(place, sweep, trial)))}"
    if trial.snapshot not in ("", sweep.snapshot):
        yield f"  code      snapshot {trial.snapshot[:12]}, newer than the sweep's {sweep.snapshot[:12]}"
    yield from _metrics(trial, screen)
    yield from _attempts(attempts, screen)
    if attempts:
        yield from _files(place.attempt(sweep.name, trial.number, attempts[-1].number), screen)
        yield from _files_there(site, sweep, attempts[-1], screen)
    yield ""
    yield from _next(name, trial, attempts)


def command(place: Workspace, sweep: Sweep, trial: Trial) -> list[str]:
    """The command as the trial's last attempt got it, or its first will."""
    from sweepfw.core.command import argv

    attempt = place.attempt(sweep.name, trial.number, max(1, trial.attempts))
    places = {
        "output": str(attempt / "files"),
        "checkpoint": str(attempt.parent / "checkpoint"),
        "trial": str(trial.number),
        "sweep": sweep.name,
    }
    return argv(sweep.spec, trial.params, places)


def _metrics(trial: Trial, screen: Screen) -> Iterator[str]:
    if not trial.metrics:
        return
    rows = [
        [name, number(found.last), number(found.lowest), number(found.highest), str(found.count)]
        for name, found in list(trial.metrics.items())[:MOST_METRICS]
    ]
    yield ""
    yield from table(["METRIC", "LAST", "LOWEST", "HIGHEST", "REPORTS"], rows, screen)
    if len(trial.metrics) > MOST_METRICS:
        yield f"… and {len(trial.metrics) - MOST_METRICS} more; `--json` has all"


def _attempts(attempts: list[Attempt], screen: Screen) -> Iterator[str]:
    if not attempts:
        return
    rows = [
        [
            str(one.number),
            one.state,
            one.reason or "-",
            "-" if one.exit_code is None else str(one.exit_code),
            one.host,
            one.slot,
            local_time(one.started),
            "-" if one.ended is None else duration(one.ended - one.started),
        ]
        for one in attempts
    ]
    yield ""
    yield from table(["ATTEMPT", "STATE", "REASON", "EXIT", "HOST", "SLOT", "STARTED", "TOOK"], rows, screen)


def _files(folder: Path, screen: Screen) -> Iterator[str]:
    """Where the last attempt's files are, and which; working copy and checkpoint only by name."""
    if not folder.is_dir():
        return
    work, checkpoint = folder / "work", folder.parent / "checkpoint"
    count, listed = _first(MOST_FILES, _walk(folder, leave=str(work)))
    yield ""
    yield f"files in {safe(_near(folder))}"
    rows = [[f"  {path[len(str(folder)) + 1 :]}", size(bytes_)] for path, bytes_ in listed]
    yield from table(["", ""], rows, screen)[1:]
    if count > len(listed):
        yield f"  … and {count - len(listed):,} more"
    if work.is_dir():
        yield "  work/ is the working copy as the trial left it, kept until `sweepfw gc`"
    if checkpoint.is_dir():
        yield f"checkpoint in {safe(_near(checkpoint))}"


def _files_there(site: Site, sweep: Sweep, attempt: Attempt, screen: Screen) -> Iterator[str]:
    """What the deployment keeps of the attempt: at its head, or on the host that made it."""
    if not site.remote:
        return
    kept = site.files(sweep, attempt.trial, attempt.number)
    rows = [[f"  {safe(path)}", size(count)] for path, count in sorted(kept.items())[:MOST_FILES]]
    if rows:
        yield ""
        yield f"files on {safe(site.name)}"
        yield from table(["", ""], rows, screen)[1:]
    host = attempt.outcome.get("files_on")
    if host:
        bring = f"sweepfw pull {sweep.name}/{attempt.trial}"
        yield f"  output files are on {safe(str(host))}; `{bring}` brings them"


def _first(most: int, files: Iterator[tuple[str, int]]) -> tuple[int, list[tuple[str, int]]]:
    """How many there are, and the first by name. There may be millions."""
    from heapq import merge

    count, first = 0, list[tuple[str, int]]()
    while batch := sorted(islice(files, 10_000)):
        count += len(batch)
        first = list(islice(merge(first, batch), most))
    return count, first


def _walk(folder: Path, leave: str) -> Iterator[tuple[str, int]]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # gone since it was listed
                            yield entry.path, entry.stat(follow_symlinks=False).st_size
                    elif entry.path != leave:
                        waiting.append(entry.path)
        except OSError:
            continue  # closed by the trial, deeper than any path, or gone


def _near(path: Path) -> str:
    """The path from here where that is shorter."""
    here = os.path.relpath(path)
    return here if len(here) < len(str(path)) else str(path)


def _next(name: str, trial: Trial, attempts: list[Attempt]) -> Iterator[str]:
    commands = {}
    if trial.state == "running":
        commands[f"sweepfw logs {name} -f"] = "follow what it prints"
        commands[f"sweepfw stop {name}"] = "cancel it"
    elif attempts:
        commands[f"sweepfw logs {name}"] = "what it printed"
    if trial.state == "failed":
        sweep, _, wanted = name.partition("/")
        commands[f"sweepfw debug {name}"] = "run it again in the foreground"
        commands[f"sweepfw retry {sweep} {wanted}"] = "run it again"
    if trial.state == "queued":
        commands[f"sweepfw resume {name.partition('/')[0]}"] = "run what lacks an end"
    longest = max(map(len, commands), default=0)
    for line, why in commands.items():
        yield f"  {line:<{longest}}  {why}"
