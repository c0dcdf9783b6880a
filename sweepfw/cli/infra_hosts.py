"""What `infra up` and `infra doctor` share: their options, the configuration these make, and its hosts,
reached with the user's yes to keys that nobody knows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import Deployment, Host
    from sweepfw.shell.access import Access
    from sweepfw.shell.host_keys import UnknownKeyError
    from sweepfw.shell.shell import Shell

F = TypeVar("F", bound=Callable[..., Any])


class Asked(NamedTuple):
    """The options that say which hosts, and how they are reached."""

    hosts: str | None
    identity: str | None
    remote_dir: str | None
    head: str | None
    workers: str | None
    file: str | None
    name: str | None
    local: bool
    trust: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The configuration: the one that is named, else that of this workspace."""
        from sweepfw.cli import options
        from sweepfw.config.deployment import FILE

        return Path(self.file) if self.file else options.workspace().root / FILE

    @property
    def changing(self) -> bool:
        """Whether an option says anything about the configuration."""
        told = (self.hosts, self.identity, self.remote_dir, self.head, self.workers, self.name)
        return self.local or any(each is not None for each in told)


def asked(command: F) -> F:
    """Add the options of `Asked`; the command gets them as its argument `what`."""
    from functools import wraps

    @wraps(command)
    def with_what(**options: Any) -> Any:
        what = Asked(*(options.pop(name) for name in Asked._fields))
        return command(what=what, **options)

    decorated: Any = with_what
    for option in reversed(
        (
            click.option(
                "--hosts", "-a", metavar="HOST,...", help="[user@]host[:port], or aliases of ssh's."
            ),
            click.option("--identity", "-i", metavar="KEY", help="The private key to log in with."),
            click.option(
                "--remote-dir", "-r", metavar="DIR", help="Our folder on the hosts. [default: ~/.sweepfw]"
            ),
            click.option(
                "--head", "-m", metavar="local|N", help="This machine, or the Nth of -a. [default: 1]"
            ),
            click.option("--workers", "-w", metavar="local,N,...", help="Who runs trials. [default: all]"),
            click.option("--file", "-f", metavar="FILE", help="The configuration. [default: config.yml]"),
            click.option("--name", metavar="D", help="The deployment's name."),
            click.option("--local", is_flag=True, help="Head and worker on this machine."),
            click.option(
                "--trust",
                multiple=True,
                metavar="HOST=SHA256:...",
                help="A host key that is right. May be given again.",
            ),
        )
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click decorates by adding attributes


def wanted(what: Asked) -> tuple[Deployment, Deployment | None]:
    """The deployment that the options and the configuration make, and what the file says now."""
    from sweepfw.config.deployment import from_options, load_deployment, local_deployment

    old = load_deployment(what.path) if what.path.exists() else None
    if what.local:
        if what.hosts or what.head or what.workers:
            raise click.UsageError("--local means this machine alone: leave -a, -m and -w out")
        return local_deployment(what.name, old), old
    if old is None and what.hosts is None:
        raise click.UsageError(
            f"which hosts? name them with -a, or write {what.path.name}; --local is this one"
        )
    if not what.changing:
        assert old is not None  # see above
        return old, old
    made = from_options(
        what.hosts,
        identity=what.identity,
        remote_dir=what.remote_dir,
        head=what.head,
        workers=what.workers,
        name=what.name,
        base=old,
    )
    return made, old


def known() -> dict[str, str]:
    """The user's deployments: uid -> name. Those that can't be read are none."""
    from sweepfw.config.deployments import DeploymentState, names

    found = {}
    for name in names():
        try:
            found[DeploymentState.load(name).uid] = name
        except SweepError:
            continue
    return found


@contextmanager
def stated(deployment: Deployment) -> Iterator[tuple[DeploymentState, bool]]:
    """The deployment's state; of one that there is not yet a draft, of which no trace is left, and True."""
    import secrets

    from sweepfw.config.deployments import DeploymentState, drafting, names

    if deployment.name in names():
        yield DeploymentState.load(deployment.name), False
        return
    with drafting() as folder:
        yield DeploymentState(folder, secrets.token_hex(16), deployment), True


@dataclass(slots=True)
class Reaching:
    """Opens shells on hosts; a key that nobody knows is shown, and asked for on a terminal."""

    access: Access
    ask: bool = True

    def open(self, hosts: tuple[Host, ...]) -> dict[str, Shell | SweepError]:
        from sweepfw.fleet.up import open_shells
        from sweepfw.shell.host_keys import UnknownKeyError

        shells = open_shells(hosts, self.access)
        while unknown := [each for each in shells.values() if isinstance(each, UnknownKeyError)]:
            accepted = [self._accept(error) for error in unknown]
            again = [host for host in hosts if isinstance(shells[host.name], UnknownKeyError)]
            if not any(accepted):
                break
            shells |= open_shells(again, self.access)
            self.ask = all(accepted)  # whoever said no to one is not asked a second time
        return shells

    def _accept(self, error: UnknownKeyError) -> bool:
        """Whether the person at the terminal vouches for the key."""
        if not self.ask or not sys.stdin.isatty():
            return False
        click.echo(f"{error.host} ({error.name}) shows a key that is not known here:", err=True)
        click.echo(f"  {error.key.type} {error.key.fingerprint}", err=True)
        if not click.confirm("Is it the right one? (`ssh-keygen -lf` on that host tells)", err=True):
            return False
        error.accept(self.access.known_hosts)
        return True


def close(shells: dict[str, Shell | SweepError]) -> None:
    for shell in shells.values():
        if not isinstance(shell, SweepError):
            shell.close()
