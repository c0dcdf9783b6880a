"""`infra`: the group of verbs that bring a deployment up, look at it, and take it down."""

from __future__ import annotations

from importlib import import_module

import click

VERBS = {
    "up": "Bring a deployment up, or to what its configuration says now.",
    "doctor": "Look at the hosts, and change nothing.",
    "status": "Show how the deployment is.",
    "logs": "Print what a service on a host printed.",
    "down": "Bring results home and remove all that was made.",
}


class Infra(click.Group):
    """Imports a verb when it is called; its module is `infra_<verb>`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(f"sweepfw.cli.infra_{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name.ljust(7), text) for name, text in VERBS.items()])


@click.command(cls=Infra)
def infra() -> None:
    """Bring hosts up as a deployment over SSH, look at it, take it down.

    \b
    sweepfw infra up -a gpu1,gpu2   broker, head and Flower on gpu1, workers on both
    sweepfw run mine                now runs there
    sweepfw infra down              results home, all else gone
    """
