"""Bad input: one clear line, exit code 2, nothing changed, soon. Promise 7, on the real command."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from sweepfw.cli.main import main

for module in ("cli.run", "cli.plan", "cli.goon", "engine.session", "ledger.local", "snapshot"):
    import_module(f"sweepfw.{module}")  # once, instead of in each fork

CASES = Path(__file__).parent.parent / "cases/refused"
SOON = 10  # seconds that it computes; on a machine of today it is below one
MEMORY = 300_000_000  # bytes more than now: what is only counted fits, what would be expanded does not
PROJECT, PARAMETERS = "command: echo\n", "a: [1, 2]\n"


class Answer(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float


def ask(workspace: Path, arguments: Sequence[str], *before: str) -> Answer:
    """The real command in the workspace, behind the words of `before`."""
    return _timed(
        lambda out, err: (
            subprocess.run(
                [*before, sys.executable, "-m", "sweepfw", *arguments],
                cwd=workspace,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=120,
            ).returncode
        )
    )


def ask_soon(workspace: Path, arguments: Sequence[str]) -> Answer:
    """The same in a fork of this process, which saves the start of Python: there are hundreds of cases."""

    def fork(out: int, err: int) -> int:
        if (pid := os.fork()) == 0:
            try:
                _become(workspace, arguments, out, err)
            finally:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return _timed(fork)


def _timed(run: Callable[[int, int], int]) -> Answer:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = run(out.fileno(), err.fileno())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        said = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return Answer(code, said[0], said[1], seconds)


def _become(workspace: Path, arguments: Sequence[str], out: int, err: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(workspace)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", errors="backslashreplace")
    sys.argv = ["sweepfw", *arguments]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 98)


def state(workspace: Path) -> dict[str, object]:
    """All that there is: every file and folder with its mode, time and content, and what the ledger says."""
    found: dict[str, object] = {}
    for path in sorted(workspace.rglob("*")):
        if path.name.startswith("ledger.db"):
            continue  # its -wal and -shm come and go with readers
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and stat.st_size < 1e6 else None
        mtime = 0 if path.name == ".sweepfw" else stat.st_mtime_ns
        found[str(path.relative_to(workspace))] = (stat.st_mode, mtime, stat.st_size * (mtime > 0), content)
    if (ledger := workspace / ".sweepfw/ledger.db").exists():
        with sqlite3.connect(ledger) as db:
            found["ledger"] = list(db.iterdump())
    return found


def refused(workspace: Path, arguments: Sequence[str], says: str, *before: str) -> Answer:
    """Assert that it is refused as promised."""
    there = state(workspace)
    answer = ask(workspace, arguments, *before) if before else ask_soon(workspace, arguments)
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.count("\n") == 1 and answer.err.endswith("\n"), answer
    assert answer.err.startswith("sweepfw") and says in answer.err, answer
    assert answer.err[:-1].isprintable(), answer
    assert answer.seconds < SOON
    assert state(workspace) == there, "something was changed"
    return answer


def cases(name: str) -> list[Any]:
    listed = yaml.safe_load((CASES / f"{name}.yml").read_text())
    return [pytest.param(case, id=f"{name}-{number}") for number, case in enumerate(listed, 1)]


@pytest.mark.parametrize("case", [*cases("files"), *cases("parameters"), *cases("project")])
def test_projects(case: dict[str, Any], workspace_folder: Path, make_project: Callable[..., Path]) -> None:
    make_project("p", case.get("project", PROJECT), case.get("parameters", PARAMETERS))
    said = {
        refused(workspace_folder, [verb, "p"], case["says"]).err
        for verb in case.get("verbs", ["run", "plan"])
    }
    assert len(said) == 1, "run and plan say different things"


@pytest.mark.parametrize("case", cases("arguments"))
def test_arguments(case: dict[str, Any], workspace_folder: Path, make_project: Callable[..., Path]) -> None:
    make_project("p", PROJECT, PARAMETERS)
    refused(workspace_folder, ["run", *case["arguments"]], case["says"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ended") / "workspace"


@pytest.fixture
def ended(shared: Path) -> Path:
    """A workspace in which p-1 has ended: trial 1 succeeded, trial 2 failed. Made once."""
    if not shared.exists():
        (shared / ".sweepfw").mkdir(parents=True, mode=0o700)
        project = shared / "projects/p"
        project.mkdir(parents=True)
        (project / "project.yml").write_text('command: [sh, -c, "test {a} = 1"]\n')
        (project / "parameters.yml").write_text(PARAMETERS)
        assert ask(shared, ["run", "p"]).code == 1
    return shared


@pytest.mark.parametrize("case", cases("verbs"))
def test_verbs(case: dict[str, Any], ended: Path) -> None:
    refused(ended, shlex.split(case["line"]), case["says"])


@pytest.mark.parametrize("file", ["project.yml", "parameters.yml"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "x" * 2_000_000, "is larger than 1 MB"),
        ("a: " + "[" * 400 + "]" * 400, "nested deeper than 50 levels"),
        ("a: " + "{b: " * 400 + "1" + "}" * 400, "nested deeper than 50 levels"),
        ("".join(f"{'  ' * depth}a:\n" for depth in range(400)), "nested deeper than 50 levels"),
        ("a: " + "9" * 500_000, "too"),
        ("a: [" + "1," * 400_000 + "]", ""),
        ("a: x\r\n\x00", "control character U+0000"),
    ],
    ids=["2 MB", "lists", "mappings", "blocks", "digits", "values", "NUL"],
)
def test_large_and_deep(
    file: str, text: str, says: str, workspace_folder: Path, make_project: Callable[..., Path]
) -> None:
    folder = make_project("p", PROJECT, PARAMETERS)
    (folder / file).write_text(text)
    refused(workspace_folder, ["run", "p"], says)


def test_not_text(workspace_folder: Path, make_project: Callable[..., Path]) -> None:
    folder = make_project("p", PROJECT)
    (folder / "parameters.yml").write_bytes(b"a: 1\nb: \xff\n")
    refused(workspace_folder, ["run", "p"], "parameters.yml:2:4: is not UTF-8")
    (folder / "parameters.yml").unlink()
    os.mkfifo(folder / "parameters.yml")  # reading it would wait for ever
    refused(workspace_folder, ["run", "p"], "is not a file")


# Root may write everywhere. Without these capabilities it is like any other owner of a file.
_ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """Words before a command that may not write what its user may not write."""
    if os.getuid() != 0:
        return ()
    if not shutil.which("setpriv") or subprocess.run([*_ORDINARY, "true"]).returncode:
        pytest.skip("root may write everywhere, and setpriv can't take that from it")
    return _ORDINARY


@pytest.mark.parametrize("there", [True, False], ids=["made before", "new"])
def test_workspace_that_cant_be_written(
    there: bool, unprivileged: tuple[str, ...], workspace_folder: Path, make_project: Callable[..., Path]
) -> None:
    make_project("p", PROJECT, PARAMETERS)
    if there:
        assert ask(workspace_folder, ["run", "p"]).code == 0
        (workspace_folder / ".sweepfw").chmod(0o755)
    else:
        (workspace_folder / ".sweepfw").rmdir()
    workspace_folder.chmod(0o555)
    for path in workspace_folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    refused(workspace_folder, ["run", "p"], "workspace", *unprivileged)


def test_places_that_cant_be_searched(
    unprivileged: tuple[str, ...], workspace_folder: Path, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    """A folder on PATH that is somebody else's is passed over; what lies in it is not there."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    words = (*unprivileged, "env", f"PATH={closed}:{os.environ['PATH']}")
    make_project("p", f"{PROJECT}needs: {{paths: [{closed}/data]}}\n", PARAMETERS)
    refused(
        workspace_folder, ["run", "p"], f"needs.paths: {os.uname().nodename} has no {closed}/data", *words
    )
    (workspace_folder / "projects/p/project.yml").write_text(PROJECT)
    answer = ask(workspace_folder, ["run", "p"], *words)
    assert (answer.code, answer.err) == (0, "")


# /proc/self/mountinfo as another kernel would show it: what a process sees there can be covered by a file,
# in a mount namespace of its own. So the real command meets a file system that needs no network here.
COVERED = r"""
sed "$ a 999 1 0:99 / $1 rw,relatime - $2 server:/export rw" /proc/self/mountinfo > "$3" || exit 99
mount --bind "$3" /proc/$$/mountinfo || exit 99
shift 3
exec "$@"
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_ledger_on_a_network_file_system(
    kind: str, workspace_folder: Path, make_project: Callable[..., Path], tmp_path: Path
) -> None:
    make_project("p", PROJECT, PARAMETERS)
    words = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        COVERED,
        "sh",
        str(workspace_folder),
        kind,
        f"{tmp_path}/mounts",
    )
    if subprocess.run([*words, "true"], capture_output=True).returncode == 99:
        pytest.skip("this machine does not let its root mount")
    refused(workspace_folder, ["run", "p"], f"lies on a network file system ({kind})", *words)
