"""Values reach the command byte for byte, whatever is in them: on real processes, all flags, also a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# A trial prints its arguments, each with a NUL behind it: no argument can hold one.
RECORD = """printf '%s\\0' "$@"\n"""

VALUES = [
    "; rm -rf ~", "$(id)", "`id`", "*", "?", "[a-z]*", "~", "~root", "$HOME", "${HOME}", "$((1+1))",
    "$@", "!!", "'", '"', "''", "'\"'\"'", "a'b", 'a"b', "\\", "\\\\", "a\\", "\\n", "\\'", "%s%n",
    "%", "&& id", "| id", "> out", "< /etc/passwd", "#comment", "a #b", "a\nb", "\n", "\n\n",
    "'\n'", "a\n", "\ta\t", " ", "  a  ", "", "-x", "--", "--a=b", "-", "=", "a=b", "{v}", "{{v}}",
    "{", "}", "{trial}", "{output}", "{nosuch}", "${v}", "🦄", "👩‍👩‍👧‍👦", "🇺🇳", "עברית", "العربية",
    "\u202egnp.exe", "\u2066x\u2069", "e\u0301", "\u200b", "\ufeff", "\u00a0", "\u2028", "\u2029",
    "\ufffd", "\ufffe", "\U0010ffff", "日本語", "null", "true", "yes", "1e400", ".nan", "010", "1_000",
    "0x10", "<<", "*a", "&a", "!tag", "%YAML", "@x", "a: b", "- a", "? a", "|", ">", ",", "[", "]",
    "x" * 10_000, "é" * 5_000,
]  # fmt: skip

FLAGS = {
    "equals": ("command: [sh, record.sh]", lambda value: [f"--v={value}"]),
    "space": ("command: [sh, record.sh]\nflags: space", lambda value: ["--v", value]),
    "bare": ("command: [sh, record.sh]\nflags: bare", lambda value: [f"v={value}"]),
    "placeholders": (
        "command: [sh, record.sh, '{v}', 'a{v}b{v}c']",
        lambda value: [value, f"a{value}b{value}c"],
    ),
    "shell": (
        """command: 'sh record.sh {v} "x{v}y" ''x{v}y'' "$(printf ''%s.'' {v})"'\nshell: true""",
        lambda value: [value, f"x{value}y", f"x{value}y", f"{value}."],
    ),
    "here-document": (  # the value comes by way of a variable; in the document itself it would be refused
        "shell: true\ncommand: |\n  v={v}\n  printf '%s\\0' \"$(cat <<EOF\n  x${v}\n  EOF\n  printf .)\" {v}",
        lambda value: [f"x{value}\n.", value],
    ),
    "shell arguments": ("command: sh record.sh\nshell: true", lambda value: [f"--v={value}"]),
}  # fmt: skip


def quoted(value: str) -> str:
    """YAML for the value: in double quotes, escaped where the character can't stand for itself."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def make(root: Path, project: str, values: Sequence[str]) -> None:
    folder = root / "projects/p"
    folder.mkdir(parents=True)
    (root / ".sweepfw").mkdir()
    (folder / "project.yml").write_text(project + "\n")
    (folder / "parameters.yml").write_text("v:\n" + "".join(f"- {quoted(value)}\n" for value in values))
    (folder / "record.sh").write_text(RECORD)


def sweepfw(root: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sweepfw", *arguments],
        cwd=root,
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def received(root: Path, trial: int) -> list[str]:
    """What the trial's command got, from its log. Bytes that are not UTF-8 would show as surrogates."""
    log = (root / f"runs/p-1/trials/{trial}/1/output.log").read_bytes()
    return log.decode("utf-8", "surrogateescape").split("\0")[:-1]


@pytest.mark.parametrize("flags", FLAGS)
def test_hostile_values(flags: str, tmp_path: Path) -> None:
    project, expected = FLAGS[flags]
    make(tmp_path, project, VALUES)
    before = sorted(path.name for path in tmp_path.iterdir())
    sweepfw(tmp_path, "run", "p", "--quiet", "-j", "2", LC_ALL="C")  # the locale changes nothing
    for trial, value in enumerate(VALUES, 1):
        assert received(tmp_path, trial) == expected(value), value
    params = [t["params"]["v"] for t in json.loads(sweepfw(tmp_path, "show", "p-1", "--json"))["trials"]]
    assert params == VALUES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "runs"])


def test_on_the_command_line(tmp_path: Path) -> None:
    """`--set` too: what the user's shell let through is what the command gets."""
    make(tmp_path, "command: [sh, record.sh]", ["x"])
    hostile = ["; rm -rf ~", "$(id)", "`id`", "*", "a'b", "a b", "🦄", "\u202ex", "#x", "a=b"]
    sweepfw(tmp_path, "run", "p", "--quiet", "--set", f"v={','.join(hostile)}")
    assert [received(tmp_path, n) for n in range(1, 11)] == [[f"--v={value}"] for value in hostile]


characters = st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t'\"\\$`*;&|<>(){}[]#~!= ")


@settings(max_examples=3)
@given(values=st.lists(st.text(characters, max_size=20), min_size=1, max_size=25, unique=True))
@pytest.mark.parametrize("flags", FLAGS)
def test_plan_tells_the_truth(
    flags: str, values: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What `plan --json` says is what the command gets, for any values."""
    root = tmp_path_factory.mktemp("any")
    make(root, FLAGS[flags][0], values)
    planned = [json.loads(line)["argv"] for line in sweepfw(root, "plan", "p", "--json").splitlines()]
    sweepfw(root, "run", "p", "--quiet", "-j", "2")
    for trial, (value, argv) in enumerate(zip(values, planned, strict=True), 1):
        got = received(root, trial)
        assert got == FLAGS[flags][1](value)
        if argv[0] != "/bin/sh":
            assert argv == ["sh", "record.sh", *got]
