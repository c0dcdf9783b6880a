"""One host of the lab: how to reach it, and what can befall it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab_docker import LabError, docker

if TYPE_CHECKING:
    from lab import Lab

_UP = """
for _ in $(seq 600); do
  if ss -Hltn 'sport = :22' 2>/dev/null | grep -q . && [ -e /run/lab-up ] &&
    { [ "${LAB_ENGINE:-yes}" = no ] || docker version >/dev/null 2>&1; }; then exit 0; fi
  sleep 0.1
done
tail -n 20 /var/log/docker.log >&2
exit 1
"""

_NEW_KEY = """
key=/etc/ssh/ssh_host_ed25519_key pid=$(cat /run/sshd.pid)
rm $key $key.pub
ssh-keygen -q -t ed25519 -N '' -f $key
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
/usr/sbin/sshd
until [ -s /run/sshd.pid ]; do sleep 0.02; done # it listens by then
"""


@dataclass
class Host:
    """name: also its alias and host name. address: reachable from this machine, the same after a reboot."""

    name: str
    address: str
    key: Path
    container: str
    lab: Lab | None = field(default=None, repr=False)
    user: str = "lab"
    port: int = 22

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        check: bool = True,
        stdin: str = "",
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, from beside: also where its network is cut."""
        home = "/root" if user == "root" else f"/home/{user}"
        call = ["docker", "exec", "-i", "-u", user, "-e", f"HOME={home}", self.container, *argv]
        done = subprocess.run(
            call, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{self.name}: {shlex.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done

    def ssh(
        self,
        argv: Sequence[str],
        *,
        user: str = "lab",
        check: bool = True,
        stdin: str = "",
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, over SSH, as a person at this machine would."""
        assert self.lab
        call = ["ssh", "-F", str(self.lab.ssh_config), "-l", user, self.name, "--", shlex.join(argv)]
        done = subprocess.run(
            call, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{self.name}: {shlex.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: str, user: str = "root") -> None:
        self.run(["sh", "-c", 'cat >"$1"', "sh", path], stdin=text, user=user)

    def host_key(self) -> str:
        """Its public half, as in known_hosts."""
        return " ".join(self.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def change_host_key(self) -> None:
        """The host is another one now, as far as SSH can tell."""
        self.run(["sh", "-euc", _NEW_KEY])

    # What befalls hosts.

    def kill(self) -> None:
        """Somebody pulled the plug; `boot` puts it in again."""
        docker("kill", self.container)

    def boot(self) -> None:
        docker("start", self.container)
        self.wait_until_up()

    def reboot(self) -> None:
        """Back when it answers, with the same address, keys and files; nothing that ran still runs."""
        docker("restart", "-t", "0", self.container)
        self.wait_until_up()

    def freeze(self) -> None:
        docker("pause", self.container)

    def thaw(self) -> None:
        docker("unpause", self.container)

    def disconnect(self) -> None:
        """The cable is out: whoever talks to it hears nothing, not even that it is gone."""
        assert self.lab
        docker("network", "disconnect", "-f", self.lab.network, self.container)

    def connect(self) -> None:
        assert self.lab
        place = ["--ip", self.address, "--alias", self.name]
        docker("network", "connect", *place, self.lab.network, self.container)

    def heal(self) -> None:
        """Undo freeze, disconnect and kill."""
        assert self.lab
        shape = "{{.State.Status}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"
        state, _, network = docker("inspect", "-f", shape, self.container).strip().partition(" ")
        if state == "paused":
            self.thaw()
        if not network:
            self.connect()
        if state == "exited":
            self.boot()

    def wait_until_up(self) -> None:
        done = subprocess.run(
            ["docker", "exec", self.container, "sh", "-c", _UP], capture_output=True, text=True, timeout=600
        )
        if done.returncode != 0:
            log = docker("logs", "--tail", "20", self.container, check=False)
            raise LabError(f"{self.name} did not come up: {done.stderr} {log}")

    # Pretend GPUs.

    def gpu_uuids(self) -> list[str]:
        rows = self.run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]).stdout
        return rows.split()

    def take_gpu(self, number: int, memory: int = 10240) -> int:
        """A process of somebody else's, that computes on the GPU and holds `memory` MiB; its pid."""
        folder = f"/var/lib/lab-gpus/{number}"
        started = self.run(["sh", "-c", "sleep 86400 >/dev/null 2>&1 & echo $!"], user="plain")
        pid = int(started.stdout)
        self.run(["sh", "-c", f"echo {pid} {memory} >{folder}/pids; echo {memory + 14} >{folder}/used"])
        return pid

    def release_gpu(self, number: int) -> None:
        folder = f"/var/lib/lab-gpus/{number}"
        self.run(["sh", "-c", f"while read -r pid _; do kill $pid; done <{folder}/pids; : >{folder}/pids"])
        self.run(["sh", "-c", f"echo 14 >{folder}/used"])
