"""A deployment made by hand on the lab's hosts, with what its head and workers would have left.

So each state that a real one can be in is there at once, a head that stands still among them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import Lab
from lab_host import Host as LabHost

from sweepfw.config.deployments import DeploymentState
from sweepfw.core.deployment import Deployment, Host, folder, network, prefix
from sweepfw.core.metrics import Fold, Point
from sweepfw.core.model import Draft, Grant, Objective, Outcome, Spec, Worker
from sweepfw.core.values import Number
from sweepfw.fleet import authorized
from sweepfw.ledger.store import SqliteLedger

SPEC = Spec("digits", "train", ("true",), metrics=(("acc", None),), objective=Objective("acc", "maximize"))
MODEL = os.urandom(300_000)
CODE = b"print('hello')\n"
DIGEST = hashlib.sha256(CODE).hexdigest()
LIST = json.dumps({"files": [["train.py", "file", 0o644, DIGEST, len(CODE)]]}).encode()
ID = hashlib.sha256(LIST).hexdigest()[:24]
USERS_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJJ me@home"


# Whatever is left of a deployment goes.
CLEAR = """
docker ps -aq --filter "label=sweepfw.deployment=$1" | xargs -r docker rm -f
docker volume ls -q --filter "label=sweepfw.deployment=$1" | xargs -r docker volume rm
docker network ls -q --filter "label=sweepfw.deployment=$1" | xargs -r docker network rm
docker image ls -q sweepfw:hand | xargs -r docker rmi
rm -rf /home/lab/.sweepfw/hand-*
sed -i "/sweepfw:$1:/d" /home/lab/.ssh/authorized_keys
"""


@dataclass
class Handmade:
    """A deployment of two hosts, as `up` and some trials left it."""

    lab: Lab
    state: DeploymentState
    workspace: Path
    environment: Mapping[str, str]

    @classmethod
    def create(cls, lab: Lab, workspace: Path) -> Handmade:
        """In the state folder of this process. The hosts know nothing of it yet: see `fill`."""
        (workspace / ".sweepfw").mkdir(parents=True, mode=0o700)
        hosts = tuple(Host(host.name, host.name) for host in lab.hosts)
        state = DeploymentState.create(Deployment("hand", hosts, "host1", ("host1", "host2")))
        return cls(lab, state, workspace, {**os.environ, "SWEEPFW_SSH_CONFIG": str(lab.ssh_config)})

    def clear(self) -> None:
        """Nothing of it is on the hosts, whatever a test left there."""
        self.lab.heal()
        for host in self.lab.hosts:
            host.run(["sh", "-c", CLEAR, "sh", self.state.uid])

    def sweepfw(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweepfw", *words],
            cwd=cwd or self.workspace,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
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
    into = ["run", "--rm", "-i", "--mount", mount, "sweepfw:hand"]
    docker(host, *into, "tar", "-C", "/var/lib/sweepfw", "-xf", "-", stdin=packed(files))


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


def fill(handmade: Handmade, tmp_path: Path) -> None:
    """Head and worker on the first host, a worker on the second, and what trials made."""
    for host in handmade.lab.hosts:
        furnish(host, handmade.state)
    (tmp_path / "made").mkdir()
    first, second = handmade.lab.hosts
    make(first, handmade.state, "head", head_files(tmp_path / "made"))
    make(first, handmade.state, "worker", {"runs/digits-1/trials/1/1/files/model.bin": MODEL[:9]})
    make(second, handmade.state, "worker", {"runs/digits-1/trials/2/1/files/model.bin": MODEL})
