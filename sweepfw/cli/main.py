"""The `sweepfw` command: finds a verb, imports only that, and turns failures into one line and a code."""

from __future__ import annotations

import gc
import os
import sys
from errno import EDQUOT, ENOSPC
from typing import NamedTuple

import click

from sweepfw import __version__, crash, modes
from sweepfw.errors import SweepError
from sweepfw.trial.guard.reap import close_up


class Verb(NamedTuple):
    module: str
    help: str


# In the order that people meet them. The sentence here is the one in `sweepfw --help`; the module holds a
# click command of the verb's name.
SECTIONS: dict[str, dict[str, Verb]] = {
    "Begin": {
        "new": Verb("new", "Make a project from a template that runs as it is."),
        "init": Verb("new", "Make a project of an existing folder."),
        "secret": Verb("secret", "Store what trials need and nobody is to see."),
        "plan": Verb("plan", "Show what would run, and run nothing."),
    },
    "Run": {
        "run": Verb("run", "Run every combination of a project's parameters."),
        "attach": Verb("attach", "Follow a sweep that runs elsewhere."),
        "pause": Verb("orders", "Let running trials end and start no new ones."),
        "stop": Verb("orders", "Cancel a sweep, or one trial of it."),
        "resume": Verb("goon", "Run what lacks an end."),
        "retry": Verb("goon", "Run failed trials again."),
        "extend": Verb("goon", "Add values to a sweep and run the missing combinations."),
        "debug": Verb("debug", "Run one trial again in the foreground."),
    },
    "Look": {
        "ls": Verb("ls", "List sweeps."),
        "show": Verb("show", "Show a sweep, or one trial of it."),
        "logs": Verb("logs", "Print what a trial printed."),
        "best": Verb("best", "Show the best trials by the objective."),
        "export": Verb("export", "Write parameters and metrics as csv, json, jsonl or md."),
    },
    "Cluster": {
        "infra": Verb("infra", "Bring SSH hosts up as a deployment, look at it, take it down."),
        "pull": Verb("pull", "Bring output files home from a deployment."),
        "flower": Verb("flower", "Open Flower, the live view of a deployment's tasks."),
    },
    "Tidy": {
        "rm": Verb("rm", "Delete a sweep with all its files."),
        "gc": Verb("gc", "Delete working copies, snapshots and environments not in use."),
        "completion": Verb("completion", "Print the completion script of a shell."),
    },
}
VERBS = {name: verb for verbs in SECTIONS.values() for name, verb in verbs.items()}


class Verbs(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        from importlib import import_module

        command = getattr(import_module(f"sweepfw.cli.{VERBS[cmd_name].module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), verb.help) for name, verb in verbs.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", "-V", prog_name="sweepfw")
def cli() -> None:
    """Run every combination of a grid of parameters, and lose none.

    \b
    sweepfw new mine               a project: a command and the parameters to try
    sweepfw plan mine              what would run
    sweepfw run mine               run it on this machine
    sweepfw best mine-1            the best trials
    sweepfw infra up -a gpu1,gpu2  from now on, `run` runs on these hosts
    """


def main() -> None:
    """The entry point: exit code 2 for bad input, the error's own for what it names, 130 for Ctrl-C."""
    modes.tighten()
    close_up()
    gc.set_threshold(20_000)  # we make few cycles, and many objects when we start or read a long sweep
    sys.exit(_guarded())


def _guarded() -> int:
    try:
        if crash.complaint:
            raise SweepError(crash.complaint)
        return int(cli(sys.argv[1:] or ["--help"], "sweepfw", standalone_mode=False) or 0)
    except SweepError as error:
        _say(str(error))
        return error.exit_code
    except click.ClickException as error:
        print(_usage(error), file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("sweepfw: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if os.environ.get("SWEEPFW_DEBUG"):
            raise
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}")
        return 3 if error.errno in (ENOSPC, EDQUOT) else 2
    except Exception as error:
        if os.environ.get("SWEEPFW_DEBUG"):
            raise
        return _bug(error)


def _say(text: str) -> None:
    """One line on stderr, whatever names and values of the user's it quotes."""
    from sweepfw.cli.terminal import safe

    print(f"sweepfw: {safe(text)}", file=sys.stderr)


def _usage(error: click.ClickException) -> str:
    """What is wrong with the arguments, in one line instead of click's block of four."""
    from sweepfw.cli.terminal import safe

    context = getattr(error, "ctx", None)
    command = context.command_path if context else "sweepfw"
    words = " ".join(error.format_message().split()).rstrip(".")
    return safe(f"{command}: {words[:1].lower()}{words[1:]} ({command} --help tells more)")


def _bug(error: Exception) -> int:
    import tempfile
    import traceback

    from sweepfw.cli.terminal import safe

    with tempfile.NamedTemporaryFile("w", prefix="sweepfw-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    print(
        f"sweepfw: this is a bug in sweepfw ({safe(f'{type(error).__name__}: {error}'[:1000])}); "
        f"please report it with {file.name}",
        file=sys.stderr,
    )
    return 70
