"""Whatever a trial prints: memory stays flat, the log keeps what was promised, the terminal is not harmed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from processes import family

GB = 1_000_000_000
LIMIT = 1_000_000
BLOCK = 1 << 16
MOST = 100_000  # kB that the command line may take; a keeper takes a fraction

# Numbered blocks, so that every byte tells where it was. Without a newline anywhere. Ends once it was seen.
FLOOD = f"""
import os, sys, time
left = int(sys.argv[1].partition("=")[2])
number = 0
while left > 0:
    data = (b"%015d " % number * {BLOCK // 16})[:left]
    while data:
        sent = os.write(1, data)
        left, data = left - sent, data[sent:]
    number += 1
room = os.environ["ROOM"]
open(room + "/flooded", "w").close()
end = time.monotonic() + 200
while not os.path.exists(room + "/seen") and time.monotonic() < end:
    time.sleep(0.05)
"""
PROJECT = (
    f"command: [python, flood.py]\nlog_limit: {LIMIT}\nmetrics: [loss]\nvariables: {{{{ROOM: '{{}}'}}}}\n"
)


def flood(start: int, end: int) -> bytes:
    """These bytes of what the trial prints."""
    blocks = range(start // BLOCK, -(-end // BLOCK))
    whole = b"".join(b"%015d " % number * (BLOCK // 16) for number in blocks)
    offset = start - start // BLOCK * BLOCK
    return whole[offset : offset + end - start]


def peak(pid: int) -> int:
    """The most memory that the process ever had, in kB; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("options", [[], ["--json", "--logs", "all"]], ids=["plain", "json"])
def test_a_gigabyte_without_a_newline(
    options: list[str],
    make_project: Callable[..., Path],
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    workspace_folder: Path,
    tmp_path: Path,
) -> None:
    make_project("flood", PROJECT.format(tmp_path), f"bytes: {GB}", {"flood.py": FLOOD})
    seen: dict[str, int] = {}
    with (tmp_path / "out").open("w") as out:
        process = start_sweepfw("run", "flood", *options, stdout=out)
        while process.poll() is None:
            flooded = (tmp_path / "flooded").exists()
            seen["cli"] = max(seen.get("cli", 0), peak(process.pid))
            for name, pids in family(process.pid).items():
                seen[name] = max([seen.get(name, 0), *map(peak, pids)])
            if flooded:
                (tmp_path / "seen").touch()
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0, process.stderr and process.stderr.read()
    print(seen)
    assert 0 < seen["cli"] < MOST
    assert 0 < seen["sweepfw-keeper"] < MOST / 2
    assert (tmp_path / "out").stat().st_size < LIMIT
    log = (workspace_folder / "runs/flood-1/trials/1/1/output.log").read_bytes()
    mark = f"\n[sweepfw: {GB - LIMIT} bytes left out here; log_limit is {LIMIT}]\n".encode()
    assert log == flood(0, LIMIT // 2) + mark + flood(GB - LIMIT // 2, GB)


NASTY = {
    "every byte": bytes(range(256)) * 64,
    "invalid UTF-8": b"\xff\xfe\xc0\x80\xed\xa0\x80\xf5\x80\x80\x80 \xe2\x82 loss=1.5 \xc3\n\x80" * 9,
    "title": b"\x1b]0;pwned\x07\x1b]2;pwned\x1b\\",
    "clipboard": b"\x1b]52;c;cm0gLXJmIH4=\x07",
    "clear, reset, screens": b"\x1b[2J\x1b[H\x1bc\x1b[?1049h\x1b[?25l\x1b[3J\x1b#8\x1b(0lqk\x1b)0\x0e\x0f",
    "questions that terminals answer": b"\x1b[6n\x1b[c\x1b[>c\x1b]10;?\x07\x05\x1bP$qm\x1b\\\x1b[21t",
    "eight bits": b"\x9b2J\x9d0;pwned\x9c \xc2\x9b2J\xc2\x9d0;pwned\xc2\x9c",
    "in pieces": b"\x1b\n[2J\x1b]0;pw\nned\x07 \x1b\r[2J",
    "back and forth": b"aaa\rbbb\x08\x08c\x0b\x0c\x1b[1A\x1b[999Ddone\n\x07\x07",
    "right to left": "\u202egnp.exe\u2066 \u200e\u061c\n".encode(),
    "no end": b"\x1b]0;" + b"x" * 100_000,
}
OURS = re.compile(r"\x1b\[(?:K|\d+m)")  # erase to the end of our own line; colours


def harmless(shown: bytes) -> None:
    """Assert that a terminal that gets these bytes does nothing but what we want of it."""
    text = OURS.sub("", shown.decode())  # never anything but UTF-8
    left = {char for char in text if not char.isprintable()} - {"\r", "\n", "\t"}
    assert not left, sorted(left)


@pytest.fixture
def in_terminal(workspace_folder: Path) -> Callable[..., bytes]:
    """in_terminal("run", "p"): all that the real command wrote to a terminal of its own."""

    def run(*arguments: str) -> bytes:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "sweepfw", *arguments],
            cwd=str(workspace_folder),
            env={**os.environ, "TERM": "xterm-256color"},
            dimensions=(24, 100),
            timeout=200,
        )
        shown: bytes = child.read()
        child.close()
        assert child.exitstatus in (0, 1), shown
        return shown

    return run


def test_nothing_reaches_the_terminal(
    make_project: Callable[..., Path], in_terminal: Callable[..., bytes], workspace_folder: Path
) -> None:
    """Output of trials that succeed and that fail, live and from the log; byte for byte in the log."""
    folder = make_project(
        "nasty",
        'command: "cat out-{n}; test $(({n} % 2)) = 0"\nshell: true\nmetrics: [loss]\nmax_failures: 0\n'
        "objective: {metric: loss}\n",
        f"n: !!python/tuple [0, {2 * len(NASTY)}]\n",
    )
    for number, data in enumerate(NASTY.values()):
        for n in (2 * number, 2 * number + 1):
            (folder / f"out-{n}").write_bytes(data)
    harmless(in_terminal("run", "nasty", "-j", "1", "-m", "note \u202egnp.exe, näh 🦄"))
    harmless(in_terminal("run", "nasty", "-j", "1", "--logs", "failed", "-q"))
    for number, data in enumerate(NASTY.values()):
        for trial in (2 * number + 1, 2 * number + 2):
            log = workspace_folder / f"runs/nasty-1/trials/{trial}/1/output.log"
            assert log.read_bytes() == data
        harmless(in_terminal("logs", f"nasty-1/{2 * number + 1}"))
    for verb in (["ls"], ["show", "nasty-1"], ["best", "nasty-1"], ["show", "nasty-1/2"]):
        harmless(in_terminal(*verb))


def test_a_trials_words_and_files(
    make_project: Callable[..., Path], in_terminal: Callable[..., bytes]
) -> None:
    """Names of files that a trial leaves, its metrics, and values of parameters are shown, not obeyed."""
    make_project(
        "words",
        "command: [python, words.py]\nobjective: {metric: loss}\n",
        'v: ["\\u202egnp.exe", "\\u200bx", "a\\nb\\tc", "🦄"]\n',
        {
            "words.py": "import json, os\n"
            "open('left\\x1b]0;pwned\\x07', 'w').close()\n"
            "with open(os.environ['SWEEPFW_METRICS'], 'w') as file:\n"
            "    file.write(json.dumps({'loss': 1, 'evil\\x1b[2J': 2, 'a\\nb': 3}) + '\\n')\n"
        },
    )
    harmless(in_terminal("plan", "words"))
    harmless(in_terminal("run", "words"))
    for verb in ("show words-1", "show words-1/1", "best words-1", "ls"):
        harmless(in_terminal(*verb.split()))
    assert b"\x1b" not in in_terminal("export", "words-1", "--format", "md")


def test_the_terminal_is_out_of_reach(
    make_project: Callable[..., Path], in_terminal: Callable[..., bytes], workspace_folder: Path
) -> None:
    """A trial has no terminal to write to or to change, and nothing to read."""
    make_project(
        "tty",
        "command: [sh, tty.sh]\n",
        files={
            "tty.sh": "(printf '\\033]0;pwned\\007' > /dev/tty) 2>&1\n"
            "stty raw < /dev/tty 2>&1\ntest -t 0 || test -t 1 || test -t 2 || echo no terminal\nwc -c\n"
        },
    )
    shown = in_terminal("run", "tty")
    harmless(shown)
    assert b"pwned" not in shown
    log = (workspace_folder / "runs/tty-1/trials/1/1/output.log").read_text()
    assert log.count("/dev/tty") == 2 and "no terminal\n0\n" in log


def test_a_reader_that_goes_away(make_project: Callable[..., Path], workspace_folder: Path) -> None:
    """`sweepfw run | head -1` ends the showing, and nothing else."""
    make_project("lines", "command: [sh, -c, 'seq 2000; echo {i}']", "i: !!python/tuple [0, 20]")
    with subprocess.Popen(
        [sys.executable, "-m", "sweepfw", "run", "lines", "-j", "1"],
        cwd=workspace_folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        code = process.wait(120)
    shown = subprocess.run(
        [sys.executable, "-m", "sweepfw", "show", "lines-1", "--json"],
        cwd=workspace_folder,
        capture_output=True,
        check=True,
    )
    counts = json.loads(shown.stdout)["counts"]
    assert (code, errors, counts) == (0, b"", {"succeeded": 20})
