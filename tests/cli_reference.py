"""What docs/cli.md must say: the help of every command, as the command prints it.

`scripts/docs` writes it; test_docs.py holds the file against it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
SWEEPFW = str(Path(sys.executable).with_name("sweepfw"))
HEAD = """# The command line

What `--help` says, in one place. `scripts/docs` writes this page and a test holds it against the commands.

Exit codes: 0 all succeeded (or it goes on in the background), 1 some trials failed, 2 bad input and nothing
changed, 3 stopped or paused, 4 a deployment does not answer, 75 someone else holds what is needed, 130
interrupted.
"""


def help_of(*command: str) -> str:
    """What `sweepfw COMMAND --help` prints on a terminal of 80 columns."""
    done = subprocess.run(
        [SWEEPFW, *command, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip()


def commands(text: str) -> list[str]:
    """The commands that a help text lists, in its order."""
    return re.findall(r"^  ([a-z][a-z-]*)  +\S", text.split("\nOptions:")[-1], re.MULTILINE)


def reference() -> str:
    """The whole page."""
    helps = {"": help_of(), **every_help()}
    parts = [f"## {f'sweepfw {name}'.strip()}\n\n```text\n{text}\n```\n" for name, text in helps.items()]
    return "\n".join([HEAD, *parts])


def every_help() -> dict[str, str]:
    """Every command with its help, those of groups too: `infra up`."""
    names = commands(help_of())
    for group in ("secret", "infra"):
        at = names.index(group) + 1
        names[at:at] = [f"{group} {verb}" for verb in commands(help_of(group))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: help_of(*name.split()), names), strict=True))
