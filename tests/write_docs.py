"""Write docs/cli.md and the outputs in README.md; run by `scripts/docs`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from cli_reference import ROOT, reference

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    (ROOT / "docs" / "cli.md").write_text(reference())
    readme = ROOT / "README.md"
    with tempfile.TemporaryDirectory() as made:
        workspace = Path(made)
        (workspace / ".sweepfw").mkdir(mode=0o700)
        shutil.copytree(ROOT / "projects", workspace / "projects")
        readme.write_text(CONSOLE.sub(lambda block: filled(block, workspace), readme.read_text()))


def filled(block: re.Match[str], workspace: Path) -> str:
    """The block with each command's output as it is now."""
    lines = [line for line in block[1].splitlines() if line.startswith("$ ")]
    return "```console\n" + "".join(f"{line}\n{output(line[2:], workspace)}" for line in lines) + "```"


def output(command: str, workspace: Path) -> str:
    """What a person sees, without a terminal's colours."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=workspace,
        env={
            **os.environ,
            "COLUMNS": "100",
            "PIP_QUIET": "2",  # where packages come from is the machine's own
            "XDG_STATE_HOME": str(workspace / ".state"),  # and so are the user's deployments
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


if __name__ == "__main__":
    main()
