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
changed, 3 stopped or paused, 75 someone else holds what is needed, 130 interrupted.
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
    top = help_of()
    names = commands(top)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = list(pool.map(help_of, names))
    parts = [HEAD, f"## sweepfw\n\n```text\n{top}\n```\n"]
    parts += [f"## sweepfw {name}\n\n```text\n{text}\n```\n" for name, text in zip(names, texts, strict=True)]
    return "\n".join(parts)
