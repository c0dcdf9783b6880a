"""`infra logs`: what a service on a host printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweepfw.cli import chosen
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.command import Cmd

INTERRUPTED = 130


def _hosts(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    return _proposed(ctx, typed, lambda state: ["head", *(host.name for host in state.deployment.hosts)])


def _services(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    host = str(ctx.params.get("host"))
    return _proposed(ctx, typed, lambda state: services(state, named(state, host)))


def _proposed(ctx: click.Context, typed: str, choices: object) -> list[str]:
    """What may be typed; errors and silence are the same here."""
    assert callable(choices)
    try:
        found = choices(chosen.chosen(ctx.params.get("on")))
        return [word for word in found if word.startswith(typed)]
    except Exception:  # a message in the middle of somebody's typing would be worse than no proposal
        return []


@click.command()
@click.argument("host", shell_complete=_hosts)
@click.argument("service", shell_complete=_services)
@click.option("--follow", "-f", is_flag=True, help="Go on as it prints more, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N lines. [default: all]")
@chosen.on
def logs(host: str, service: str, follow: bool, tail: int | None, on: str | None) -> int:
    """Print what SERVICE on HOST printed: rabbitmq, head, flower, tunnel or worker.

    HOST is a host's name, or `head` for the one that the head runs on.
    """
    state = chosen.chosen(on)
    place = named(state, host)
    role = chosen.one_of(service, services(state, place), f"service on {place}")
    try:
        return _print(state, place, _command(state, role, follow=follow, tail=tail))
    except KeyboardInterrupt:
        return INTERRUPTED


def named(state: DeploymentState, host: str) -> str:
    """The host's own name. SweepError where the deployment has no such host."""
    if host == "head":
        return state.deployment.head
    return chosen.one_of(host, ["head", *(each.name for each in state.deployment.hosts)], "host")


def services(state: DeploymentState, host: str) -> tuple[str, ...]:
    """What should run on the host."""
    from sweepfw.fleet.status import roles

    return roles(state.deployment, host)


def _command(state: DeploymentState, role: str, *, follow: bool, tail: int | None) -> Cmd:
    from sweepfw.core.command import cmd
    from sweepfw.core.deployment import prefix

    words = ["--follow"] if follow else []
    words += ["--tail", str(tail)] if tail is not None else []
    # Docker keeps both of a service's streams and gives them back as two; people want them in their order.
    joined = 'exec docker logs "$@" 2>&1'
    return cmd("sh", "-c", joined, "sh", *words, prefix(state.name, state.uid) + role)


def _print(state: DeploymentState, host: str, command: Cmd) -> int:
    from sweepfw.cli.logs import writer
    from sweepfw.fleet.hosts import opened

    with opened(state, [state.deployment.host(host)]) as hosts:
        for failure in hosts.failures.values():
            raise failure
        done = hosts.shells[host].stream(command, None, writer())
    if done.code != 0:
        raise SweepError(f"{host}: Docker can't show it (exit code {done.code}); see: sweepfw infra status")
    return 0
