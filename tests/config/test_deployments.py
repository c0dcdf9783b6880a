"""A deployment's state: kept for its owner only, one change at a time, and found as a command means it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweepfw.config.deployments import DeploymentState, HostRecord, choose, drafting, names
from sweepfw.config.workspace import Workspace
from sweepfw.core.deployment import Build, Deployment, Host
from sweepfw.errors import BusyError, SweepError

DEPLOYMENT = Deployment(
    "lab",
    (Host("a", "a", mounts=("/d:/d",), gpus=()), Host("b", "b", "ada", 22)),
    "a",
    ("b",),
    identity="/k",
    build=Build(base="x:1"),
)
RECORD = HostRecord(
    "m" * 32, "x86_64", "ada", 1000, 1000, "/home/ada", "/home/ada/.sweepfw/lab-1", ("ssh-ed25519 AAAA",)
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/sweepfw/deployments"


def make(name: str) -> DeploymentState:
    return DeploymentState.create(Deployment(name, (Host("a", "a"),), "a", ("a",)))


def test_what_is_saved_is_loaded(root: Path) -> None:
    old = os.umask(0)  # whatever the user's is
    try:
        state = DeploymentState.create(DEPLOYMENT)
    finally:
        os.umask(old)
    assert len(state.uid) == 32 and state.folder == root / "lab"
    assert state.folder.stat().st_mode & 0o777 == 0o700
    assert (state.folder / "deployment.json").stat().st_mode & 0o777 == 0o600
    state.complete, state.former = True, (Host("c", "c", gpus=("GPU-1",)),)
    state.records["a"] = RECORD
    state.head_addresses["head"] = "172.18.0.3"
    state.save()
    assert DeploymentState.load("lab") == state
    assert sorted(path.name for path in state.folder.iterdir()) == ["deployment.json"]
    with pytest.raises(SweepError, match="there is a deployment 'lab' already"):
        DeploymentState.create(DEPLOYMENT)
    state.remove()
    assert names() == [] and not state.folder.exists()


def test_the_state_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", given)
        assert names() == []
        state = make("lab")
        assert state.folder == tmp_path / "home/.local/state/sweepfw/deployments/lab"
        state.remove()


@pytest.mark.parametrize(
    ("what", "mode"), [("deployment.json", 0o640), ("deployment.json", 0o602), (".", 0o722)]
)
def test_what_others_can_get_at_is_refused(what: str, mode: int) -> None:
    path = make("lab").folder / what
    path.chmod(mode)
    with pytest.raises(SweepError) as caught:
        DeploymentState.load("lab")
    right = "700" if what == "." else "600"
    assert f"chmod {right} " in str(caught.value) and "\n" not in str(caught.value)
    path.chmod(int(right, 8))
    DeploymentState.load("lab")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"form": 2}', "null"])
def test_a_torn_file_is_a_line(text: str) -> None:
    path = make("lab").folder / "deployment.json"
    path.write_text(text)
    with pytest.raises(SweepError, match="is not as sweepfw wrote it") as caught:
        DeploymentState.load("lab")
    assert str(path) in str(caught.value)


def test_one_change_at_a_time() -> None:
    state = make("lab")
    with state.lock():
        with pytest.raises(BusyError, match="another `sweepfw infra`"):
            with DeploymentState.load("lab").lock():
                pass
    with state.lock():
        pass


# -- which deployment ------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    return Workspace(tmp_path / "ws")


def chosen(workspace: Workspace, on: str | None = None, here: bool = False) -> str | None:
    state = choose(on, here, workspace)
    return state.name if state else None


def test_none_is_this_machine(workspace: Workspace) -> None:
    assert chosen(workspace) is None
    (workspace.root / "config.yml").write_text("hosts: [a]\nname: lab")
    assert chosen(workspace) is None  # it was never brought up
    with pytest.raises(SweepError, match="no deployment 'lab' is known here; `sweepfw infra up` makes one"):
        choose("lab", False, workspace)


def test_the_only_one(workspace: Workspace) -> None:
    make("lab")
    assert chosen(workspace) == "lab"
    assert chosen(workspace, here=True) is None
    assert chosen(workspace, on="lab") == "lab"
    with pytest.raises(SweepError, match="exclude each other"):
        choose("lab", True, workspace)


def test_several(workspace: Workspace) -> None:
    make("lab")
    make("big")
    with pytest.raises(SweepError, match="several deployments are up: big, lab; choose with --on"):
        choose(None, False, workspace)
    assert chosen(workspace, on="big") == "big"
    (workspace.root / "config.yml").write_text("hosts: [a]\nname: lab")
    assert chosen(workspace) == "lab"
    (workspace.root / "config.yml").write_text("hosts: [a]\nname: other")
    with pytest.raises(SweepError, match="names the deployment 'other', which is not up"):
        choose(None, False, workspace)
    assert chosen(workspace, here=True) is None
    with pytest.raises(SweepError, match=r"no deployment '\.\./lab' is known here; known: big, lab"):
        choose("../lab", False, workspace)


def test_what_is_no_deployment_is_none(root: Path) -> None:
    make("lab")
    (root / "half").mkdir()
    (root / "file").write_text("")
    assert names() == ["lab"]


def test_another_versions_file_is_said(root: Path) -> None:
    path = make("lab").folder / "deployment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "form": 9}))
    with pytest.raises(SweepError, match="another version's"):
        DeploymentState.load("lab")


DRAFTING = """
import sys
from sweepfw.config.deployments import drafting
with drafting() as folder:
    (folder / "credentials.json").write_text("a key")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_draft_left_goes_with_the_next(root: Path) -> None:
    """And what another still has does not. A draft holds keys, and is no deployment."""
    command = [sys.executable, "-c", DRAFTING]
    with subprocess.Popen(
        command, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        left = Path(other.stdout.readline().strip())
        try:
            with drafting() as mine:
                assert (left / "credentials.json").exists() and mine != left
                assert mine.stat().st_mode & 0o777 == 0o700
            assert not mine.exists()
            assert names() == []
        finally:
            other.kill()
    assert left.exists()
    with drafting():
        assert not left.exists()
    assert list(root.iterdir()) == []  # as it was made by the other one
