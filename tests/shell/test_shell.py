"""The promises of every shell: here, over a real sshd, and the one that pretends as far as it goes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from sshd import Sshd, needs_sshd

from sweepfw.core.command import Secret, cmd
from sweepfw.errors import SweepError
from sweepfw.shell.fake import FakeShell
from sweepfw.shell.local import LocalShell, find_command
from sweepfw.shell.shell import Result, Shell


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    from sweepfw.shell.ssh import SshShell

    sshd = Sshd(tmp_path_factory.mktemp("there") / "sshd").start()
    shell = SshShell.open(sshd.host(), sshd.access())
    yield shell
    shell.close()
    sshd.stop()


@pytest.fixture(params=["local", pytest.param("ssh", marks=needs_sshd)])
def shell(request: pytest.FixtureRequest) -> Shell:
    if request.param == "local":
        return LocalShell()
    shell: Shell = request.getfixturevalue("there")
    return shell


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
    assert shell.run(cmd("pwd"), cwd="~").text == shell.run(cmd("sh", "-c", "cd; pwd")).text


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
    for seconds in (0.5, 5, 50):  # until it has begun by then
        pid = tmp_path / f"pid-{seconds}"
        script = f"sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"
        with pytest.raises(SweepError) as late:
            shell.run(cmd("sh", "-c", script), timeout=seconds)
        if pid.exists():
            break
    assert f"no end within {seconds:g} s" in str(late.value)
    child = int(pid.read_text())
    wait_until(lambda: not alive(child), what="the child is gone")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_secrets_arrive_and_never_show(shell: Shell) -> None:
    secret = Secret("hunter2")
    assert shell.run(cmd("printf", "%s", secret)).out == b"hunter2"
    with pytest.raises(SweepError) as late:
        shell.run(cmd("sh", "-c", "sleep 600", secret), timeout=0.1)
    assert "hunter2" not in str(late.value)


def test_a_signal_is_a_negative_code(shell: Shell) -> None:
    code = shell.run(cmd("sh", "-c", "kill -KILL $$")).code
    assert code == (-signal.SIGKILL if isinstance(shell, LocalShell) else 128 + signal.SIGKILL)


def test_many_threads_at_once(shell: Shell) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: shell.run(cmd("printf", "%s", str(n))).text, range(24)))
    assert results == [str(n) for n in range(24)]


def test_too_much_output_is_ended(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(shell, LocalShell):
        pytest.skip("what runs here is ours")
    monkeypatch.setattr("sweepfw.shell.pump.Collected.__init__.__defaults__", (1_000_000,))
    with pytest.raises(SweepError, match="yes: printed more than 1 MB"):
        shell.run(cmd("yes"))


# -- files ---------------------------------------------------------------------------------------------


def test_a_file_is_put_and_got(shell: Shell, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    for name in ("a b", "'\"$(id)", "-n", "new/er/file"):
        path = str(tmp_path / name)
        shell.put(data, path)
        assert shell.get(path) == data
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == (tmp_path / "new/er").stat().st_mode & 0o777 == 0o700
    shell.put(b"#!/bin/sh\necho mine\n", f"{tmp_path}/run", 0o755)
    assert shell.run(cmd(f"{tmp_path}/run")).text == "mine\n"
    shell.put(b"", f"{tmp_path}/run")
    assert (shell.get(f"{tmp_path}/run"), (tmp_path / "run").stat().st_mode & 0o777) == (b"", 0o600)
    assert not list(tmp_path.glob("**/*.put*"))


def test_a_file_at_home(shell: Shell, request: pytest.FixtureRequest) -> None:
    name = f".sweepfw-test-{os.getpid()}"
    request.addfinalizer(Path.home().joinpath(name).unlink)
    shell.put(b"here", f"~/{name}")
    assert shell.get(f"~/{name}") == Path.home().joinpath(name).read_bytes() == b"here"


def test_files_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SweepError, match=r"folder: can't be written"):
        shell.put(b"x", str(tmp_path / "folder"))
    with pytest.raises(SweepError, match=r"nothing: can't be read \(No such file or directory\)"):
        shell.get(str(tmp_path / "nothing"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# -- streams -------------------------------------------------------------------------------------------


def test_a_stream_passes_through(shell: Shell, tmp_path: Path) -> None:
    data, got, lines = os.urandom(5_000_000), BytesIO(), list[str]()
    command = cmd("sh", "-c", "cat; echo one >&2; printf two >&2; exit 3")
    result = shell.stream(command, BytesIO(data), got, lines.append)
    assert (result, got.getvalue(), lines) == (Result(3, b"", b"one\ntwo"), data, ["one", "two"])
    with (tmp_path / "file").open("wb", buffering=0) as file:
        shell.stream(cmd("cat"), BytesIO(data), file)
    assert (tmp_path / "file").read_bytes() == data
    assert shell.stream(cmd("seq", "1000000")).code == 0
    assert shell.stream(cmd("cat")) == Result(0)


def test_a_stream_arrives_as_it_comes(shell: Shell) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as stdin, open(writer, "wb", buffering=0) as ours:
        ours.write(b"first")
        pieces: list[bytes] = []

        def take(piece: bytes) -> None:
            pieces.append(piece)
            if piece == b"first":
                ours.write(b"second")
            else:
                ours.close()

        shell.stream(cmd("cat"), stdin, take)
    assert pieces == [b"first", b"second"]


@pytest.mark.parametrize("fault", [ValueError("mine"), OSError(errno.ENOSPC, "mine")], ids=["ours", "disk"])
@pytest.mark.parametrize("where", ["stdin", "stdout", "on_line"])
def test_a_fault_of_ours_ends_the_command(
    shell: Shell, tmp_path: Path, wait_until: Callable[..., None], where: str, fault: Exception
) -> None:
    """And it never sees its input as complete."""

    class Broken(BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            wait_until((tmp_path / "pid").exists)
            raise fault

    def fail(_: object) -> None:
        raise fault

    text = (
        f"trap '' TERM HUP; echo $$ > {tmp_path}/p; mv {tmp_path}/p {tmp_path}/pid; echo x; echo x >&2; cat"
    )
    command = cmd("sh", "-c", f"{text} && touch {tmp_path}/complete; sleep 600")
    options = {"stdin": Broken(), "stdout": None, "on_line": None}
    if where != "stdin":
        reader, writer = os.pipe()
        options |= {"stdin": open(reader, "rb"), where: fail}  # noqa: SIM115  # goes with the test
    with pytest.raises(type(fault), match="mine"):
        shell.stream(command, **options)  # type: ignore[arg-type]  # each of its own type
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(child), what="the command is gone")
    if where != "stdin":
        os.close(writer)
    assert not (tmp_path / "complete").exists()


def test_a_command_that_does_not_read_its_input(shell: Shell) -> None:
    assert shell.stream(cmd("true"), BytesIO(bytes(10_000_000))).code == 0
    assert shell.run(cmd("true"), bytes(10_000_000)).code == 0


def test_a_stream_of_what_is_not_there(shell: Shell) -> None:
    with pytest.raises(SweepError, match="no-such-command: no such command"):
        shell.stream(cmd("no-such-command"), BytesIO(b"x"))


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


def test_the_fake_holds_files_and_streams() -> None:
    shell = FakeShell({"docker load": Result(1, b"out", b"a\nb")})
    shell.put(b"x", "~/f", 0o644)
    assert (shell.get("~/f"), shell.modes) == (b"x", {"~/f": 0o644})
    with pytest.raises(SweepError, match="can't be read"):
        shell.get("g")
    out, lines = BytesIO(), list[str]()
    assert shell.stream(cmd("docker", "load"), BytesIO(b"tar"), out, lines.append) == Result(1, b"", b"a\nb")
    assert (shell.given, out.getvalue(), lines) == ([b"tar"], b"out", ["a", "b"])
    shell.close()
    assert shell.closed


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
