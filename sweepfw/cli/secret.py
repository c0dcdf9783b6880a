"""`secret`: store what trials need and nobody is to see; list the names; remove them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sweepfw.cli import options
from sweepfw.cli.complete import secret_names
from sweepfw.errors import SweepError

NAME = click.argument("name", shell_complete=secret_names)


@click.group()
def secret() -> None:
    """Store what trials need and nobody is to see.

    A project names what it needs under `secrets` in its project.yml. Values lie in your state folder, for you
    only, and are read when a sweep is run or goes on.

    \b
    sweepfw secret set WANDB_API_KEY    asks for it
    sweepfw secret ls
    """


@secret.command("set", short_help="Store a secret.")
@NAME
@click.option("--from-file", metavar="FILE", type=click.Path(), help="Take the content of FILE as it is.")
@click.option("--from-env", metavar="VARIABLE", help="Take the value of an environment variable.")
def set_(name: str, from_file: str | None, from_env: str | None) -> None:
    """Store a secret, in place of what had the NAME.

    Without options it is asked for on a terminal, where nothing of it shows, and is standard input elsewhere,
    as it is. As a variable it goes without a line end at its end.
    """
    from sweepfw.config.secrets import check_name, store
    from sweepfw.core.secrets import SHORTEST

    if "=" in name:  # what stands behind it is a secret, and not to be repeated on the screen
        name = name.partition("=")[0]
        raise SweepError(f"{name}: the value is no part of the name; `sweepfw secret set {name}` asks for it")
    check_name(name)
    if from_file is not None and from_env is not None:
        raise SweepError("--from-file and --from-env exclude each other; name one of them")
    value = _given(name, from_file, from_env)
    store(name, value)
    click.echo(f"{name} is stored: {len(value):,} bytes")
    if len(value.strip()) < SHORTEST:
        click.echo(
            f"sweepfw: warning: {name} is shorter than {SHORTEST} bytes, so it is not masked where a trial "
            "prints it",
            err=True,
        )


@secret.command("ls", short_help="List the names of the stored secrets.")
@options.as_json
def ls(as_json: bool) -> None:
    """List the names of the stored secrets, their sizes, and when they were set; never a value."""
    from sweepfw.config.secrets import stored

    found = stored()
    if as_json:
        import json

        click.echo(json.dumps([each._asdict() for each in found], indent=2))
    elif not found:
        click.echo("no secret is stored; `sweepfw secret set NAME` stores one")
    else:
        from sweepfw.cli.render import Screen, local_time, table

        rows = [[each.name, f"{each.bytes:,}", local_time(each.set)] for each in found]
        click.echo("\n".join(table(("NAME", "BYTES", "SET"), rows, Screen.of(sys.stdout))))


@secret.command("rm", short_help="Remove secrets.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=secret_names)
def rm(names: tuple[str, ...]) -> None:
    """Remove secrets from this machine. Sweeps that run keep what they were given."""
    from sweepfw.config.secrets import remove

    remove(names)
    click.echo("\n".join(f"{name} removed" for name in dict.fromkeys(names)))


def _given(name: str, from_file: str | None, from_env: str | None) -> bytes:
    """The value, from wherever it comes; of a file too large no more than shows that."""
    from sweepfw.config.secrets import LARGEST

    if from_env is not None:
        if from_env not in os.environ:
            raise SweepError(
                f"--from-env: there is no variable {from_env[:60]!r}; export it, or leave it out"
            )
        return os.environb[os.fsencode(from_env)]
    if from_file is not None:
        try:
            with Path(from_file).expanduser().open("rb") as file:
                return file.read(LARGEST + 1)
        except OSError as error:
            raise SweepError(f"--from-file: {from_file}: can't be read ({error.strerror})") from None
    if sys.stdin is None:  # closed by who started us
        return b""
    if sys.stdin.isatty():
        typed: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True)
        return os.fsencode(typed)
    return sys.stdin.buffer.read(LARGEST + 1)
