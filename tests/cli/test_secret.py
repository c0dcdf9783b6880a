"""`secret set|ls|rm`, as people type them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from workspaces import call

from sweepfw.config.secrets import gather
from sweepfw.core.secrets import Need


def value(name: str) -> bytes:
    return gather([Need(name, "file")])[name]


def test_set_from_everywhere(tmp_path: Path, workspace_folder: Path) -> None:
    def typed(*words: str, data: bytes = b"") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sweepfw", "secret", "set", *words],
            input=data,
            capture_output=True,
            check=True,
            cwd=workspace_folder,
            env={**os.environ, "SOME": "from-the-environment"},
        )
        return (done.stdout + done.stderr).decode()

    assert typed("A", data=b"two\nlines\r\n") == "A is stored: 11 bytes\n"
    assert value("A") == b"two\nlines\r\n"
    (tmp_path / "f").write_bytes(b"\0exactly\n")
    typed("A", "--from-file", str(tmp_path / "f"))
    assert value("A") == b"\0exactly\n"
    typed("A", "--from-env", "SOME")
    assert value("A") == b"from-the-environment"
    assert "shorter than 6 bytes, so it is not masked" in typed("B", data=b"12345\n")


def test_set_on_a_terminal_shows_nothing_of_it(workspace_folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sweepfw", "secret", "set", "KEY"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=workspace_folder,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
    )  # fmt: skip
    os.close(theirs)
    shown, deadline, questions = b"", time.monotonic() + 120, 0
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        if questions < 2 and shown.count(b": ") > questions:
            questions += 1
            os.write(ours, b"hunter22\n")
    assert process.wait(60) == 0, shown
    os.close(ours)
    assert questions == 2
    assert b"hunter22" not in shown
    assert value("KEY") == b"hunter22"


def test_ls_and_rm(sweepfw: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "no secret is stored" in call("secret", "ls").output
    for name in ("B", "A"):
        call("secret", "set", name, "--from-file", "/proc/self/cmdline")
    table = call("secret", "ls").output
    assert [line.split()[0] for line in table.splitlines()] == ["NAME", "A", "B"]
    told = json.loads(call("secret", "ls", "--json").output)
    assert [(each["name"], set(each)) for each in told] == [(n, {"name", "bytes", "set"}) for n in "AB"]
    done = sweepfw("secret", "rm", "A", "C")
    assert (done.returncode, done.stderr) == (2, "sweepfw: there is no secret 'C'; known: A, B\n")
    assert call("secret", "rm", "A", "B").output == "A removed\nB removed\n"
    assert "no secret is stored" in call("secret", "ls").output


def test_one_line_for_what_is_wrong(sweepfw: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for words, said in (
        (["set", "KEY=hunter22"], "the value is no part of the name"),
        (["set", "a b"], "'a b' can't be a secret's name"),
        (["set", "A"], "secret A: the value is empty"),
        (["set", "A", "--from-env", "NOT_THERE"], "there is no variable 'NOT_THERE'"),
        (["set", "A", "--from-file", "/not/there"], "/not/there: can't be read (No such file or directory)"),
        (["set", "A", "--from-file", "/etc/hosts", "--from-env", "HOME"], "exclude each other"),
    ):
        done = sweepfw("secret", *words)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), words
        assert said in done.stderr
        assert "hunter22" not in done.stderr


def test_names_are_completed(sweepfw: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    call("secret", "set", "WANDB_API_KEY", "--from-file", "/etc/hosts")
    done = sweepfw(
        env={
            **os.environ,
            "_SWEEPFW_COMPLETE": "bash_complete",
            "COMP_WORDS": "sweepfw secret rm W",
            "COMP_CWORD": "3",
        }
    )
    assert "WANDB_API_KEY" in done.stdout
