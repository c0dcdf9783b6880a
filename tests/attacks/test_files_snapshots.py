"""Projects made to harm who looks at them or runs them. By the real command: soon, in one line, honestly."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import pytest

from sweepfw.errors import SweepError
from sweepfw.snapshot import checkout, freeze, manifest, objects, transfer

Sweepfw = Callable[..., subprocess.CompletedProcess[str]]
MakeProject = Callable[..., Path]
SOON = 200  # seconds for a command, on any machine: what is waited for here never ends


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable() and says in done.stderr, done


@pytest.mark.parametrize(
    "name", [".gitignore", ".sweepfwignore", ".gitattributes", ".git", "deep/.gitignore"]
)
@pytest.mark.parametrize("what", ["pipe", "endless", "socket", "folder"])
def test_what_stands_in_the_place_of_an_ignore_file(
    name: str, what: str, make_project: MakeProject, sweepfw: Sweepfw
) -> None:
    """It is no list of patterns, so it says nothing; nobody waits for it."""
    folder = make_project("p", "command: echo\n", "a: 1\n", {"code.py": ""})
    (folder / "deep").mkdir()
    if what == "pipe":
        os.mkfifo(folder / name)
    elif what == "endless":
        (folder / name).symlink_to("/dev/zero")
    elif what == "socket":
        with (
            socket.socket(socket.AF_UNIX) as listener,
            chdir((folder / name).parent),
        ):  # their paths are short
            listener.bind(Path(name).name)
    else:
        (folder / name).mkdir()
    done = sweepfw("plan", "p", seconds=SOON)
    if what == "endless" and name != ".git":
        refused(done, "this link leads out of the project, to /dev/zero")
    else:
        assert done.returncode == 0 and "p/code.py" not in done.stderr, done


def test_an_ignore_file_without_end(make_project: MakeProject, sweepfw: Sweepfw) -> None:
    folder = make_project("p", "command: echo\n", "a: 1\n")
    with (folder / ".gitignore").open("wb") as file:
        file.truncate(1 << 36)
    refused(sweepfw("run", "p", seconds=SOON), ".gitignore: is larger than 1 MB")


def test_sparse_files_are_counted_as_what_they_say_and_not_read(
    make_project: MakeProject, sweepfw: Sweepfw, workspace_folder: Path
) -> None:
    folder = make_project("p", "command: echo\n", "a: 1\n")
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 42)
    refused(sweepfw("run", "p", seconds=SOON), "its files are 4.4e+03 GB, over the snapshot_limit")
    assert not (workspace_folder / "runs").exists()
    (folder / ".sweepfwignore").write_text("huge\n")
    assert sweepfw("run", "p", "-q").returncode == 0


NAMES = [
    b"a\nb", b"\x1b]0;pwned\x07", b"\xff\xfe", b"-rf", b"--", b" ", b"..a", b"...", b"a" * 255, b"\\", b"'",
    b'"', b"$(id)", b"*", "\u202egpj.exe".encode(), "Straße".encode(), b"A", b"a", b"nul\x01",
    "e\u0301".encode(), "é".encode(), b"{v}",
]  # fmt: skip


def test_names_of_any_bytes_reach_the_trial(
    make_project: MakeProject, sweepfw: Sweepfw, workspace_folder: Path
) -> None:
    """Also two that differ by case, or by how their letters are written."""
    script = "import os\nprint(sorted(name.hex() for name in os.listdir(b'names')))\n"
    folder = make_project("p", "command: [python, look.py]\n", "a: 1\n", {"look.py": script})
    (folder / "names").mkdir()
    for name in NAMES:
        (Path(os.fsdecode(os.fsencode(folder) + b"/names/" + name))).write_bytes(name)
    planned = sweepfw("plan", "p")
    assert planned.returncode == 0 and "\x1b" not in planned.stdout + planned.stderr
    done = sweepfw("run", "p")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    log = (workspace_folder / "runs/p-1/trials/1/1/output.log").read_text()
    assert log.strip() == str(sorted(name.hex() for name in NAMES))


def test_links_out_devices_and_what_is_none_of_ours(make_project: MakeProject, sweepfw: Sweepfw) -> None:
    folder = make_project("p", "command: echo\n", "a: 1\n")
    for target in (
        "/etc/passwd",
        "../../..",
        "../p/../../secret",
        "/proc/self/environ",
        "a/../../b",
        "/dev/zero",
    ):
        (folder / "link").symlink_to(target)
        for verb in ("plan", "run"):
            refused(sweepfw(verb, "p", seconds=SOON), "this link leads out of the project")
        (folder / "link").unlink()
    (folder / "loop").symlink_to("loop")
    (folder / "inside").symlink_to("project.yml")
    os.mkfifo(folder / "pipe")
    if os.getuid() == 0:
        with suppress(OSError):  # not in every container
            os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    done = sweepfw("run", "p", seconds=SOON)
    assert done.returncode == 0, done.stderr


def test_hard_links_become_files_of_the_trials_own(
    make_project: MakeProject, sweepfw: Sweepfw, workspace_folder: Path, tmp_path: Path
) -> None:
    """What a trial writes into them changes nothing outside, nor what the next trial sees."""
    (tmp_path / "precious").write_text("kept")
    script = "for n in one two; do cat $n; echo changed > $n; done\n"
    folder = make_project("p", "command: [sh, look.sh]\n", "a: [1, 2]\n", {"look.sh": script})
    for name in ("one", "two"):
        os.link(tmp_path / "precious", folder / name)
    assert sweepfw("run", "p", "-j", "1").returncode == 0
    for trial in (1, 2):
        assert (workspace_folder / f"runs/p-1/trials/{trial}/1/output.log").read_text() == "keptkept"
    assert (tmp_path / "precious").read_text() == "kept"


@contextmanager
def changing(place: Path, outside: Path) -> Iterator[None]:
    """It becomes a file, a link to what is outside, a pipe, a folder, again and again."""
    kinds: list[Callable[[Path], object]] = [
        lambda path: path.write_text("mine"),
        lambda path: path.symlink_to(outside),
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
    ]
    ended = threading.Event()

    def change() -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            new = outside.parent / f"new-{turn}"
            kinds[turn % 4](new)
            with suppress(OSError):
                place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
                new.rename(place)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_files_that_change_while_they_are_frozen(tmp_path: Path) -> None:
    """What is stored is a file of the project that is what its digest says, or nothing; never what a link
    leads to."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.write_text("secret")
    frozen = 0
    with changing(project / "changing", outside):
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline or not frozen:
            assert time.monotonic() < deadline + 200
            try:
                snapshot = freeze(project, tmp_path / "store", 10**9)
            except SweepError as error:
                assert str(error).count("\n") == 0
                continue
            frozen += 1
            rows = json.loads(manifest(tmp_path / "store", snapshot.id).read_bytes())["files"]
            assert all(not row[3].startswith("/") and ".." not in row[3] for row in rows if row[1] == "link")
    stored = list(objects(tmp_path / "store").glob("??/*"))
    assert {path.read_bytes() for path in stored} <= {b"mine", b""}
    for path in stored:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name


# -- what comes from elsewhere -----------------------------------------------------------------------------


def listed(*rows: list[object]) -> tuple[str, bytes]:
    text = json.dumps({"files": rows}).encode()
    return hashlib.sha256(text).hexdigest()[:24], text


@pytest.mark.parametrize(
    "rows",
    [
        [["../x", "link", 0o777, "y", 0]], [["/x", "link", 0o777, "y", 0]],
        [["a/../../x", "dir", 0o755, "", 0]],
        [["a", "device", 0, "", 0]], [["a\0b", "dir", 0o755, "", 0]], [["", "dir", 0o755, "", 0]],
        [["a", "link", 0o777, "/etc", 0], ["a/b", "dir", 0o755, "", 0]],
        [["a", "link", 0o777, "..", 0], ["a/b", "link", 0o777, "x", 0]],
        [["a", "dir", "0755", "", 0]], [["a", "dir", 0o4755, "", 0]], [["a", "link", 0o777, None, 0]],
        [["a", "dir", 0o755, "", -1]], [["a", "dir", 0o755, "", 0], ["a", "link", 0o777, "/", 0]],
        [["./a", "dir", 0o755, "", 0]], [["a//b", "dir", 0o755, "", 0]], [["a/", "dir", 0o755, "", 0]],
        [["a", "dir", 0o755, "x", 0]], [["a", "link", 0o777, "", 0]], [["a", "link", 0o777, "b\0c", 0]],
        [["a/b/c", "dir", 0o755, "", 0], ["a", "link", 0o777, "/etc", 0]], [["a", "dir", 0o755, "", 0]] * 2,
        [[7, "dir", 0o755, "", 0]], [[["a"], "dir", 0o755, "", 0]],
    ],
    ids=lambda rows: str(rows[-1][:4]),
)  # fmt: skip
def test_a_forged_list_is_refused(rows: list[list[object]], tmp_path: Path) -> None:
    """By a worker that gets it from a head which is no more to be believed, and by a head from people."""
    id, text = listed(*rows)
    with pytest.raises(SweepError) as error:
        transfer.accept(tmp_path / "store", id, text)
    assert str(error.value).count("\n") == 0
    assert not manifest(tmp_path / "store", id).exists()


def test_a_list_of_the_usual_kind_is_taken(tmp_path: Path) -> None:
    id, text = listed(
        ["a", "dir", 0o755, "", 0], ["a/b", "link", 0o777, "../c", 0], ["c", "dir", 0o755, "", 0]
    )
    transfer.accept(tmp_path / "store", id, text)
    checkout(tmp_path / "store", id, tmp_path / "work")
    assert (tmp_path / "work/a/b").readlink() == Path("../c")


def test_a_forged_pack_stores_nothing(tmp_path: Path) -> None:
    good = hashlib.sha256(b"good").hexdigest()
    for name, kind, content in (
        ("../evil", tarfile.REGTYPE, b"x"), ("/tmp/evil", tarfile.REGTYPE, b"x"),
        (good, tarfile.SYMTYPE, b""), (good, tarfile.LNKTYPE, b""), (good, tarfile.CHRTYPE, b""),
        (good, tarfile.FIFOTYPE, b""),
        (good, tarfile.REGTYPE, b"evil"), (good.upper(), tarfile.REGTYPE, b"good"),
        (f"{good}\n", tarfile.REGTYPE, b"good"),
        (good, tarfile.GNUTYPE_SPARSE, b"good"),
    ):  # fmt: skip
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
        packed.seek(0)
        with pytest.raises(SweepError):
            transfer.unpack(tmp_path / "store", packed)
        assert not [path for path in (tmp_path / "store").rglob("*") if not path.is_dir()], name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_an_object_that_somebody_changed_in_the_store_is_not_run_as_another(
    make_project: MakeProject, sweepfw: Sweepfw, workspace_folder: Path
) -> None:
    """A link in the place of a content leads nowhere: the setup fails, and says so."""
    make_project("p", "command: [sh, x.sh]\n", "a: 1\n", {"x.sh": "echo mine\n"})
    assert sweepfw("run", "p", "-q").returncode == 0
    digest = hashlib.sha256(b"echo mine\n").hexdigest()
    stored = workspace_folder / f".sweepfw/snapshots/objects/{digest[:2]}/{digest[2:]}"
    evil = workspace_folder / "evil"
    evil.write_text("echo evil\n")
    stored.unlink()
    stored.symlink_to(evil)
    done = subprocess.run(
        [sys.executable, "-m", "sweepfw", "extend", "p-1", "--set", "a=2"],
        cwd=workspace_folder, capture_output=True, text=True, timeout=SOON,
    )  # fmt: skip
    assert done.returncode == 1 and "evil" not in done.stdout, done
