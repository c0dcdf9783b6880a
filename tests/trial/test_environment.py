"""The Python that trials run with: found, or built from wheels that the tests make. No network."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packages import wheel, wheel_name

from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Environment
from sweepfw.errors import StoppedError, SweepError
from sweepfw.shell.local import find_command
from sweepfw.snapshot import freeze
from sweepfw.trial.builder import SetupFailed
from sweepfw.trial.building import collect
from sweepfw.trial.editables import editables, import_roots, outside
from sweepfw.trial.environment import check, resolve
from sweepfw.trial.interpreter import Resolved, inherit
from sweepfw.trial.requirements import read_requirements

# -- found ---------------------------------------------------------------------------------------------


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_active_environment_comes_before_path(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin/python")
    venv, conda = program(tmp_path / "venv/bin/python"), program(tmp_path / "conda/bin/python")
    env = {"PATH": f"{tmp_path}/bin"}
    assert inherit(env).python == on_path
    assert inherit(env | {"CONDA_PREFIX": f"{tmp_path}/conda"}).python == conda
    both = env | {"CONDA_PREFIX": f"{tmp_path}/conda", "VIRTUAL_ENV": f"{tmp_path}/venv"}
    assert inherit(both).python == venv
    assert inherit(both).variables == {"PATH": f"{tmp_path}/venv/bin:{tmp_path}/bin"}
    assert inherit(env | {"VIRTUAL_ENV": f"{tmp_path}/gone"}).python == on_path


def test_python3_serves_where_there_is_no_python(tmp_path: Path) -> None:
    three = program(tmp_path / "bin/python3")
    assert inherit({"PATH": f"{tmp_path}/bin"}).python == three
    assert inherit({"PATH": f"{tmp_path}/nothing"}).python == "python"  # the trial will say what is missing


def test_the_python_that_runs_us_does_not_count(tmp_path: Path) -> None:
    theirs = program(tmp_path / "bin/python")
    code = "from sweepfw.trial.interpreter import inherit; print(inherit().python)"
    env = {"PATH": f"{tmp_path}/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == theirs


def named(value: str, root: Path, env: dict[str, str] | None = None) -> Resolved:
    return resolve(
        Environment("python", value), Workspace(root), root, "", env=env or {"PATH": "/bin:/usr/bin"}
    )


def test_a_named_python(tmp_path: Path) -> None:
    relative = program(tmp_path / ".venv/bin/python")
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    found = named(".venv/bin/python", tmp_path)
    assert (found.python, found.variables["VIRTUAL_ENV"]) == (relative, str(tmp_path / ".venv"))
    assert found.variables["PATH"].startswith(f"{tmp_path}/.venv/bin:")
    assert named("./.venv", tmp_path).python == relative
    assert named("sh", tmp_path).python == find_command("sh", {"PATH": "/bin:/usr/bin"})


def test_what_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="python: /no/such can't be run here"):
        check(Environment("python", "/no/such"), tmp_path)
    with pytest.raises(SweepError, match=r"has no requirements\.txt"):
        check(Environment("requirements", "requirements.txt"), tmp_path)
    check(Environment(), tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- requirements files --------------------------------------------------------------------------------


def test_nested_files_are_followed_from_where_they_lie() -> None:
    files = {
        "reqs/all.txt": b"-r base.txt  # the base\n--constraint=../limits.txt\nx\n",
        "reqs/base.txt": b"numpy \\\n  >=1\n-rmore/deep.txt\n",
        "reqs/more/deep.txt": b"-r ../all.txt\n-r https://example.com/r.txt\n",
        "limits.txt": b"y<2\n",
    }
    found = read_requirements("reqs/all.txt", files.get)
    assert dict(found.texts) == {path: text.decode() for path, text in files.items()}
    assert not found.local
    with pytest.raises(SweepError, match=r"reqs/all\.txt: limits\.txt is not in the project's snapshot"):
        read_requirements("reqs/all.txt", {**files, "limits.txt": None}.get)


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("numpy>=1; python_version < '3.13'", False),
        ("git+https://github.com/a/b", False),
        ("-e git+https://github.com/a/b#egg=b", False),
        ("x @ https://example.com/x.whl", False),
        ("--index-url https://example.com/simple/", False),
        ("--find-links https://example.com/", False),
        ("--find-links /srv/wheels", False),
        ("/srv/x.whl", False),
        ("# -e .", False),
        ("-e .", True),
        ("--editable=./lib", True),
        (".[extra]", True),
        ("./lib", True),
        ("lib/", True),
        ("x.whl", True),
        ("x @ file:lib", True),
        ("-f wheels", True),
    ],
)
def test_lines_that_name_the_projects_own_files(line: str, local: bool) -> None:
    assert read_requirements("r", {"r": line.encode()}.get).local is local


# -- built ---------------------------------------------------------------------------------------------


def put_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """With one module."""
    folder.mkdir(parents=True, exist_ok=True)
    made = wheel({f"{name}.py": f"version = {version!r}\n"}, name, version, requires)
    (folder / wheel_name(name, version)).write_bytes(made)


class Lab:
    """A workspace with one project and wheels in it; resolves its requirements."""

    def __init__(self, folder: Path) -> None:
        self.place = Workspace(folder)
        self.root = folder / "projects/mine"
        for version in ("1.0", "1.1"):
            put_wheel(self.root / "wheels", "part", version)
        put_wheel(self.root / "wheels", "thing", "1.0", "part")
        self.require("thing")
        (folder / ".sweepfw").mkdir()
        self.env = {**os.environ, "PATH": _without_uv(), "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}

    def require(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("\n".join(("--no-index", "--find-links wheels", *lines)))

    def resolve(self, said: list[str] | None = None, **options: object) -> Resolved:
        snapshot = freeze(self.root, self.place.snapshots, 10**9)
        wanted = Environment("requirements", "requirements.txt")
        say = (said if said is not None else []).append
        return resolve(wanted, self.place, self.root, snapshot.id, env=self.env, say=say, **options)  # type: ignore[arg-type]  # options are its own

    def versions(self, found: Resolved) -> str:
        code = "import thing, part; print(thing.version, part.version)"
        env = found.over(self.env)
        return subprocess.run(
            ["python", "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout.strip()


def _without_uv() -> str:
    return ":".join(f for f in os.environ["PATH"].split(":") if not (Path(f) / "uv").exists())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield Lab(tmp_path_factory.mktemp("lab"))


def test_built_once_and_found_again(lab: Lab) -> None:
    shutil.rmtree(lab.place.environments, ignore_errors=True)  # of other tests
    said: list[str] = []
    first = lab.resolve(said)
    assert said[0] == "building the environment of requirements.txt with pip"
    assert first.lock == "part==1.1\nthing==1.0\n"
    assert lab.versions(first) == "1.0 1.1"
    assert first.variables["VIRTUAL_ENV"] == str(Path(first.python).parents[1])
    said.clear()
    again = lab.resolve(said)
    assert (again.python, again.lock, said) == (first.python, first.lock, [])
    assert lab.place.environments.stat().st_mode & 0o77 == 0


def test_a_locked_sweep_gets_its_versions_again_in_an_environment_of_its_own(lab: Lab) -> None:
    first = lab.resolve()
    locked = lab.resolve(lock="part==1.0\nthing==1.0\n")
    assert lab.versions(locked) == "1.0 1.0"
    assert lab.versions(first) == "1.0 1.1"
    assert lab.resolve(lock=first.lock).python == first.python


def test_two_runs_build_a_half_built_environment_once(lab: Lab, wait_until: Callable[..., None]) -> None:
    folder = Path(lab.resolve().python).parents[1]
    (folder / "ready.json").unlink()
    (folder / "rubbish").write_text("")
    for descriptor in _open_files(folder.with_name(f"{folder.name}.lock")):
        os.close(descriptor)  # what this process holds from the tests before
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        with folder.with_name(f"{folder.name}.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            runs = [pool.submit(lab.resolve, said) for _ in range(2)]
            wait_until(lambda: len(said) >= 2)
    assert runs[0].result().python == runs[1].result().python
    assert said[:2] == ["waiting for another run that builds this environment"] * 2
    assert len([line for line in said if line.startswith("building")]) == 1
    assert not (folder / "rubbish").exists()
    assert lab.versions(lab.resolve()) == "1.0 1.1"


def _open_files(path: Path) -> list[int]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            if Path(os.readlink(each)) == path:
                found.append(int(each.name))
        except OSError:
            continue
    return found


def test_environments_in_use_are_not_collected(tmp_path: Path) -> None:
    for name in ("used", "young", "old", "half-built"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "lib/file").write_text("x" * 1000)
        (tmp_path / f"{name}.lock").write_text("")
        if name != "half-built":
            (tmp_path / name / "ready.json").write_text("{}")
            os.utime(tmp_path / name / "ready.json", None if name == "young" else (1, 1))
    with (tmp_path / "used.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert collect(tmp_path, age=3600) >= 2000
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["used", "young"]


def test_a_failure_carries_the_whole_log(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.require("missing==9")
    with pytest.raises(SetupFailed, match=r"No matching distribution found for missing==9.*\.log$") as failed:
        lab.resolve()
    assert "\n" not in str(failed.value)
    assert "Looking in links: " in failed.value.text
    assert failed.value.log.parent == lab.place.environments
    lab.require("thing")
    said: list[str] = []
    with pytest.raises(StoppedError, match="resume"):
        lab.resolve(said, cancelled=lambda: bool(said))
    assert not list(_processes(str(tmp_path)))


def _processes(word: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            yield line


@pytest.fixture(scope="session")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with uv. Not ours, .venv: what finds uv there builds with it everywhere."""
    venv = tmp_path_factory.mktemp("uv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True, timeout=200)
    return venv / "bin"


@pytest.mark.lab
def test_uv_builds_the_same(tmp_path: Path, uv: Path) -> None:
    lab = Lab(tmp_path / "lab")
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv").symlink_to(uv / "uv")  # and no python beside it
    lab.env |= {"PATH": f"{tmp_path}/uv:{lab.env['PATH']}", "UV_CACHE_DIR": f"{tmp_path}/cache"}
    said: list[str] = []
    found = lab.resolve(said)
    assert said[0] == "building the environment of requirements.txt with uv"
    assert found.lock == "part==1.1\nthing==1.0\n"
    assert lab.versions(found) == "1.0 1.1"
    assert lab.versions(lab.resolve(lock="part==1.0\nthing==1.0\n")) == "1.0 1.0"
    lab.require("missing")
    with pytest.raises(SetupFailed, match="missing"):
        lab.resolve()


# -- editable installs ---------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Callable[[str, str], None]:
    """site(name, url): an interpreter's folder with one more editable install."""
    program(tmp_path / "venv/bin/python")
    (tmp_path / "venv/pyvenv.cfg").write_text("")

    def install(name: str, record: str) -> None:
        folder = tmp_path / f"venv/lib/python3.11/site-packages/{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "direct_url.json").write_text(record)

    return install


def test_editable_installs_are_found_and_named(tmp_path: Path, site: Callable[[str, str], None]) -> None:
    root = tmp_path / "my project"
    (root / "src").mkdir(parents=True)
    site("mine", f'{{"url": "file://{tmp_path}/my%20project", "dir_info": {{"editable": true}}}}')
    site("theirs", f'{{"url": "file://{tmp_path}/theirs", "dir_info": {{"editable": true}}}}')
    site("plain", f'{{"url": "file://{tmp_path}/plain", "dir_info": {{}}}}')
    site("broken", "{")
    packages = tmp_path / "venv/lib/python3.11/site-packages"
    (packages / "legacy.egg-link").write_text(f"{tmp_path}/legacy\n.")
    found = editables(str(tmp_path / "venv/bin/python"))
    assert found == [("legacy", tmp_path / "legacy"), ("mine", root), ("theirs", tmp_path / "theirs")]
    assert [name for name, _ in outside(found, root)] == ["legacy", "theirs"]
    assert import_roots(found, root) == ("src",)
