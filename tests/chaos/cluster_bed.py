"""Three hosts and a deployment for chaos: what can be struck, and how one gets at it.

Beside a lab's hosts: one folder that all hosts' trials write to and no host takes along; the head reaches
the workers through links that can be bad; and in every container of ours the wall clock and the disk are
what we say (pretend.c).
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lab import Kind, Lab
from lab_host import Host
from lab_site import OURS, Site
from link import Link

LEASE, RENEW = 10, 2  # seconds
SLOTS = 3
WITNESS = "/srv/witness"
BASE = "sweepfw-chaos/base:latest"
HERE = Path(__file__).parent
DOCKERFILE = f"""\
FROM {Lab.base}
COPY pretend.so /usr/local/lib/
COPY preload /etc/ld.so.preload
"""
ROLES = ("worker", "head", "rabbitmq", "tunnel", "flower")
STATE = "/var/lib/sweepfw"
# What `python -m sweepfw` prints of an exception, by itself or from a thread, or says of one.
BUG = re.compile(r'this is a bug|\(most recent call last\):\n  File "(<frozen runpy>|[^"]*/threading\.py)"')


class Process(NamedTuple):
    pid: int  # on its host
    name: str
    words: str


@dataclass
class Bed:
    """`links` by worker host. `lost`: hosts that nobody boots until all is healed. `follower`: the command
    that follows the sweep. `patience`: 1 where faults may last as they like, less where time is short.
    `complaints`: what commands should not have said."""

    site: Site
    links: dict[str, Link]
    lost: set[str] = field(default_factory=set)
    follower: subprocess.Popen[str] | None = None
    patience: float = 1.0
    complaints: list[str] = field(default_factory=list)

    @property
    def lab(self) -> Lab:
        return self.site.lab

    @property
    def head(self) -> Host:
        return self.lab.hosts[0]

    @property
    def far(self) -> list[Host]:
        """The hosts that the head reaches over the links."""
        return self.lab.hosts[1:]

    # -- containers ------------------------------------------------------------------------------------

    def container(self, role: str) -> str:
        return f"sweepfw-t-{self.site.state.uid[:6]}-{role}"

    def inside(self, host: Host, role: str, *argv: str, check: bool = True) -> str:
        """What a command prints in a container."""
        return host.run(["docker", "exec", self.container(role), *argv], check=check).stdout

    def state_folder(self) -> str:
        """Where the head's state lies on its host."""
        shape = (
            f'{{{{range .Mounts}}}}{{{{if eq .Destination "{STATE}"}}}}{{{{.Source}}}}{{{{end}}}}{{{{end}}}}'
        )
        return self.head.run(["docker", "inspect", "-f", shape, self.container("head")]).stdout.strip()

    def roles(self, host: Host) -> tuple[str, ...]:
        """What runs there."""
        return ROLES if host is self.head else ROLES[:1]

    def processes(self, host: Host, role: str) -> list[Process]:
        """What runs in a container, in the order of the host's process ids."""
        done = host.run(["docker", "top", self.container(role), "-eo", "pid,comm,args"], check=False)
        rows = [row.split(maxsplit=2) for row in done.stdout.splitlines()[1:]]
        return sorted(Process(int(row[0]), *row[1:]) for row in rows if len(row) == 3 and row[0].isdigit())

    def main(self, host: Host, role: str) -> int | None:
        """The service's own process: the eldest of its name."""
        named = f"sweepfw.engine.service {role}"
        found = [each.pid for each in self.processes(host, role) if each.words.endswith(named)]
        return next(iter(found[1:]), None)  # the first is its init

    def named(self, host: Host, role: str, word: str) -> list[int]:
        """Those of this name, or with it in their command."""
        return [each.pid for each in self.processes(host, role) if word in (each.name, *each.words.split())]

    def signal(self, host: Host, number: str, *pids: int | None) -> bool:
        """Whether there was somebody to hear it."""
        there = [str(pid) for pid in pids if pid]
        return bool(there) and host.run(["kill", f"-{number}", *there], check=False).returncode == 0

    def pretend(self, host: Host, role: str, *, clock: int = 0, disk: str = "whole") -> bool:
        """How clock and disk look in the container from now on; whether it runs."""
        tell = ["sh", "-c", 'printf %s "$1" 1<>/dev/shm/pretend', "sh", f"{clock} {disk}\n".ljust(64)]
        return host.run(["docker", "exec", self.container(role), *tell], check=False).returncode == 0

    def running(self, host: Host, role: str) -> bool:
        shape = "{{.State.Running}}"
        done = host.run(["docker", "inspect", "-f", shape, self.container(role)], check=False)
        return done.stdout.strip() == "true"

    # -- what is asked as a person would -----------------------------------------------------------------

    def told(self, *words: str, seconds: float = 60) -> Any:
        """The command's JSON; None where it can't answer now."""
        process = self.site.start(*words, "--json")
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
            process.wait()
        self.heed(words, printed)
        try:
            return json.loads(printed) if process.returncode == 0 else None
        except ValueError:
            return None

    def asked(self, *words: str, patience: float = 300) -> Any:
        """The command's JSON, asked for until it can answer; None where it can't for so many seconds."""
        deadline = time.monotonic() + patience
        while (told := self.told(*words, seconds=120)) is None and time.monotonic() < deadline:
            time.sleep(1)
        return told

    def heed(self, words: Sequence[str], printed: str) -> None:
        """What a command said: errors are one line, however things stand. Trials may print what they like."""
        if BUG.search(printed):
            self.complaints.append(f"`{shlex.join(words)}` said: {printed.strip()[-600:]}")

    def kill_follower(self) -> bool:
        """Whether it ran."""
        if self.follower is None or self.follower.poll() is not None:
            return False
        self.follower.kill()
        return True

    # -- the end ---------------------------------------------------------------------------------------

    def heal(self, but: Collection[str] = ()) -> None:
        """Links, hosts, containers as they should be: all but these hosts, and what `infra up` is for."""
        for link in self.links.values():
            link.heal()
        there = [host for host in self.lab.hosts if host.name not in but]
        self.lost -= {host.name for host in there}
        for host in there:
            host.heal()
            for role in self.roles(host):
                self.mend(host, role)

    def mend(self, host: Host, role: str) -> None:
        name = self.container(role)
        host.run(["sh", "-c", f"docker unpause {name} || true"], check=False)
        self.signal(host, "CONT", *(each.pid for each in self.processes(host, role)))
        host.run(["docker", "start", name], check=False)
        self.pretend(host, role)

    def strangers(self) -> list[str]:
        """What runs in the workers' containers beyond worker, guardian, keepers and sshd."""
        return [
            f"{host.name}: {each.pid} {each.words}"
            for host in self.lab.hosts
            for each in self.processes(host, "worker")
            if not each.words.startswith(OURS)
        ]

    def remains(self, seconds: float = 60) -> list[str]:
        """All of ours that is on the hosts: after `infra down` that is nothing, once all has ended."""
        deadline = time.monotonic() + seconds
        while (found := self._remains()) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _remains(self) -> list[str]:
        return [f"{host.name}: {line}" for host in self.lab.hosts for line in _remains(host)]

    def keep_logs(self, folder: Path) -> None:
        """What the containers printed, for people who look for a reason."""
        folder.mkdir(parents=True, exist_ok=True)
        for host in self.lab.hosts:
            for role in self.roles(host):
                said = host.run(["sh", "-c", f"docker logs -t {self.container(role)} 2>&1"], check=False)
                (folder / f"{host.name}-{role}.log").write_text(said.stdout)

    def bring(self, host: Host, path: str, to: Path) -> None:
        """A folder of the host, to a folder here that has its files."""
        to.mkdir(parents=True, exist_ok=True)
        call = ["docker", "exec", host.container, "tar", "-C", path, "-cf", "-", "."]
        with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                tar.extractall(to, filter="tar")


_REMAINS = r"""
docker version >/dev/null 2>&1 || echo 'an engine that does not answer'
docker ps -a --format 'container {{.Names}}'
docker volume ls -q | sed 's/^/volume /'
docker network ls --format '{{.Name}}' | grep sweepfw | sed 's/^/network /'
grep -h sweepfw: /home/lab/.ssh/authorized_keys | sed 's/^/key /'
ls -A /home/lab/.sweepfw 2>/dev/null | sed 's/^/folder /'
ls -d /dev/shm/sweepfw* /tmp/sweepfw* 2>/dev/null | sed 's/^/file /'
pgrep -af 'sweepfw|witness' | grep -v pgrep | sed 's/^/process /'
true
"""


def _remains(host: Host) -> list[str]:
    return host.run(["sh", "-c", _REMAINS]).stdout.splitlines()


# -- making one ------------------------------------------------------------------------------------------


@contextmanager
def made(folder: Path, hosts: int = 3) -> Iterator[Bed]:
    """Hosts, links and a configuration; nothing is up yet. All of it goes at the end, whatever happened."""
    kinds = {f"host{n}": Kind(share="witness", gpus=SLOTS if n == 3 else 0) for n in range(1, hosts + 1)}
    lab = Lab.start(hosts=hosts, kinds=kinds)
    links: dict[str, Link] = {}
    try:
        lab.hosts[0].run(["chmod", "1777", WITNESS])
        make_base(lab.hosts[0], folder)
        gateway = lab.hosts[0].address.rpartition(".")[0] + ".1"
        links = {host.name: Link(gateway, (host.address, 22)) for host in lab.hosts[1:]}
        site = Site(lab, folder)
        configure(site, links, gateway)
        yield Bed(site, links)
    finally:
        for link in links.values():
            link.close()
        lab.stop()


def configure(site: Site, links: dict[str, Link], gateway: str) -> None:
    rows = []
    for host in site.lab.hosts:
        way = f", address_from_head: '{gateway}:{links[host.name].port}'" if host.name in links else ""
        rows.append(f"  {host.name}: {{slots: {SLOTS}, mounts: ['{WITNESS}:/witness']{way}}}\n")
    site.config.write_text(
        f"name: t\nhosts:\n{''.join(rows)}lease: {LEASE}s\nrenew: {RENEW}s\n"
        f"build: {{base: {BASE}, rabbitmq: {Lab.rabbitmq}}}\n"
    )


def make_base(host: Host, folder: Path) -> None:
    """An image for the deployment's containers whose programs load pretend.c first."""
    library = folder / "pretend.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise AssertionError("chaos on the lab needs a C compiler; install gcc")
    build = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(HERE / "pretend.c"), "-ldl"]
    subprocess.run(build, check=True)
    files = {
        "pretend.so": library.read_bytes(),
        "preload": b"/usr/local/lib/pretend.so\n",
        "Dockerfile": DOCKERFILE.encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if name.endswith(".so") else 0o644
            tar.addfile(member, io.BytesIO(data))
    call = ["docker", "exec", "-i", host.container, "docker", "build", "-q", "-t", BASE, "-"]
    done = subprocess.run(call, input=packed.getvalue(), capture_output=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(call)}: {done.stderr.decode()}")
