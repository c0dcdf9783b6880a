"""Where sweeps live: this machine, or a deployment. Verbs ask a site and need not know which it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.deployed import There
    from sweepfw.config.workspace import Workspace
    from sweepfw.core.model import Sweep
    from sweepfw.core.secrets import Secrets
    from sweepfw.ledger.interface import Ledger

HERE = "here"


class Printed(Protocol):
    """What one attempt printed, read while it grows."""

    def read(self, write: Callable[[bytes], object], *, ended: bool) -> bool:
        """Hand on what is new; whether there was something. `ended`: nothing is written any more."""
        ...

    def close(self) -> None: ...


class Site(Protocol):
    """`name` is `here`, or the deployment's. `place` is the workspace: there lies what came home."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Workspace: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def remote(self) -> bool: ...

    def live(self, sweep: Sweep) -> bool:
        """Whether somebody runs the sweep, or will as soon as there is room."""
        ...

    def slots(self) -> int | None:
        """How many trials can run at once; None where only those who run them know."""
        ...

    def log(self, sweep: Sweep, trial: int, attempt: int) -> Printed: ...

    def tail(self, sweep: Sweep, trial: int, attempt: int, printed: int) -> bytes:
        """The last bytes of an ended attempt's log, of which there were `printed`."""
        ...

    def lines(self, sweep: Sweep, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        """The lines of a file in the attempt's folder; none where it is not there."""
        ...

    def files(self, sweep: Sweep, trial: int, attempt: int) -> dict[str, int]:
        """The attempt's files that a deployment's head keeps, with their sizes in bytes."""
        ...

    def fetch(self, snapshot: str) -> None:
        """Make sure that a sweep's snapshot is in this workspace's store."""
        ...

    def receive(self, snapshot: str) -> None:
        """Make sure that a snapshot of this workspace is where trials get it from."""
        ...

    def give(self, uid: str, secrets: Secrets) -> None:
        """Bring a sweep's secrets to where its trials get them from, before any of them is queued."""
        ...

    def forget(self, sweep: Sweep, *, stop: bool) -> None:
        """Delete the sweep with all its files. `stop`: end what runs first, at once."""
        ...


class Here:
    """This machine's own ledger and files."""

    name = HERE
    remote = False

    def __init__(self, place: Workspace, ledger: Ledger) -> None:
        self.place, self.ledger = place, ledger

    def live(self, sweep: Sweep) -> bool:
        """See Site.live."""
        from sweepfw.engine.lock import SweepLock

        return SweepLock.held(self.place, sweep.uid)

    def slots(self) -> int | None:
        """See Site.slots."""
        return None

    def log(self, sweep: Sweep, trial: int, attempt: int) -> Printed:
        """See Site.log."""
        from sweepfw.cli.log import Log

        return Log(self._folder(sweep, trial, attempt) / "output.log", sweep.spec.log_limit)

    def tail(self, sweep: Sweep, trial: int, attempt: int, printed: int) -> bytes:
        """See Site.tail."""
        from sweepfw.trial.output import tail

        return tail(str(self._folder(sweep, trial, attempt)))

    def lines(self, sweep: Sweep, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        """See Site.lines."""
        from sweepfw.trial.guard.files import open_plain

        try:
            file = os.fdopen(open_plain(str(self._folder(sweep, trial, attempt) / path)), "rb")
        except PermissionError:
            raise
        except OSError:  # not there, or something that the trial put in its place
            return
        with file:
            yield from file

    def files(self, sweep: Sweep, trial: int, attempt: int) -> dict[str, int]:
        """See Site.files: there is no head."""
        return {}

    def fetch(self, snapshot: str) -> None:
        """See Site.fetch: it is."""

    def receive(self, snapshot: str) -> None:
        """See Site.receive: it is there."""

    def give(self, uid: str, secrets: Secrets) -> None:
        """See Site.give: trials get them from who runs them."""

    def forget(self, sweep: Sweep, *, stop: bool) -> None:
        """See Site.forget. BusyError where it runs."""
        from sweepfw.cli.removal import remove

        remove(self.place, self.ledger, sweep, stop=stop)

    def _folder(self, sweep: Sweep, trial: int, attempt: int) -> Path:
        return self.place.attempt(sweep.name, trial, attempt)


class Found(NamedTuple):
    """A sweep and where it lives."""

    site: Site
    sweep: Sweep


class Sites:
    """The sites that a command may mean. `on` names a deployment; `here` rules all of them out.

    This machine's ledger is asked first, and a deployment only for what is not there: so commands about
    sweeps of this machine don't wait for a network.
    """

    def __init__(self, on: str | None = None, *, here: bool = False) -> None:
        from sweepfw.config.workspace import Workspace

        self.place = Workspace.find(Path.cwd())
        self._on, self._here = on, here
        self._there: There | None = None
        if on == "":  # an unset variable, mostly
            raise SweepError("--on: names no deployment; leave it out for the usual one")
        if on and here:
            raise SweepError("--on and --here rule each other out; name one of them")

    def local(self) -> Site | None:
        """This machine, if it ever ran something; None with --on."""
        if self._on or not self.place.ledger.exists():
            return None
        return self._here_now()

    def deployment(self) -> There | None:
        """The deployment that is meant, connected; None where there is none. UnreachableError without an
        answer."""
        if self._there is None and not self._here and has_deployments(self._on):
            from sweepfw.cli.deployed import There

            self._there = There.choose(self._on, self.place)
        return self._there

    def named(self) -> Site | None:
        """The deployment that --on names."""
        return self.deployment() if self._on else None

    def all(self) -> Iterator[Site]:
        for site in (self.local(), self.deployment()):
            if site is not None:
                yield site

    def find(self, name: str) -> Found:
        """A sweep by its name. SweepError that suggests the nearest one."""
        failure: SweepError | None = None
        for site in self.all():
            try:
                return Found(site, site.ledger.sweep(name))
            except SweepError as error:
                if type(error) is not SweepError:
                    raise
                failure = error
        if failure:
            raise failure
        return Found(here := self._here_now(), here.ledger.sweep(name))

    def _here_now(self) -> Here:
        """This machine. SweepError where it never ran anything."""
        from sweepfw.ledger.local import open_ledger

        return Here(self.place, open_ledger(self.place, create=False))

    def find_all(self, names: Iterable[str]) -> list[Found]:
        """Each sweep once, in the order of the names."""
        from sweepfw.core.naming import parse_target

        return [self.find(parse_target(name, trial=False).sweep) for name in dict.fromkeys(names)]


def has_deployments(on: str | None = None) -> bool:
    """Whether this user has any: a look at a folder, so that commands without one cost nothing."""
    import os

    if on:
        return True
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111  # every start
    try:
        with os.scandir(f"{state}/sweepfw/deployments") as found:
            return any(entry.is_dir() for entry in found)
    except OSError:
        return False
