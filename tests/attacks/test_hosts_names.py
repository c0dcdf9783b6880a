"""Names that could be more than names: of hosts, users, deployments, folders, mounts. The real command: one
line, exit code 2, nothing run, nothing made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# Each makes a file `ran` if a shell or ssh obeys it.
HOSTS = {
    "an option": "-oProxyCommand=touch ran",
    "an option with a user": "ada@-oProxyCommand=touch ran",
    "a command": "$(touch ran)",
    "backquotes": "`touch ran`",
    "two commands": "gpu1;touch ran",
    "two lines": "gpu1\nProxyCommand touch ran",
    "a carriage return": "gpu1\rgpu2",
    "a token of ssh": "%h",
    "a look-alike": "gрu1",  # the second letter is Cyrillic
    "digits of others": "gpu١",
    "full width": "ｇｐｕ１",
    "right to left": "\u202e1upg",
    "no break space": "gpu\u00a01",
    "an escape sequence": "\x1b]0;pwned\x07",
    "long": "g" * 10_000,
    "a path": "../../etc/passwd",
    "a quote": "gpu1'",
    "nothing": "@",
    "an address with a port too many": "gpu1:22:22",
    "a port that is none": "gpu1:0x16",
    "a port beyond": "gpu1:65536",
    "a port of others' digits": "gpu1:２２",
    "brackets": "[::1%$(touch ran)]",
    "a Unix socket": "/var/run/docker.sock",
}
USERS = {
    "a command": "$(touch ran)",
    "an option": "-lroot",
    "two lines": "a\nb",
    "a look-alike": "аda",  # Cyrillic
    "a quote": "a'b",
    "a blank": "a b",
    "a colon": "root:x:0",
    "an escape sequence": "\x1b[2J",
    "long": "a" * 10_000,
    "a token of ssh": "%r",
    "a semicolon": "a;touch ran",
}
NAMES = ("../up", "a/b", "-x", "..", ".", "Lab", "lab\n", "$(touch ran)", "lаb", "\x1b[2J", "l" * 10_000, "")


@pytest.fixture
def ask(workspace_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The real command in a workspace; afterwards there must be nothing but what was there before."""

    def run(*words: str, config: str | None = None) -> subprocess.CompletedProcess[str]:
        if config is not None:
            (workspace_folder / "config.yml").write_text(config)
        return subprocess.run(
            [sys.executable, "-m", "sweepfw", *words],
            cwd=workspace_folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def refused(done: subprocess.CompletedProcess[str], root: Path) -> str:
    assert done.returncode == 2 and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable(), done.stderr
    assert done.stderr.startswith("sweepfw") and len(done.stderr) < 1000, done.stderr
    left = {path.name for path in root.iterdir()} - {".sweepfw", "projects", "config.yml", "workspace"}
    assert not left and not (root / "ran").exists()
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()
    return done.stderr


@pytest.mark.parametrize("host", HOSTS)
def test_hosts_on_the_command_line(host: str, ask: Callable[..., object], workspace_folder: Path) -> None:
    refused(ask("infra", "up", "-a", HOSTS[host], "--yes"), workspace_folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("user", USERS)
def test_users_on_the_command_line(user: str, ask: Callable[..., object], workspace_folder: Path) -> None:
    refused(ask("infra", "doctor", "-a", f"{USERS[user]}@gpu1"), workspace_folder)  # type: ignore[arg-type]


def config(**keys: object) -> str:
    """As JSON, which is YAML: any text can stand in it."""
    return json.dumps({"hosts": {"gpu1": keys}})


BAD: Mapping[str, str] = {
    **{f"address: {name}": config(address=host) for name, host in HOSTS.items()},
    **{f"list: {name}": json.dumps({"hosts": [host]}) for name, host in HOSTS.items()},
    **{f"name: {name}": json.dumps({"hosts": {host: None}}) for name, host in HOSTS.items()},
    **{f"user: {name}": config(user=user) for name, user in USERS.items()},
    **{f"from the head: {name}": config(address_from_head=host) for name, host in HOSTS.items()},
    **{
        f"remote_dir {n}": json.dumps({"hosts": ["gpu1"], "remote_dir": place})
        for n, place in enumerate(
            ("~/a\nb", "/a/../b", "~/..", "relative", "/a:b", "/a b", "~root/x", "/a/$(id)", "/\x1b[2J")
        )
    },
    **{
        f"mounts {n}": config(mounts=[mount])
        for n, mount in enumerate(
            (
                "/a\nb", "/a:/b:rw:z", "/a:/b:exec", "/../a", "/a/..", "/a:/../b", "relative", "a:/b", "/a,b",
                "/a:/b,readonly", "$(id)", "/$(id)", "/a:/", "/var/run/docker.sock", "/x:/etc/sweepfw/x",
                "/\x1b[2J", "/a:/var/lib/sweepfw", "",
            )
        )
    },
    **{f"deployment {n}": json.dumps({"hosts": ["gpu1"], "name": name}) for n, name in enumerate(NAMES)},
    "an image that is an option": config(image="--privileged"),
    "a base with a command": json.dumps({"hosts": ["gpu1"], "build": {"base": "x\nRUN id"}}),
    "a label with a line": config(labels=["a\nb"]),
    "a GPU that is an option": config(gpus=["--all"]),
    "a head that is none": json.dumps({"hosts": ["gpu1"], "head": "-x"}),
}  # fmt: skip


@pytest.mark.parametrize("group", sorted({name.partition(":")[0].split(" ")[0] for name in BAD}))
def test_in_a_configuration(group: str, ask: Callable[..., object], workspace_folder: Path) -> None:
    """By groups, in one process each: there are many. The real command reads one of each."""
    from sweepfw.cli.terminal import safe
    from sweepfw.config.deployment import load_deployment
    from sweepfw.config.yaml_reader import show_path
    from sweepfw.errors import SweepError

    mine = [name for name in BAD if name.partition(":")[0].split(" ")[0] == group]
    path = workspace_folder / "config.yml"
    for name in mine:
        path.write_text(BAD[name])
        with pytest.raises(SweepError) as error:
            print(name, load_deployment(path))
        assert str(error.value).startswith(f"{show_path(path)}:1:") and len(safe(str(error.value))) < 1000, (
            name
        )
    said = refused(ask("infra", "up", "--yes", config=BAD[mine[0]]), workspace_folder)  # type: ignore[arg-type]
    assert "config.yml:1:" in said


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_deployments_by_name(
    name: str, ask: Callable[..., object], workspace_folder: Path, tmp_path: Path
) -> None:
    """A name leads to no other folder: neither of one that is there, nor of one that would be made."""
    state = Path(os.environ["XDG_STATE_HOME"])
    for words in (
        ("ls", "--on", name),
        ("infra", "status", "--on", name),
        ("infra", "up", "-a", "gpu1", "--name", name),
    ):
        refused(ask(*words), workspace_folder)  # type: ignore[arg-type]
    assert not state.exists()


@pytest.mark.parametrize(
    "host", ["an option", "two lines", "an escape sequence", "long", "a path", "a look-alike"]
)
def test_hosts_of_a_deployment_that_is_there(
    host: str, ask: Callable[..., object], workspace_folder: Path
) -> None:
    """`infra logs HOST`, `infra drain HOST`: one that the deployment has, or one line."""
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import Deployment, Host

    DeploymentState.create(Deployment("lab", (Host("gpu1", "127.0.0.1", port=1),), "gpu1", ("gpu1",)))
    for words in (("logs", HOSTS[host], "worker"), ("logs", "--", "gpu1", HOSTS[host])):
        done = ask("infra", *words)
        assert isinstance(done, subprocess.CompletedProcess)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable() and len(done.stderr) < 1000
        assert not (workspace_folder / "ran").exists()
