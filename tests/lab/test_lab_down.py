"""`infra down` on real hosts: what is ours goes, after it came home; what is not ours stays.

The deployment here is made by hand, with what its head and workers would have left: so each state that a
real one can be in is there at once, a head that stands still among them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import Lab
from lab_host import Host as LabHost
from lab_site import Site

from sweepfw import snapshot
from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import Deployment, Host, folder, network, prefix
from sweepfw.core.metrics import Fold, Point
from sweepfw.core.model import Draft, Grant, Objective, Outcome, Spec, Worker
from sweepfw.core.values import Number
from sweepfw.fleet import authorized
from sweepfw.ledger.local import open_ledger
from sweepfw.ledger.store import SqliteLedger

SPEC = Spec("digits", "train", ("true",), metrics=(("acc", None),), objective=Objective("acc", "maximize"))
MODEL = os.urandom(300_000)
CODE = b"print('hello')\n"
DIGEST = hashlib.sha256(CODE).hexdigest()
LIST = json.dumps({"files": [["train.py", "file", 0o644, DIGEST, len(CODE)]]}).encode()
ID = hashlib.sha256(LIST).hexdigest()[:24]
USERS_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJ me@home"


@dataclass
class Handmade:
    """A deployment of two hosts, as `up` and some trials left it."""

    lab: Lab
    state: DeploymentState
    workspace: Path
    environment: Mapping[str, str]

    def sweepfw(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweepfw", *words],
            cwd=cwd or self.workspace,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def left(self, host: LabHost) -> list[str]:
        """All of ours that is on the host."""
        ours = f"label=sweepfw.deployment={self.state.uid}"
        kinds = (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"])
        found = [
            word for kind in kinds for word in host.run(["docker", *kind, "--filter", ours]).stdout.split()
        ]
        found += host.run(["docker", "image", "ls", "-q", "sweepfw:hand"]).stdout.split()
        found += host.run(
            ["sh", "-c", "ls -d /home/lab/.sweepfw/hand-* 2>/dev/null"], check=False
        ).stdout.split()
        keys = host.read("/home/lab/.ssh/authorized_keys")
        return found + [line for line in keys.splitlines() if self.state.uid in line]


def attempt(ledger: SqliteLedger, uid: str, trial: int, host: str, acc: float | None) -> None:
    """One trial's success with an output file, or one that still runs."""
    grant = ledger.claim(uid, trial, Worker(host, host), "0", f"{trial}")
    assert isinstance(grant, Grant)
    if acc is not None:
        fold = Fold()
        fold.add([Point("acc", acc, None)])
        details = {"files": {"count": 1, "bytes": len(MODEL)}, "files_on": host}
        ledger.finish(grant.token, Outcome("succeeded", "", 0, 2e9, fold.summaries, details))


def head_files(at: Path) -> dict[str, bytes]:
    """What lies in the head's volume: a ledger, logs, a checkpoint of a trial that runs."""
    checkpoint = io.BytesIO()
    with tarfile.open(fileobj=checkpoint, mode="w") as tar:
        info = tarfile.TarInfo("epoch.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"17"))
    with SqliteLedger(at / "ledger.db", at / "runs") as ledger:
        drafts = [Draft({"lr": Number(f"0.{n}")}) for n in (1, 2, 3, 4)]
        sweep = ledger.submit(SPEC, ID, drafts, provenance={"submitter": "eve@elsewhere"})
        for host in ("host1", "host2"):
            ledger.register(Worker(host, host))
        ledger.open(sweep.uid)
        attempt(ledger, sweep.uid, 1, "host1", 0.5)
        attempt(ledger, sweep.uid, 2, "host2", 0.75)
        attempt(ledger, sweep.uid, 3, "host2", None)
    files = {f".sweepfw/{path.name}": path.read_bytes() for path in at.glob("ledger.db*")}
    objects = f".sweepfw/snapshots/objects/{DIGEST[:2]}"
    return files | {
        f".sweepfw/snapshots/{ID}.json": LIST,
        f"{objects}/{DIGEST[2:]}": CODE,
        "runs/digits-1/sweep.yml": b"sweep: digits-1\n",
        "runs/digits-1/trials/1/1/output.log": b"hello from 1\n",
        "runs/digits-1/trials/2/1/output.log": b"hello from 2\n",
        "runs/digits-1/trials/3/1/output.log": b"half a li",
        "runs/digits-1/trials/3/checkpoint.tar": checkpoint.getvalue(),
    }


def packed(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            info.uid = info.gid = 1000
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def docker(host: LabHost, *words: str, stdin: bytes = b"") -> None:
    call = ["docker", "exec", "-i", host.container, "docker", *words]
    done = subprocess.run(call, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def make(host: LabHost, state: DeploymentState, role: str, files: Mapping[str, bytes]) -> None:
    """A container of this role that does not run, with its volume."""
    name, label = prefix("hand", state.uid) + role, f"sweepfw.deployment={state.uid}"
    docker(host, "tag", "sweepfw-lab/base:latest", "sweepfw:hand")
    docker(host, "volume", "create", "--label", label, name)
    mount = f"type=volume,source={name},target=/var/lib/sweepfw"
    docker(
        host,
        *("create", "--name", name, "--label", label, "--label", f"sweepfw.role={role}"),
        *("--network", network("hand", state.uid), "--mount", mount, "sweepfw:hand", "sleep", "9999"),
    )
    into = [
        "run",
        "--rm",
        "-i",
        "--mount",
        mount,
        "sweepfw:hand",
        "tar",
        "-C",
        "/var/lib/sweepfw",
        "-xf",
        "-",
    ]
    docker(host, *into, stdin=packed(files))


def furnish(host: LabHost, state: DeploymentState) -> None:
    """Network, folder and key, as on every host."""
    docker(
        host, "network", "create", "--label", f"sweepfw.deployment={state.uid}", network("hand", state.uid)
    )
    machine = host.read("/etc/machine-id").strip()
    here = f"/home/lab/.sweepfw/{folder('hand', state.uid, machine)}"
    host.run(["sh", "-c", f"mkdir -p {here} && echo ours >{here}/README"], user="lab")
    line = f'restrict,command="true" {USERS_KEY.rsplit(" ", 1)[0]} {authorized.tag(state.uid, machine)}'
    host.run(["sh", "-c", 'echo "$1" >>~/.ssh/authorized_keys', "sh", line], user="lab")


def bystanders(host: LabHost) -> None:
    """What was there before us, and another deployment's."""
    docker(host, "volume", "create", "--label", "sweepfw.deployment=0123", "sweepfw-other-0123-worker")
    docker(host, "network", "create", "mine")
    docker(
        host, "run", "-d", "--name", "mine", "--network", "mine", "sweepfw-lab/base:latest", "sleep", "9999"
    )
    docker(host, "tag", "sweepfw-lab/base:latest", "sweepfw:other")
    docker(host, "create", "--name", "other", "--label", "sweepfw.deployment=0123", "sweepfw:other", "true")
    host.run(["sh", "-c", "mkdir -p ~/.sweepfw/other-0123 && touch ~/.sweepfw/other-0123/x"], user="lab")
    host.run(["sh", "-c", 'echo "$1" >>~/.ssh/authorized_keys', "sh", USERS_KEY], user="lab")


WORLD = """
docker ps -a --format '{{.Names}} {{.State}}' | sort
docker volume ls -q | sort
docker network ls --format '{{.Name}}' | sort
docker image ls --format '{{.Repository}}:{{.Tag}}' | sort
ls -lA --time-style=+ /home/lab/.ssh
cat /home/lab/.ssh/authorized_keys
find /home/lab/.sweepfw | sort
"""


def world(host: LabHost) -> str:
    """What is on the host, for comparison."""
    return host.run(["sh", "-c", WORLD]).stdout


@pytest.fixture
def handmade(
    start_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Handmade]:
    lab = start_lab(hosts=2)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    workspace = tmp_path / "workspace"
    (workspace / ".sweepfw").mkdir(parents=True, mode=0o700)
    hosts = tuple(Host(host.name, host.name) for host in lab.hosts)
    state = DeploymentState.create(Deployment("hand", hosts, "host1", ("host1", "host2")))
    yield Handmade(lab, state, workspace, {**os.environ, "SWEEPFW_SSH_CONFIG": str(lab.ssh_config)})


def fill(handmade: Handmade, tmp_path: Path) -> None:
    for host in handmade.lab.hosts:
        furnish(host, handmade.state)
    (tmp_path / "made").mkdir()
    first, second = handmade.lab.hosts
    make(first, handmade.state, "head", head_files(tmp_path / "made"))
    make(first, handmade.state, "worker", {"runs/digits-1/trials/1/1/files/model.bin": MODEL[:9]})
    make(second, handmade.state, "worker", {"runs/digits-1/trials/2/1/files/model.bin": MODEL})


def test_all_comes_home_and_all_goes_and_nothing_else(handmade: Handmade, tmp_path: Path) -> None:
    for host in handmade.lab.hosts:
        bystanders(host)
    before = [world(host) for host in handmade.lab.hosts]
    fill(handmade, tmp_path)

    refused = handmade.sweepfw("infra", "down", "--yes")
    assert refused.returncode == 2, refused.stderr
    assert "--outputs all|best:N|none" in refused.stderr
    assert all(len(handmade.left(host)) > 5 for host in handmade.lab.hosts)

    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert [handmade.left(host) for host in handmade.lab.hosts] == [[], []]
    assert [world(host) for host in handmade.lab.hosts] == before
    assert not handmade.state.folder.exists()

    runs = handmade.workspace / "runs/digits-1"
    assert (runs / "trials/2/1/files/model.bin").read_bytes() == MODEL
    assert (runs / "trials/3/checkpoint/epoch.txt").read_text() == "17"
    assert not (runs / "trials/3/checkpoint.tar").exists()
    assert snapshot.read(handmade.workspace / ".sweepfw/snapshots", ID, "train.py") == CODE
    [sweep] = json.loads(handmade.sweepfw("ls", "--json").stdout)
    assert (sweep["sweep"], sweep["state"]) == ("digits-1", "queued")
    shown = json.loads(handmade.sweepfw("show", "digits-1", "--json").stdout)
    assert shown["counts"] == {"succeeded": 2, "queued": 2}
    assert shown["trials"][2]["attempts"][0]["state"] == "interrupted"
    assert handmade.sweepfw("logs", "digits-1/1").stdout == "hello from 1\n"
    assert "digits-1/2" in handmade.sweepfw("best", "digits-1").stdout.splitlines()[2]


def test_the_best_alone(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "best:1")
    assert done.returncode == 0, done.stderr
    found = [path.parts[-3] for path in (handmade.workspace / "runs").rglob("model.bin")]
    assert [
        path.relative_to(handmade.workspace).parts[3] for path in handmade.workspace.rglob("model.bin")
    ] == ["2"]
    assert found


def test_a_host_out_of_reach_is_named_and_the_next_down_finishes(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    first, second = handmade.lab.hosts
    second.kill()
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 4, done.stderr
    assert "is not gone from host2" in done.stderr
    assert "digits-1/2: 1 of 1 output files, made on host2, can't be reached now" in done.stderr
    assert handmade.left(first) == []
    assert (handmade.workspace / "runs/digits-1/trials/2/1/output.log").exists()

    second.boot()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all", "--on", "hand", cwd=elsewhere)
    assert refused.returncode == 2
    assert str(handmade.workspace) in refused.stderr
    first.kill()  # it holds nothing any more, and is not missed
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert handmade.left(second) == []
    assert (handmade.workspace / "runs/digits-1/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert not handmade.state.folder.exists()


def test_a_name_that_another_sweep_has_here(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    from sweepfw.config.workspace import Workspace

    ledger = open_ledger(Workspace(handmade.workspace), create=True)
    own = ledger.submit(SPEC, "s" * 24, [Draft({})])
    ledger.disconnect()
    assert own.name == "digits-1"
    done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert done.returncode == 0, done.stderr
    assert "came home: digits-1-hand" in done.stderr
    assert (handmade.workspace / "runs/digits-1-hand/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert handmade.sweepfw("logs", "digits-1-hand/1").stdout == "hello from 1\n"
    assert not (handmade.workspace / "runs/digits-1").exists()


def test_killed_at_any_moment_the_next_finishes(handmade: Handmade, tmp_path: Path) -> None:
    fill(handmade, tmp_path)
    words = [sys.executable, "-m", "sweepfw", "infra", "down", "--yes", "--outputs", "all"]
    moments = sorted(random.uniform(0.2, 8) for _ in range(4))
    print("killed after", moments)
    for moment in moments:
        process = subprocess.Popen(
            words,
            cwd=handmade.workspace,
            env=handmade.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()
        process.wait()
    if handmade.state.folder.exists():
        done = handmade.sweepfw("infra", "down", "--yes", "--outputs", "all")
        assert done.returncode == 0, done.stderr
    assert [handmade.left(host) for host in handmade.lab.hosts] == [[], []]
    assert not handmade.state.folder.exists()
    assert (handmade.workspace / "runs/digits-1/trials/2/1/files/model.bin").read_bytes() == MODEL
    assert (handmade.workspace / "runs/digits-1/trials/3/checkpoint/epoch.txt").read_text() == "17"
    assert len(json.loads(handmade.sweepfw("show", "digits-1", "--json").stdout)["trials"]) == 4


BIG = """\
echo "score: $1"
head -c 12000000 /dev/zero | tr '\\0' "$1" >"$SWEEPFW_OUTPUT/big.bin"
ln -s big.bin "$SWEEPFW_OUTPUT/latest"
echo "$1" >"$SWEEPFW_CHECKPOINT/state"
sleep "$2"
"""


def project(site: Site) -> None:
    folder = site.workspace / "projects/big"
    folder.mkdir(parents=True)
    (folder / "project.yml").write_text(
        "command: [sh, big.sh, '{n}', '{sleep}']\n"
        "metrics: [score]\nobjective: {metric: score, goal: maximize}\n"
    )
    (folder / "parameters.yml").write_text("n: [1, 2, 3, 4]\nsleep: [0]\n")
    (folder / "big.sh").write_text(BIG)


def test_the_life_of_a_deployment(lab: Lab, tmp_path: Path) -> None:
    """Looked at, with its files pulled, seen in Flower, and taken down while trials run."""
    site = Site(lab, tmp_path)
    site.configure()
    project(site)
    site.sweepfw("infra", "up", "--yes")
    runs = site.workspace / "runs"
    try:
        site.sweepfw("run", "big", "--quiet")
        told = json.loads(site.sweepfw("infra", "status", "--json", code=None))
        assert [host["worker"]["alive"] for host in told["hosts"]] == [True, True]
        assert told["head"]["broker"] is True

        assert "2 files came, 12.0 MB" in site.sweepfw("pull", "big-1", "--best", "1")
        assert (runs / "big-1/trials/4/1/files/latest").read_bytes() == b"4" * 12_000_000
        assert "nothing new" in site.sweepfw("pull", "big-1/4")
        assert "no trial big-1/9" in site.sweepfw("pull", "big-1/9", code=2)
        assert "serves at" in site.sweepfw("infra", "logs", "head", "head")
        assert "there are rabbitmq, head" in site.sweepfw("infra", "logs", "host1", "x", code=2)
        seen_in_flower(site)

        site.sweepfw("run", "big", "--set", "sleep=300", "--detach")
        wait(lambda: '"running": 4' in site.sweepfw("infra", "status", "--json", code=None))
        assert "4 trials running" in site.sweepfw("infra", "down", code=2)
        assert "--outputs all|best:N|none" in site.sweepfw("infra", "down", "--yes", code=2)
    finally:
        printed = site.sweepfw("infra", "down", "--yes", "--outputs", "best:2", code=None)
    assert "t is down" in printed
    assert "came home: big-1, big-2" in printed
    assert {path.parts[-4] for path in runs.rglob("big-1/**/big.bin")} == {"3", "4"}
    assert (runs / "big-2/trials/1/checkpoint/state").read_text() == "1\n"
    assert [each["state"] for each in json.loads(site.sweepfw("ls", "--json"))] == ["done", "queued"]
    assert site.sweepfw("logs", "big-2/1").strip() == "score: 1"
    for host in lab.hosts:
        kinds = ("ps -aq", "volume ls -q", "network ls -q --filter type=custom", "image ls -q sweepfw")
        assert host.run(["sh", "-c", "; ".join(f"docker {kind}" for kind in kinds)]).stdout == ""
        assert "sweepfw" not in host.read("/home/lab/.ssh/authorized_keys")
        assert host.run(["ls", "-A", "/home/lab"]).stdout.split() == [".ssh"]


def seen_in_flower(site: Site) -> None:
    """The address that --url prints leads to Flower, with a password; it ends with Ctrl-C."""
    from base64 import b64encode
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    process = site.start("flower", "--url")
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        who, _, where = url.removeprefix("http://").partition("@")
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://{where}/api/tasks", timeout=20)
        header = {"Authorization": f"Basic {b64encode(who.encode()).decode()}"}
        with urlopen(Request(f"http://{where}/api/tasks", headers=header), timeout=20) as answer:
            tasks = json.loads(answer.read())
        assert {task["name"] for task in tasks.values()} == {"big-1"}
        assert sorted(task["args"] for task in tasks.values()) == [f"big-1/{n}" for n in (1, 2, 3, 4)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


def wait(predicate: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.5)
