"""A deployment that stands ready on the lab's hosts, a way into its head, and trials that bear witness.

Each trial writes `start TRIAL ATTEMPT` and `end TRIAL ATTEMPT` into a file of its host, beside all that we
keep: so what ran twice shows, whatever our own books say. A sweep's trials go on where `go` was called.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import Lab
from lab_host import Host
from lab_site import OURS, Site
from lab_watch import until

from sweepfw.core.model import Attempt, Sweep
from sweepfw.fleet.reach import Reached, connect

WITNESS = "/srv/witness"
TRIAL = """
note() { echo "$* $SWEEPFW_TRIAL $SWEEPFW_ATTEMPT" >>/witness/$SWEEPFW_SWEEP; }
wait_for() { until [ -e /witness/$SWEEPFW_SWEEP.$1 ]; do sleep 0.1; done; }
note start
%s
note end
"""


@dataclass
class Bed:
    """`head`: its ledger and desk, through SSH as people reach them."""

    site: Site
    head: Reached

    @property
    def lab(self) -> Lab:
        return self.site.lab

    # -- sweeps ----------------------------------------------------------------------------------------

    def submit(self, script: str, trials: int = 1, *, hosts: Collection[str] = (), more: str = "") -> Sweep:
        """A sweep of trials that run this script, on these hosts only."""
        name = f"p{time.monotonic_ns() % 10**10}"
        folder = self.site.workspace / "projects" / name
        folder.mkdir(parents=True)
        (folder / "trial.sh").write_text(TRIAL % script)
        (folder / "project.yml").write_text(
            "command: bash trial.sh\nenvironment: inherit\ngrace: 1\nmax_failures: null\n"
            f"needs: {{hosts: {json.dumps(sorted(hosts))}}}\n"
            f"parameters: {{i: {list(range(1, trials + 1))}}}\n{more}\n"
        )
        self.site.sweepfw("run", name, "--detach")
        return self.head.ledger.sweep(f"{name}-1")

    def go(self, sweep: Sweep, word: str = "go", hosts: Collection[str] = ()) -> None:
        for host in self.lab.hosts:
            if not hosts or host.name in hosts:
                host.run(["touch", f"{WITNESS}/{sweep.name}.{word}"])

    def attempts(self, sweep: Sweep) -> list[Attempt]:
        return list(self.head.ledger.attempts(sweep.uid))

    def told(self, sweep: Sweep) -> list[str]:
        """Its attempts as `trial/attempt state`."""
        return [f"{each.trial}/{each.number} {each.state}" for each in self.attempts(sweep)]

    def running(self, sweep: Sweep, count: int = 1, attempt: int = 1) -> list[Attempt]:
        """Wait until so many of its trials have begun, as they noted themselves; their attempts."""

        def begun() -> int:
            return sum(
                line.startswith("start ") and line.endswith(f" {attempt}") for line in self.noted(sweep)
            )

        until(lambda: begun() >= count, 180, lambda: f"{count} trials that run: {self.told(sweep)}")
        return [each for each in self.attempts(sweep) if each.state == "running"]

    def ended(self, sweep: Sweep, seconds: float = 180) -> None:
        """Wait until all its trials ended."""
        until(
            lambda: self.head.ledger.sweep(sweep.uid).state == "done",
            seconds,
            lambda: f"the end of {sweep.name}: {self.told(sweep)}",
        )

    def noted(self, sweep: Sweep) -> list[str]:
        """What its trials noted, on all hosts that run."""
        found = []
        for host in self.lab.hosts:
            done = host.run(["cat", f"{WITNESS}/{sweep.name}"], check=False)
            found += done.stdout.splitlines()
        return found

    def once(self, sweep: Sweep, trials: int = 1) -> bool:
        """Whether each trial began and ended once, as they noted themselves."""
        wanted = Counter(f"{word} {trial} 1" for word in ("start", "end") for trial in range(1, trials + 1))
        return Counter(self.noted(sweep)) == wanted

    def log(self, sweep: Sweep, trial: int = 1, attempt: int = 1) -> str:
        return self.head.desk.read_log(sweep.uid, trial, attempt, 0).data.decode()

    # -- the deployment --------------------------------------------------------------------------------

    def container(self, role: str) -> str:
        return f"sweepfw-t-{self.site.state.uid[:6]}-{role}"

    def alive(self) -> set[str]:
        """The hosts whose workers the head hears, and which read their queue."""
        return {each.worker.host for each in self.head.desk.status().workers if each.alive}

    def whole(self, seconds: float = 180) -> None:
        """Wait until every worker is there."""
        names = {host.name for host in self.lab.hosts}
        until(lambda: self.alive() == names, seconds, lambda: f"workers: {self.alive()}")

    def strangers(self) -> list[str]:
        """What runs in the workers' containers beyond worker, guardian, keepers and sshd."""
        found = []
        for host in self.lab.hosts:
            rows = host.run(["docker", "top", self.container("worker"), "-eo", "pid,args"]).stdout
            commands = [row.split(maxsplit=1)[1] for row in rows.splitlines()[1:]]
            found += [f"{host.name}: {command}" for command in commands if not command.startswith(OURS)]
        return found


@contextmanager
def deployed(lab: Lab, folder: Path, more: str = "", slots: int = 2) -> Iterator[Bed]:
    """A deployment on all hosts of the lab; the first is the head, and runs trials as well."""
    site = Site(lab, folder)
    for host in lab.hosts:
        host.run(["sh", "-c", f"mkdir -p {WITNESS} && chmod 777 {WITNESS}"])
    configure(site, more, slots)
    site.sweepfw("infra", "up")
    try:
        with reached(site) as head:
            yield Bed(site, head)
    finally:
        lab.heal()
        site.sweepfw("infra", "down", "--yes", "--outputs", "none", code=None)


def configure(site: Site, more: str = "", slots: int = 2) -> None:
    one = f"{{slots: {slots}, mounts: ['{WITNESS}:/witness']}}"
    site.configure("{" + ", ".join(f"{host.name}: {one}" for host in site.lab.hosts) + "}", more)


@contextmanager
def reached(site: Site) -> Iterator[Reached]:
    with person(site):
        head = connect(site.state)
    try:
        yield head
    finally:
        head.close()


@contextmanager
def person(site: Site) -> Iterator[None]:
    """This process finds the site's state folder, and the lab's hosts by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPFW_SSH_CONFIG", str(site.lab.ssh_config))
        patch.setenv("XDG_STATE_HOME", site.environment["XDG_STATE_HOME"])
        yield


def docker(host: Host, *words: str) -> str:
    return host.run(["docker", *words]).stdout
