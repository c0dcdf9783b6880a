"""Who may read and change what: files of ours under any umask, those that others could get at, and folders of
other people that look like ours."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from here_processes import ours

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import Deployment, Host
from sweepfw.engine.service import main as service
from sweepfw.fleet.credentials import ensure_credentials

MakeProject = Callable[..., Path]


def ask(folder: Path, *words: str, umask: int = 0o022, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # options are subprocess.run's
        [sys.executable, "-m", "sweepfw", *words],
        cwd=folder,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        **options,
    )


def modes(root: Path) -> Iterator[tuple[Path, int]]:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            yield path, stat.S_IMODE(path.stat().st_mode)


TRIAL = (
    'umask; mkdir "$SWEEPFW_OUTPUT/mine"; : > "$SWEEPFW_OUTPUT/mine/f"; : > kept; : > "$SWEEPFW_CHECKPOINT/c"'
)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077], ids=oct)
def test_nobody_else_may_write_what_is_ours(
    umask: int,
    make_project: MakeProject,
    workspace_folder: Path,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    """And trials, projects and exports have the umask that the user has."""
    (workspace_folder / ".sweepfw").rmdir()
    make_project("p", "command: [sh, t.sh]\noutputs: [kept]\n", "a: [1, 2]\n", {"t.sh": TRIAL + "\n"})
    for words in (
        ("run", "p"),
        ("run", "p", "--detach"),
        ("attach", "p-2"),
        ("new", "mine"),
        ("export", "p-1", "-o", "x.csv"),
    ):
        done = ask(workspace_folder, *words, umask=umask)
        assert done.returncode == 0, (words, done)
    for sweep in ("p-1", "p-2"):
        log = workspace_folder / f"runs/{sweep}/trials/1/1/output.log"
        assert int(log.read_text(), 8) == umask
    wait_until(lambda: not ours(tmp_path), 60, "the end of what went on in the background")
    trials = {"mine", "f", "kept", "c"}
    for folder in ("runs", ".sweepfw"):
        for path, mode in modes(workspace_folder / folder):
            if path.name not in trials:
                assert not mode & 0o022, (oct(mode), path)
                assert not mode & umask & 0o077, (oct(mode), path)
    attempt = workspace_folder / "runs/p-1/trials/1/1"
    assert stat.S_IMODE((attempt / "files/mine").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((attempt / "files/mine/f").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((workspace_folder / ".sweepfw").stat().st_mode) == 0o700
    for name in ("projects/mine/project.yml", "x.csv"):
        assert stat.S_IMODE((workspace_folder / name).stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_keys_of_a_deployment(umask: int) -> None:
    before = os.umask(umask)
    try:
        state = DeploymentState.create(Deployment("lab", (Host("gpu1", "gpu1"),), "gpu1", ("gpu1",)))
        ensure_credentials(state.credentials, ["gpu1"])
        state.save()
        with state.lock():
            pass
    finally:
        os.umask(before)
    folders = {state.folder: 0o700}
    found = dict(modes(state.folder))
    assert len(found) > 2
    for path, mode in found.items():
        assert mode == folders.get(path, 0o600), (oct(mode), path)
    assert not state.folder.parent.stat().st_mode & 0o022 or umask == 0


@pytest.mark.parametrize("name", ["deployment.json", "credentials.json"])
@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_keys_that_others_can_get_at(name: str, mode: int, workspace_folder: Path) -> None:
    """Refused by the real command, with what to type; typed, it goes on."""
    state = DeploymentState.create(Deployment("lab", (Host("gpu1", "127.0.0.1", port=1),), "gpu1", ("gpu1",)))
    ensure_credentials(state.credentials, ["gpu1"])
    state.save()
    path = state.folder / name
    path.chmod(mode)
    done = ask(workspace_folder, "ls", "--on", "lab")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert f"chmod 600 {path}" in done.stderr
    path.chmod(0o600)
    state.folder.chmod(0o777)
    done = ask(workspace_folder, "ls", "--on", "lab")
    assert done.returncode == 2 and f"chmod 700 {state.folder}" in done.stderr, done
    state.folder.chmod(0o700)
    assert ask(workspace_folder, "ls", "--on", "lab").returncode == 4  # port 1 answers nobody


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_keys_of_somebody_else(workspace_folder: Path) -> None:
    """As another user, whose state folder names a file of ours."""
    state = DeploymentState.create(Deployment("lab", (Host("gpu1", "gpu1"),), "gpu1", ("gpu1",)))
    os.chown(state.folder / "deployment.json", 12345, 12345)
    done = ask(workspace_folder, "ls", "--on", "lab")
    assert done.returncode == 2 and "belongs to somebody else" in done.stderr and "chown 0 " in done.stderr


@pytest.mark.parametrize("role", ["head", "worker", "flower", "tunnel"])
def test_a_services_settings_hold_secrets_and_are_named_where_they_are_wrong(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with none of the settings in it."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"password": "open-sesame"}))
    assert service([role, "--settings", str(path)]) != 0
    told = capsys.readouterr().err
    assert "open-sesame" not in told and told.count("\n") == 1


# -- folders of others -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_workspace_that_somebody_else_has_put_above_ours(mode: int, tmp_path: Path) -> None:
    """In /tmp anybody can make a `.sweepfw` and a config.yml: nobody who works below takes them for ours."""
    shared = tmp_path / "tmp"
    (shared / ".sweepfw").mkdir(parents=True)
    (shared / "config.yml").write_text("name: theirs\nhosts: [evil]\n")
    shared.chmod(0o1777)
    (shared / ".sweepfw").chmod(mode)
    for path in (shared / ".sweepfw", shared / "config.yml"):
        os.chown(path, 12345, 12345)
    mine = shared / "mine"
    (mine / "projects/p").mkdir(parents=True)
    (mine / "projects/p/project.yml").write_text("command: echo\n")
    done = ask(mine, "run", "p", "-q")
    assert done.returncode == 0, done
    assert (mine / "runs/p-1").is_dir() and not (shared / "runs").exists()
    assert not list((shared / ".sweepfw").iterdir())
    (mine / ".sweepfw").rename(mine / "moved")
    refused = ask(shared, "run", "mine/projects/p")
    assert refused.returncode == 2 and "belongs to somebody else" in refused.stderr, refused
