"""From the command line to a deployment's head: through one SSH connection, or directly where it is here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import FLOWER_PORT, SERVICE_PORT, Role, container
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet.credentials import head_reader
from sweepfw.shell import faults
from sweepfw.shell.access import Access
from sweepfw.shell.local import LocalShell
from sweepfw.shell.openssh import Wire, run_command, wire_command
from sweepfw.shell.route import Hop, resolve

if TYPE_CHECKING:
    from sweepfw.ledger.client import Client, HttpDesk, HttpLedger

_PATIENCE = 10.0  # seconds for each step
_REFUSED = "open failed"  # what ssh says where nothing answers at the wire's other end
_FORMAT = "{{.Name}} {{.State.Running}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


class Reached:
    """A head that answered: its ledger and its desk. Use as a context, or `close` it."""

    def __init__(self, client: Client, line: _Line) -> None:
        from sweepfw.ledger.client import HttpDesk, HttpLedger

        self._client, self._line = client, line
        self.ledger: HttpLedger = HttpLedger(client)
        self.desk: HttpDesk = HttpDesk(client)

    def close(self) -> None:
        self._client.close()
        self._line.close()

    def __enter__(self) -> Reached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(state: DeploymentState) -> Reached:
    """Reach the head's service. UnreachableError, one line within 15 seconds, where it does not answer."""
    from sweepfw.ledger.client import Client

    certificate, token = head_reader(state.credentials)
    line = _Line(state)
    place = f"deployment {state.name}, head {state.deployment.head}"
    try:
        client = Client(line.dial, certificate, token.reveal(), place=place)
        client.hello()
    except BaseException:
        line.close()
        raise
    return Reached(client, line)


@contextmanager
def forward(state: DeploymentState, port: int = 0) -> Iterator[int]:
    """A port on this machine's loopback (0: a free one) that leads to Flower, for as long as the context
    lasts. Yields the port. SweepError where the port is taken."""
    from sweepfw.shell.forward import listening

    line = _Line(state)
    with ExitStack() as stack:
        if not line.head.local:
            # Browsers open connections by the half-dozen: they share one login, and no wire for each.
            from sweepfw.shell.ssh import SshShell

            shell = SshShell.open(line.head, line.access)
            stack.callback(shell.close)
            address = line.ask("flower")
            yield stack.enter_context(listening(port, lambda: shell.dial(address, FLOWER_PORT)))
        else:
            address = line.ask("flower")
            yield stack.enter_context(listening(port, lambda: _tcp(address, FLOWER_PORT)))


class _Line:
    """Connections to the service, made as they are asked for, also by several threads at once."""

    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self.head = state.deployment.host(state.deployment.head)
        self.access = Access(state.known_hosts, state.deployment.identity, timeout=_PATIENCE)
        self._addresses = dict(state.head_addresses)
        self._hops: tuple[Hop, ...] | None = None
        self._wires: list[Wire] = []

    def dial(self) -> socket.socket:
        """A connected socket. The address that is remembered may be the one of before the last restart: who
        finds nobody there comes again, and then the head is asked."""
        wires, self._wires = self._wires, []
        lost = [wire for wire in wires if wire.ended]
        self._wires += [wire for wire in wires if wire not in lost]
        if any(_REFUSED in wire.said for wire in lost):
            self._addresses.pop("head", None)
        for wire in lost:
            wire.close()
        return self._tcp() if self.head.local else self._wire()

    def _wire(self) -> socket.socket:
        command = wire_command(self._way(), self.access, self._address(), SERVICE_PORT)
        wire = Wire.open(self.head.name, command, _PATIENCE + 2)
        self._wires.append(wire)
        return wire.socket

    def _tcp(self) -> socket.socket:
        try:
            return _tcp(self._address(), SERVICE_PORT)
        except OSError:
            self._addresses.pop("head", None)
            return _tcp(self._address(), SERVICE_PORT)

    def _address(self) -> str:
        return self._addresses.get("head") or self.ask("head")

    def _way(self) -> tuple[Hop, ...]:
        if self._hops is None:
            self._hops = resolve(self.head, self.access, LocalShell())
        return self._hops

    def ask(self, role: Role) -> str:
        """Where the container is now, as Docker on the head says; remembered for the next time."""
        state = self._state
        names = {each: container(state.name, state.uid, each) for each in _ROLES}
        question = cmd("docker", "inspect", "--type", "container", "--format", _FORMAT, *names.values())
        try:
            result = LocalShell().run(self._there(question), timeout=_PATIENCE + 4)
        except SweepError as error:  # ssh, or docker, does not come to an end, or is not here
            raise UnreachableError(f"{self.head.name}: {error}") from None
        said = result.err.decode(errors="replace")
        found = read_addresses(result.text, names)
        if role not in found:
            if result.code == 255 and not self.head.local:
                raise faults.from_ssh(self.head.name, said)
            raise UnreachableError(_missing(self.head.name, role, result.text, said))
        self._addresses = found
        _remember(state, found)
        return found[role]

    def _there(self, command: Cmd) -> Cmd:
        return command if self.head.local else run_command(self._way(), self.access, command)

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


_ROLES: tuple[Role, ...] = ("head", "flower")


def read_addresses(text: str, names: dict[Role, str]) -> dict[str, str]:
    """The addresses of the containers that run, from what `docker inspect` printed."""
    running: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] == "true":
            running[words[0].lstrip("/")] = words[2]
    return {role: running[name] for role, name in names.items() if name in running}


def _missing(host: str, role: Role, text: str, said: str) -> str:
    if " false" in text or " true" in text:
        return f"{host}: the container {role} does not run there; `sweepfw infra up` mends that"
    if "No such" in said:
        return f"{host}: there is no container {role} of this deployment; `sweepfw infra up` makes it"
    why = said.strip().splitlines() or ["no reason was given"]
    return f"{host}: Docker there does not say where the {role} is: {why[-1][:200]}"


def _remember(state: DeploymentState, addresses: dict[str, str]) -> None:
    """For the next command; unless `up` or `down` is at it, or was, which know better."""
    state.head_addresses = addresses
    try:
        with state.lock():
            now = DeploymentState.load(state.name)
            if now.uid == state.uid:
                now.head_addresses = addresses
                now.save()
    except SweepError:
        pass


def _tcp(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=_PATIENCE)
