"""A deployment's hosts, reached side by side: one connection each, and what kept us from those without."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet import remains
from sweepfw.fleet.facts import NONSENSE
from sweepfw.fleet.remains import Remains

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import Host
    from sweepfw.shell.shell import Shell

T = TypeVar("T")
Open = Callable[["DeploymentState", "Host"], "Shell"]


@dataclass(frozen=True, slots=True)
class Hosts:
    """`shells` of the hosts that answer, and the failure of each that does not; both by the host's name."""

    shells: Mapping[str, Shell]
    failures: Mapping[str, SweepError]

    def close(self) -> None:
        for shell in self.shells.values():
            shell.close()


def open_shell(state: DeploymentState, host: Host) -> Shell:
    """A shell on the host: this machine's own, or one over SSH."""
    if host.local:
        from sweepfw.shell.local import LocalShell

        return LocalShell()
    from sweepfw.shell.access import Access
    from sweepfw.shell.ssh import SshShell

    return SshShell.open(host, Access(state.known_hosts, state.deployment.identity))


@contextmanager
def opened(
    state: DeploymentState, hosts: Iterable[Host] | None = None, *, open: Open = open_shell
) -> Iterator[Hosts]:
    """The deployment's hosts, or these of them. Closed when the context ends."""
    wanted = list(state.deployment.hosts if hosts is None else hosts)
    found = side_by_side({host.name: bound(open, state, host) for host in wanted})
    failures = {name: shell for name, shell in found.items() if isinstance(shell, SweepError)}
    reached = Hosts({n: shell for n, shell in found.items() if not isinstance(shell, SweepError)}, failures)
    try:
        yield reached
    finally:
        reached.close()


def look(state: DeploymentState, shell: Shell, host: str, *, gpus: bool = False) -> Remains:
    """What of the deployment is on the host. SweepError where it does not tell."""
    mark, remote_dir = secrets.token_hex(8), state.deployment.remote_dir
    question = remains.question(mark, state.name, state.uid, remote_dir, gpus=gpus)
    done = shell.run(question, timeout=120)
    try:
        return remains.read(mark, state.uid, done.text)
    except SweepError as error:
        raise UnreachableError(f"{host}: {error}") from None
    except NONSENSE as error:
        raise UnreachableError(f"{host}: its answers make no sense ({str(error)[:100]})") from None


class Beside(Generic[T]):
    """A call in a thread of its own. Nobody waits for it at the process's end: after Ctrl-C, no host is
    worth waiting for."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answer: Callable[[], T]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            found = self._call()
            self._answer = lambda: found
        except BaseException as error:  # raised where it is waited for
            self._answer = partial(_raise, error)

    def result(self) -> T:
        """What the call returned, or raised, once it has."""
        self._thread.join()
        return self._answer()


def _raise(error: BaseException) -> NoReturn:
    raise error


def side_by_side(calls: Mapping[str, Callable[[], T]]) -> dict[str, T | SweepError]:
    """What each call returned, or the SweepError that it raised, in the order of the calls."""
    asked = {name: Beside(bound(_kept, call)) for name, call in calls.items()}
    return {name: each.result() for name, each in asked.items()}


def _kept(call: Callable[[], T]) -> T | SweepError:
    try:
        return call()
    except SweepError as error:
        return error


def bound(call: Callable[..., T], *arguments: object) -> Callable[[], T]:
    """The call with its arguments, for later: a lambda in a loop would see the last ones."""
    return lambda: call(*arguments)
