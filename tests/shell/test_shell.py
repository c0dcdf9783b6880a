"""The promises of every shell. The one over SSH joins the list with its own way to be made."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweepfw.core.command import Secret, cmd
from sweepfw.errors import SweepError
from sweepfw.shell.fake import FakeShell
from sweepfw.shell.local import LocalShell, find_command
from sweepfw.shell.shell import Result, Shell


@pytest.fixture(params=["local"])
def shell(request: pytest.FixtureRequest) -> Shell:
    return {"local": LocalShell}[request.param]()


def test_output_and_code_come_back_apart(shell: Shell) -> None:
    result = shell.run(cmd("sh", "-c", "printf out; printf err >&2; exit 3"))
    assert result == Result(3, b"out", b"err")


def test_words_arrive_byte_for_byte(shell: Shell) -> None:
    words = ["; rm -rf ~", "$(id)", "`id`", "*", "'\"", "a\nb", "", "🙂", "-n", "\udcff\\"]
    result = shell.run(cmd("printf", "%s\\0", *words))
    assert result.out == b"".join(os.fsencode(word) + b"\0" for word in words)


def test_input_is_given_and_ends(shell: Shell) -> None:
    data = os.urandom(300_000)
    assert shell.run(cmd("cat"), input=data).out == data
    assert shell.run(cmd("cat")).out == b""  # never our terminal's


def test_folder_and_variables(shell: Shell, tmp_path: Path) -> None:
    result = shell.run(cmd("sh", "-c", 'pwd; echo "$MINE"'), cwd=str(tmp_path), env={"MINE": "a b"})
    assert result.text == f"{tmp_path}\na b\n"
    assert shell.run(cmd("sh", "-c", "echo $HOME")).text.strip() == os.environ["HOME"]


def test_bytes_that_are_no_text_are_no_failure(shell: Shell) -> None:
    result = shell.run(cmd("printf", r"\377x"))
    assert (result.out, result.text) == (b"\xffx", "\ufffdx")


def test_what_is_not_there_is_said(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="no-such-command: no such command"):
        shell.run(cmd("no-such-command"))
    with pytest.raises(SweepError, match="no such folder"):
        shell.run(cmd("true"), cwd=str(tmp_path / "nothing"))
    with pytest.raises(SweepError, match="can't be started"):
        shell.run(cmd(str(tmp_path)))
    assert shell.has("sh") and not shell.has("no-such-command")


def test_no_end_in_time_kills_it_with_its_children(
    shell: Shell, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    started = time.monotonic()
    with pytest.raises(SweepError, match=r"no end within 0\.5 s"):
        shell.run(cmd("sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"), timeout=0.5)
    assert time.monotonic() - started < 20
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(child), what="the child is gone")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_secrets_arrive_and_never_show(shell: Shell) -> None:
    secret = Secret("hunter2")
    assert shell.run(cmd("printf", "%s", secret)).out == b"hunter2"
    with pytest.raises(SweepError) as late:
        shell.run(cmd("sh", "-c", "sleep 60", secret), timeout=0.1)
    assert "hunter2" not in str(late.value)


def test_a_signal_is_a_negative_code(shell: Shell) -> None:
    assert shell.run(cmd("sh", "-c", "kill -KILL $$")).code == -signal.SIGKILL


def test_many_threads_at_once(shell: Shell) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: shell.run(cmd("printf", "%s", str(n))).text, range(24)))
    assert results == [str(n) for n in range(24)]


# -- the one that pretends -----------------------------------------------------------------------------


def test_the_fake_answers_by_the_first_pattern_and_remembers() -> None:
    shell = FakeShell(
        {"docker ps*": "a\nb\n", "docker *": Result(1), "uname": lambda argv: Result(0, argv[0].encode())}
    )
    assert shell.run(cmd("docker", "ps", "-q")).text == "a\nb\n"
    assert shell.run(cmd("docker", "stop", "x")).code == 1
    assert shell.run(cmd("uname")).out == b"uname"
    with pytest.raises(SweepError, match="no such command"):
        shell.run(cmd("git", "status"))
    assert shell.has("docker") and not shell.has("git")
    assert shell.ran[0] == ("docker", "ps", "-q")


# -- finding a command ---------------------------------------------------------------------------------


def program(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_a_command_is_found_as_execvpe_finds_it(tmp_path: Path) -> None:
    first, second = program(tmp_path / "a/tool"), program(tmp_path / "b/tool")
    env = {"PATH": f"{tmp_path}/nothing:{tmp_path}/a:{tmp_path}/b"}
    assert find_command("tool", env) == first
    Path(first).chmod(0o644)
    assert find_command("tool", env) == second
    assert find_command("tool", {"PATH": ""}, str(tmp_path / "b")) == second  # empty: the current folder
    assert find_command("./tool", env, str(tmp_path / "b")) == second
    assert find_command("b/tool", env, str(tmp_path)) == second
    assert find_command(second, {}) == second
    assert find_command("b", {"PATH": str(tmp_path)}) is None  # a folder
    assert find_command("", env) is None
    assert find_command("sh", {}) is not None  # without PATH the system's own
