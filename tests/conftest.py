"""What all tests share: a clean world around them, and ways to run the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from broker_lab import Broker

# Time is no one's promise on a shared machine: no deadlines. In CI every run tries the same examples.
settings.register_profile(
    "sweepfw", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("sweepfw")

# A shell that starts us in the background has Ctrl-C ignored, and what we start inherits that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """What a test changes of its process, the next one does not find."""
    folder, umask = Path.cwd(), os.umask(0o022)
    os.umask(umask)
    yield
    os.chdir(folder)
    os.umask(umask)


LAB = "SWEEPFW_LAB" in os.environ  # scripts/test --lab says so

_LABS = "SWEEPFW_LAB"
_OURS = ("SWEEPFW_", "GIT_", "VIRTUAL_ENV", "CONDA_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NO_COLOR")
_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.invalid",
    "GIT_COMMITTER_NAME": "A Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.invalid",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("lab") and not LAB:
            item.add_marker(pytest.mark.skip(reason="installs packages: scripts/test --lab"))


# Files of which one worker runs all, since each worker would make what they stand on again.
_WHOLE = (
    "tests/lab/",
    "tests/engine/test_crash_",
    "tests/engine/test_deployed.py",
    "tests/engine/test_secrets_deployed.py",
    "tests/attacks/test_files_outputs.py",
    "tests/attacks/test_hosts_containers.py",
    "tests/attacks/test_texts_flower.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By a scheduler rather than marks: xdist 3.8 does not see `xdist_group` under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.startswith(_WHOLE) else nodeid

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _clean_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the caller's shell happens to set must not decide a test: variables, git's identity, widths.

    Nor the user's own deployments, also where a fixture of a file or session runs commands.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OURS) and not name.startswith(_LABS)]:
            patch.delenv(name)
        for name, value in _GIT.items():
            patch.setenv(name, value)
        patch.setenv("COLUMNS", "100")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("no-deployments")))
        yield


@pytest.fixture(autouse=True)
def _outside_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's own fixtures read them; no command sees them."""
    for name in [name for name in os.environ if name.startswith(_LABS)]:
        monkeypatch.delenv(name)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """wait_until(predicate, seconds=60, what="..."): poll until true; the test fails at the deadline."""

    def wait(predicate: Callable[[], object], seconds: float = 60, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        late = False  # asked before the predicate: a process that stood still meanwhile gets another look
        while not predicate():
            if late:
                pytest.fail(f"not within {seconds} s: {what or predicate}")
            late = time.monotonic() > deadline
            time.sleep(0.01)

    return wait


@pytest.fixture(autouse=True)
def no_deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own deployments are nothing to a test: each has an empty state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One for all tests. Who stops it starts it again, and leaves no queue that another test could meet."""
    from broker_lab import Broker, MissingError

    try:
        found = Broker.find()
    except MissingError as error:
        pytest.skip(str(error))
    with found.running():
        yield found


@pytest.fixture
def workspace_folder(tmp_path: Path) -> Path:
    """An empty workspace's folder, marked as one, so that no folder above it is taken for it."""
    root = tmp_path / "workspace"
    (root / ".sweepfw").mkdir(parents=True, mode=0o700)
    (root / "projects").mkdir()
    return root


@pytest.fixture
def make_project(workspace_folder: Path) -> Callable[..., Path]:
    """make_project(name, project_yml, parameters_yml="", {"train.py": "..."}): a project's folder."""

    def make(name: str, project: str, parameters: str = "", files: Mapping[str, str] | None = None) -> Path:
        folder = workspace_folder / "projects" / name
        folder.mkdir(parents=True)
        (folder / "project.yml").write_text(project)
        if parameters:
            (folder / "parameters.yml").write_text(parameters)
        for file, text in (files or {}).items():
            (folder / file).write_text(text)
        return folder

    return make


@pytest.fixture
def sweepfw(workspace_folder: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """sweepfw("run", "echo"): the real command, in the workspace, to its end. Its output is text.

    What it left to run in the background is stopped at the test's end.
    """
    detached = False

    def run(
        *arguments: str, cwd: Path | None = None, seconds: float = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        nonlocal detached
        detached |= not {"--detach", "-d"}.isdisjoint(arguments)
        return subprocess.run(
            [sys.executable, "-m", "sweepfw", *arguments],
            cwd=cwd or workspace_folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds,
            **options,
        )

    yield run
    if detached:
        run("stop", "--all", "--now")


@pytest.fixture
def start_sweepfw(workspace_folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """As `sweepfw`, but it goes on beside the test; what still runs at the test's end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "sweepfw", *arguments],
            cwd=cwd or workspace_folder,
            stdin=subprocess.DEVNULL,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        with suppress(ValueError):  # the test has read it to its end
            process.communicate()
