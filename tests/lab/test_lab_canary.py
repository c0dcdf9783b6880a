"""Secrets are nowhere but where they should be: on a deployment, in everything that it has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from canary import Cage, word
from canary_project import Canaries
from lab import Lab
from lab_host import Host
from lab_site import Site, containers
from lab_watch import flower, look, role, until
from packages import wheel

from sweepfw.core.broker import VHOST
from sweepfw.engine import service

IN_AN_IMAGE = str(service.__doc__).splitlines()[0]  # our own code: shows that layers are searched
BROKER = """
for data in /var/lib/rabbitmq /tmp/rabbitmq; do
  [ ! -e $data/home/.erlang.cookie ] || export HOME=$data/home
done
export RABBITMQ_NODENAME=rabbit@localhost PATH=/usr/lib/rabbitmq/bin:$PATH
exec rabbitmqctl -q "$@"
"""
# Prints every message that passes the broker, as it is, and a line of dots once it listens.
TAP = """
import json, socket, sys
from kombu import Connection
told = json.load(open("/etc/sweepfw/settings.json"))
host, port = told["broker"].rpartition("@")[2].partition("/")[0].rsplit(":", 1)
out = sys.stdout.buffer
def take(message):
    out.write(repr((message.delivery_info, message.headers, message.properties)).encode())
    out.write(bytes(message.body, "utf8") if isinstance(message.body, str) else bytes(message.body))
    out.write(b"\\n")
    out.flush()
with Connection(f"amqp://tap:{sys.argv[1]}@{host}:{port}/{sys.argv[2]}") as connection:
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).queue
    channel.queue_bind(queue, "amq.rabbitmq.trace", "#")
    channel.basic_consume(queue, no_ack=True, callback=take)
    out.write(b"......\\n")
    out.flush()
    while True:
        connection.drain_events()
"""
SEARCH = 'LC_ALL=C grep -raFf /dev/stdin --devices=skip -o -- "$@" 2>/dev/null | sort | uniq -c'


@pytest.fixture
def cage(canaries: Canaries) -> Cage:
    return Cage(canaries.secrets)


@pytest.fixture
def canaries() -> Canaries:
    return Canaries(lambda password: f"http://u:{password}@127.0.0.1:9/simple/")


@pytest.fixture
def site(lab: Lab, cage: Cage, tmp_path: Path) -> Iterator[Site]:
    """A deployment; what is to be found in `docker inspect` is in the name of a mount."""
    site = Site(lab, tmp_path)
    for host in lab.hosts:
        host.run(["mkdir", "-p", f"/srv/{cage.control}"])
    mounts = f"{{mounts: ['/srv/{cage.control}:/given']}}"
    site.configure(f"{{host1: {mounts}, host2: {mounts}}}")
    cage.look("command line", "infra up", site.sweepfw("infra", "up"))
    yield site
    site.sweepfw("infra", "down", "--yes", "--outputs", "none", code=None)
    for host in lab.hosts:
        host.run(["rmdir", f"/srv/{cage.control}"])


@contextmanager
def tapped(site: Site, host: Host, cage: Cage) -> Iterator[None]:
    """Look at every message that passes the broker meanwhile."""

    def ask(*words: str) -> None:
        call = ["docker", "exec", role(site, host, "rabbitmq"), "sh", "-c", BROKER, "sh", *words]
        host.run(call)

    password = word()
    ask("add_user", "tap", password)
    ask("set_permissions", "-p", VHOST, "tap", ".*", ".*", ".*")
    ask("trace_on", "-p", VHOST)
    inside = ["docker", "exec", "-i", role(site, host, "head"), "/opt/sweepfw/bin/python", "-u", "-c", TAP]
    call = ["docker", "exec", "-i", host.container, *inside, password, VHOST]
    with (site.folder / "messages").open("wb+") as file:
        tap = subprocess.Popen(call, stdout=file, stderr=subprocess.PIPE)
        try:
            until(lambda: (file.seek(0) == 0 and file.read(6) == b"......") or tap.poll() is not None, 120)
            assert tap.poll() is None, tap.stderr and tap.stderr.read().decode()
            file.seek(0, 2)
            yield
        finally:
            ask("trace_off", "-p", VHOST)
            ask("delete_user", "tap")  # closes its connection
            tap.kill()
            tap.wait()
        file.seek(0)
        cage.look("messages", "broker", file.read())
    (site.folder / "messages").unlink()


def test_none_gets_out_on_a_deployment(site: Site, cage: Cage, canaries: Canaries) -> None:
    folder = site.workspace / "projects" / "p"
    canaries.write(folder, cage.control, "./tiny-1.0-py3-none-any.whl\n", "repeats: 2")
    (folder / "tiny-1.0-py3-none-any.whl").write_bytes(wheel())
    site.environment |= {"SWEEPFW_DEBUG": "1", "LET_OUT": cage.control}
    run_with_secrets(site, cage, canaries)
    ask_for_everything(site, cage)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: look_at_host(site, host, cage), site.lab.hosts))
    tell(site, cage, "infra down --yes")
    look_at_what_stays(site, cage, canaries)
    cage.empty()
    wanted = {"messages", "ps", "environments", "command line", "flower", "flower.db", "ledger.db"}
    wanted |= {"workspace"}
    wanted |= {
        f"{kind} of {host.name}" for host in site.lab.hosts for kind in ("inspect", "layers", "volumes")
    }
    assert cage.seen >= wanted, wanted - cage.seen


def tell(site: Site, cage: Cage, line: str, code: int = 0) -> str:
    """What the command prints, looked at."""
    printed = site.sweepfw(*line.split(), code=code)
    cage.look("command line", line, printed)
    return printed


def run_with_secrets(site: Site, cage: Cage, canaries: Canaries) -> None:
    """Store them, run and retry, watched all the while."""
    with (
        tapped(site, site.lab["host1"], cage),
        cage.watching_processes(lambda environment: b"SWEEPFW_SECRETS" in environment, every=0.2),
    ):
        assert "sweepfw secret set TOKEN" in tell(site, cage, "run p", code=2)
        for name, value in canaries.stored.items():
            (site.folder / "given").write_text(value)
            tell(site, cage, f"secret set {name} --from-file {site.folder / 'given'}")
        (site.folder / "given").unlink()
        shown = tell(site, cage, "run p --logs all", code=1)
        assert "4 succeeded, 2 failed" in shown, shown
        tell(site, cage, "retry p-1 5 --json", code=1)
        look_at_flower(site, cage)


def ask_for_everything(site: Site, cage: Cage) -> None:
    lines = ["logs p-1/5", "show p-1/5", "show p-1 --json", "ls --json"]
    lines += ["export p-1", "export p-1 --history --format jsonl", "pull p-1"]
    for line in lines:
        tell(site, cage, line)
    tell(site, cage, "infra status", code=1)  # Flower was stopped, to see what it saves
    tell(site, cage, "infra logs head head")
    assert tell(site, cage, "logs p-1/3").count("***") > 4 * 15


def look_at_what_stays(site: Site, cage: Cage, canaries: Canaries) -> None:
    """After `infra down`."""
    state = site.folder / "state"
    kept = state / "sweepfw" / "secrets"
    assert {path.name for path in kept.iterdir()} == set(canaries.stored)
    cage.look_at_files("workspace", site.workspace)
    cage.look_at_files("state folder", state, but=[kept])
    for host in site.lab.hosts:
        search(
            cage, host, "host afterwards", "/home", "/root", "/tmp", "/var/tmp", "/run", "/etc", "/dev/shm"
        )


def look_at_flower(site: Site, cage: Cage) -> None:
    """Its pages, what its interface tells, and what it saves when it ends."""
    with flower(site) as url:
        until(lambda: len(look(url, "/api/tasks")) >= 7, 120)
        tasks = look(url, "/api/tasks")
        cage.look("flower", "tasks", json.dumps(tasks, ensure_ascii=False))
        cage.look("flower", "workers", json.dumps(look(url, "/api/workers?refresh=1"), ensure_ascii=False))
        for task in tasks:
            cage.look("flower", task, json.dumps(look(url, f"/api/task/info/{task}"), ensure_ascii=False))
    head = site.lab["host1"]
    head.run(["docker", "stop", "-t", "120", role(site, head, "flower")])  # killed, it would save nothing


def look_at_host(site: Site, host: Host, cage: Cage) -> None:
    """All that Docker has there: settings, logs, volumes, images, containers."""
    for name, (id, _) in containers(host).items():
        place = f"{host.name} {name}"
        cage.look(f"inspect of {host.name}", place, host.run(["docker", "inspect", id]).stdout)
        logs = host.run(["docker", "logs", id])
        cage.look(f"logs of {host.name}", place, logs.stdout + logs.stderr)
        if name == "worker":
            left = ["docker", "exec", id, "find", "/dev/shm", "-mindepth", "1"]
            assert host.run(left).stdout == "", place
    images = host.run(["docker", "images", "-q"]).stdout.split()
    cage.look("images", host.name, host.run(["docker", "inspect", *images]).stdout)
    kept = search(
        cage, host, f"volumes of {host.name}", "/var/lib/docker/volumes", "/var/lib/docker/containers"
    )
    assert kept == (host.name == "host1"), "values lie on the head, and on no worker"
    search(cage, host, f"layers of {host.name}", "/var/lib/docker/image", *layers(host))


def layers(host: Host) -> set[str]:
    """The folders of all that was built here, and of what containers wrote; not of what was there before."""

    def folders(*names: str) -> set[str]:
        shape = "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}"
        told = host.run(["docker", "inspect", "-f", shape, *names]).stdout
        return {folder for folder in told.replace("\n", ":").split(":") if folder.startswith("/")}

    ids = host.run(["sh", "-c", "docker ps -aq; docker images -q"]).stdout.split()
    return folders(*ids) - folders(Lab.base, Lab.rabbitmq)


def search(cage: Cage, host: Host, kind: str, *folders: str) -> bool:
    """Look in all files below these folders of the host. Whether values lie where the head keeps them."""
    needles = [needle.decode() for needle in cage.needles] + [cage.control, IN_AN_IMAGE]
    call = ["sh", "-c", SEARCH, "sh", *folders]
    rows = host.run(call, stdin="\n".join(needles), check=False).stdout.splitlines()
    kept = [row for row in rows if "/_data/.sweepfw/secrets/" in row]
    for row in rows:
        if row not in kept:
            cage.look(kind, f"{host.name} {row}", row.replace(IN_AN_IMAGE, cage.control))
            if match := re.search(r"/_data/(?:.*/)?(flower|ledger)\.db[^/]*:", row):
                cage.look(f"{match[1]}.db", host.name, row)
    return bool(kept)
