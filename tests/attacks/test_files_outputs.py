"""Whatever a trial leaves: nothing waits for it; nothing outside is read, followed or deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sweepfw.engine.shipping import choose, few_files
from sweepfw.trial.guard.removal import remove

# What a trial may do to the places that it is given. `away` is a folder outside, which is nobody's business.
LEAVE = """
import json, os, socket, sys
how, away = sys.argv[1].partition("=")[2], os.environ["AWAY"]
metrics, files, ckpt = (os.environ[f"SWEEPFW_{n}"] for n in ("METRICS", "OUTPUT", "CHECKPOINT"))
attempt, work = os.path.dirname(files), os.getcwd()

def instead(path, link):
    if os.path.lexists(path):
        os.rename(path, path + ".old")
    os.symlink(link, path)

def nest(path, depth, name="d" * 100):
    os.chdir(path)
    for _ in range(depth):
        os.mkdir(name)
        os.chdir(name)
    open("deepest", "w").close()

print("loss: 1", flush=True)
if how == "pipes":
    for path in (metrics, f"{attempt}/parsed.jsonl", f"{files}/pipe", "left.pipe"):
        os.mkfifo(path)
elif how == "pipe for a log":
    os.unlink(f"{attempt}/output.log")
    os.mkfifo(f"{attempt}/output.log")
elif how == "endless":
    instead(metrics, "/dev/zero")
    instead(f"{attempt}/output.log", "/dev/zero")
    os.symlink("/dev/zero", f"{attempt}/outcome.json")
    os.symlink("/dev/zero", f"{files}/zero")
elif how == "links out":
    instead(metrics, f"{away}/metrics")
    for n, there in enumerate((away, f"{away}/secret", "/", "/etc/passwd", ".", "..", "\\n", "nowhere")):
        os.symlink(there, f"{files}/{n}")
        os.symlink(there, f"left-{n}")
elif how == "sockets":
    for path in (files, work):
        os.chdir(path)
        socket.socket(socket.AF_UNIX).bind("socket")
elif how == "devices":
    try:
        os.mknod(f"{files}/zero", 0o20666, os.makedev(1, 5))
    except OSError:
        pass  # only root may
elif how == "folders that are links":
    for path in (files, ckpt, work):
        instead(path, away)
elif how == "deep":
    nest(files, 200)
elif how == "deep elsewhere":
    nest(ckpt, 200)
    nest(work, 200)
elif how == "thin":
    nest(files, 1500, "d")
elif how == "closed":
    for path in (files, ckpt, work):
        os.makedirs(f"{path}/a/b")
        open(f"{path}/a/b/c", "w").close()
        for folder in (f"{path}/a/b", f"{path}/a", path):
            os.chmod(folder, 0)
elif how == "sparse":
    with open(f"{files}/sparse", "wb") as file:
        file.truncate(1 << 40)
elif how == "names":
    for name in (b"a\\nb", b"\\x1b]0;pwned\\x07", b"\\xff\\xfe", b"-rf", b"x" * 255, "\\u202egpj".encode()):
        open(os.fsencode(files) + b"/" + name, "w").close()
elif how == "hard links":
    os.link(f"{away}/secret", f"{files}/secret")
"""
HOW = (
    "pipes", "pipe for a log", "endless", "links out", "sockets", "devices", "folders that are links", "deep",
    "deep elsewhere", "thin", "closed", "sparse", "names", "hard links",
)  # fmt: skip
# Attempts that can't be successes: no path leads to the files; what was printed has no place to go.
LOST = {"deep", "deep elsewhere", "pipes"}


@contextmanager
def leftovers(root: Path) -> Iterator[tuple[Path, Path]]:
    """A workspace in which each of these has run, and the folder outside."""
    workspace, away = root / "workspace", root / "away"
    project = workspace / "projects/p"
    for folder in (project, workspace / ".sweepfw", away / "inner"):
        folder.mkdir(parents=True)
    (project / "project.yml").write_text("command: [python, leave.py]\nmetrics: [loss]\n")
    (project / "parameters.yml").write_text(f"how: {json.dumps(HOW)}\n")
    (project / "leave.py").write_text(LEAVE)
    (away / "secret").write_text("a secret\n")
    (away / "inner/file").write_text("kept\n")
    (away / "metrics").write_text('{"stolen": 1}\n')
    words = ("run", "p", "--here", "-j", "2", "--quiet")
    done = ask(workspace, *words, env={**os.environ, "AWAY": str(away)})
    try:
        assert done.returncode == (1 if LOST else 0), done.stderr
        yield workspace, away
    finally:
        remove(str(root))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """For those who only look."""
    with leftovers(tmp_path_factory.mktemp("left")) as found:
        yield found


def ask(workspace: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The real command; what waits for ever is a failure."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # options are subprocess.run's
        [sys.executable, "-m", "sweepfw", *words],
        cwd=workspace,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=250,
        **options,
    )


def untouched(away: Path) -> None:
    assert (away / "secret").read_text() == "a secret\n" and (away / "inner/file").read_text() == "kept\n"
    assert sorted(path.name for path in away.iterdir()) == ["inner", "metrics", "secret"]


def test_each_ends_with_what_is_true_of_it(left: tuple[Path, Path]) -> None:
    workspace, away = left
    trials = json.loads(ask(workspace, "show", "p-1", "--json").stdout)["trials"]
    for how, trial in zip(HOW, trials, strict=True):
        lost = how in LOST
        assert (trial["state"], trial["reason"]) == (
            ("failed", "output not kept") if lost else ("succeeded", "")
        ), how
        assert "stolen" not in trial["metrics"]
    untouched(away)


def test_looking_at_it_ends_and_tells_nothing_from_outside(left: tuple[Path, Path]) -> None:
    workspace, away = left
    for words in (["export", "p-1"], ["export", "p-1", "--history"], ["show", "p-1"], ["gc", "--dry-run"]):
        done = ask(workspace, *words)
        assert done.returncode == 0 and "stolen" not in done.stdout and "root:" not in done.stdout, words
    for number, how in enumerate(HOW, 1):
        shown = ask(workspace, "show", f"p-1/{number}")
        assert shown.returncode == 0 and "a secret" not in shown.stdout, how
        log = ask(workspace, "logs", f"p-1/{number}")
        gone = how in ("pipe for a log", "endless")  # what lies in its place is no log
        assert (log.returncode, log.stdout) == (0, "" if gone else "loss: 1\n"), how
    untouched(away)


def test_a_sparse_file_is_counted_as_what_it_says_it_is(left: tuple[Path, Path]) -> None:
    workspace, _ = left
    assert "1.1 TB" in ask(workspace, "show", f"p-1/{HOW.index('sparse') + 1}").stdout


def test_a_worker_takes_none_of_it_for_reports(left: tuple[Path, Path]) -> None:
    """What goes from a worker to the head: regular files that are the attempt's own."""
    workspace, _ = left
    for number, how in enumerate(HOW, 1):
        folder = str(workspace / f"runs/p-1/trials/{number}/1")
        if how in ("deep", "folders that are links"):
            with pytest.raises(OSError):
                choose(folder)
            continue
        names, _, _ = choose(folder)
        assert not {"pipe", "zero", "socket"} & {name.rpartition("/")[2] for name in names}, how
        assert "metrics.jsonl" not in names, how
        if how != "sparse":
            files = few_files(folder)
            assert all(b"secret" not in content for content in (files or {}).values()) or how == "hard links"


def test_gc_and_rm_take_it_away_and_nothing_else(tmp_path: Path) -> None:
    with leftovers(tmp_path / "left") as (workspace, away):
        assert ask(workspace, "gc").returncode == 0
        untouched(away)
        done = ask(workspace, "rm", "p-1", "-y")
        assert (done.returncode, done.stdout) == (0, "p-1 removed\n"), done.stderr
        assert list((workspace / "runs").iterdir()) == []
        untouched(away)


# -- removal, more closely ---------------------------------------------------------------------------------

_ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here")
def test_closed_folders_go_also_without_roots_rights(tmp_path: Path) -> None:
    """Folders without any permission, below others of that kind, deeper than may be open at a time."""
    if os.getuid() == 0 and subprocess.run([*_ORDINARY, "true"]).returncode:
        pytest.skip("root may do everything, and setpriv can't take that from it")
    top = path = tmp_path / "top"
    for _ in range(70):
        path.mkdir()
        (path / "file").touch()
        path /= "d"
    while (path := path.parent) != tmp_path:
        path.chmod(0)
    code = "import sys; from sweepfw.trial.guard.removal import remove; remove(sys.argv[1])"
    words = [sys.executable, "-c", code, top]
    subprocess.run([*_ORDINARY, *words] if os.getuid() == 0 else words, check=True, timeout=250)
    assert list(tmp_path.iterdir()) == []


def test_folders_deeper_than_any_path(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=folder)
        below = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    remove(str(top))
    assert list(tmp_path.iterdir()) == []


# Python tells of every folder that is about to be opened: the worst moment for it to become a link.
SWAP = """
import os, sys
from sweepfw.trial.guard.removal import remove
top, away = sys.argv[1:]
def swap(event, words):
    global swapped
    if not swapped and event in ("open", "os.scandir") and os.path.basename(str(words[0])) == "a":
        swapped = True
        os.rename(f"{top}/a", f"{top}/mine")
        os.symlink(away, f"{top}/a")
swapped = False
sys.addaudithook(swap)
remove(top)
assert swapped
"""


def test_a_folder_that_becomes_a_link_just_before_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "away/inner").mkdir(parents=True)
    (tmp_path / "away/inner/kept").touch()
    (tmp_path / "top/a/inner").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", SWAP, tmp_path / "top", tmp_path / "away"], check=True, timeout=250)
    assert not (tmp_path / "top").exists() and (tmp_path / "away/inner/kept").exists()


def test_a_folder_that_becomes_a_link_while_it_is_removed(tmp_path: Path) -> None:
    """Somebody swaps it with a link to a folder outside, again and again."""
    away = tmp_path / "away"
    away.mkdir()
    for n in range(50):
        (away / f"kept-{n}").touch()
    ended = threading.Event()

    def swap() -> None:
        mine, link = tmp_path / "mine", tmp_path / "link"
        while not ended.is_set():
            try:
                os.symlink(away, link)
                os.rename(tmp_path / "top/a", mine)
                os.rename(link, tmp_path / "top/a")
                os.unlink(tmp_path / "top/a")
                os.rename(mine, tmp_path / "top/a")
            except OSError:
                link.unlink(missing_ok=True)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(150):
            with suppress(OSError):  # who swaps is at work in it, also while we fill it
                for folder in ("a", "b"):
                    (tmp_path / "top" / folder).mkdir(parents=True, exist_ok=True)
                for n in range(30):
                    (tmp_path / f"top/b/{n}").touch()
                remove(str(tmp_path / "top"))
    finally:
        ended.set()
        thread.join()
    assert len(list(away.iterdir())) == 50
    remove(str(tmp_path / "top"))
    assert len(list(away.iterdir())) == 50


# By a small process of its own: what a large one starts counts with all that its parent had.
MEASURE = """
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
open(sys.argv[1], "w").write(str(used.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_great_many_files(make_project: Callable[..., Path], workspace_folder: Path) -> None:
    """50,000 in one folder: counted, told, deleted; memory stays small."""
    peak = workspace_folder.parent / "peak"

    def told(*words: str) -> str:
        command = [sys.executable, "-c", MEASURE, str(peak), sys.executable, "-m", "sweepfw", *words]
        done = subprocess.run(command, cwd=workspace_folder, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert int(peak.read_text()) < 150_000  # kB, of it and of all that it started
        return done.stdout

    script = (
        "import os\nos.chdir(os.environ['SWEEPFW_OUTPUT'])\n"
        "for n in range(50000): os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY))\n"
    )
    make_project("p", "command: [python, many.py]\n", "n: 1\n", {"many.py": script})
    told("run", "p")
    attempt = workspace_folder / "runs/p-1/trials/1/1"
    assert json.loads((attempt / "outcome.json").read_text())["files"]["count"] == 50_000
    shown = told("show", "p-1/1")
    assert "more" in shown and len(shown) < 10_000
    names, _, complete = choose(str(attempt))
    assert not complete and not [name for name in names if name.startswith("files/")]
    told("rm", "p-1", "-y")
    assert not list((workspace_folder / "runs").iterdir())
