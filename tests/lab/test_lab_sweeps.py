"""The main job on real hosts: up, run, watch, fetch, down. In this order: one deployment serves all tests,
and the last one takes it down."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from browser import Browser, artifacts
from lab import Lab
from lab_host import Host
from lab_others import inventory, move_in
from lab_ports import LISTEN, open_ports
from lab_site import Site
from lab_watch import flower, look, project, role, until

TAKEN = 1  # the GPU of host2 on which somebody else computes
HOSTS = """
  host1: {slots: 2, mounts: ["/srv/data:/data:ro", "/srv/scratch"]}
  host2: {mounts: ["/srv/data:/data:ro", "/srv/scratch"]}"""


@pytest.fixture(scope="module")
def hosts(_lab_runs: None) -> Iterator[Lab]:
    """host2 has four GPUs, one of them taken."""
    lab = Lab.start(hosts=2, gpus={"host2": 4})
    for host in lab.hosts:
        host.run(["mkdir", "-p", "/srv/data", "/srv/scratch"])
        host.run(["chown", "lab:lab", "/srv/scratch"])
        host.write("/srv/data/digits", "all of them\n")
    move_in(lab)
    lab["host2"].take_gpu(TAKEN)
    yield lab
    lab.stop()


@pytest.fixture(scope="module")
def before(hosts: Lab) -> dict[str, str]:
    """What was on each host before us."""
    return inventory(hosts)


@pytest.fixture(scope="module")
def site(hosts: Lab, before: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(hosts, tmp_path_factory.mktemp("site"))
    site.configure(HOSTS)
    printed = site.sweepfw("infra", "up")
    assert "t is up: head on host1, 6 slots on host1, host2" in printed
    yield site
    if remembered(site):
        site.sweepfw("infra", "down", "--yes", "--outputs", "none", code=None)


def remembered(site: Site) -> list[Path]:
    """The deployments that this user has."""
    return list((site.folder / "state" / "sweepfw" / "deployments").glob("*"))


def drained(site: Site) -> list[str]:
    """The hosts that get no new trials."""
    status = json.loads(site.sweepfw("infra", "status", "--json", code=None))
    return [each["host"] for each in status["hosts"] if (each["worker"] or {}).get("draining")]


def shown(site: Site, sweep: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.sweepfw("show", sweep, "--json"))
    return found


# -- the main job ----------------------------------------------------------------------------------------


def test_digits_over_both_hosts_in_terminal_and_flower(site: Site, tmp_path: Path) -> None:
    site.sweepfw("new", "digits", "--from", "digits")
    with flower(site) as url:  # what happens before it listens it never hears of

        def heard() -> set[str]:
            return {each["hostname"].partition("-")[0] for each in look(url, "/workers?json=1")["data"]}

        until(lambda: heard() == {"host1", "host2"}, what=heard)
    printed = site.sweepfw("run", "digits", "--set", "epochs=10", "--logs", "all", "-m", "first")
    ends = re.findall(
        r"^(host[12])  digits-1/(\d+) succeeded after \S+  .*val_accuracy ([\d.]+)$", printed, re.M
    )
    assert sorted(int(trial) for _, trial, _ in ends) == list(range(1, 13)), printed
    assert {host for host, _, _ in ends} == {"host1", "host2"}
    where = {trial: host for host, trial, _ in ends}
    epochs = re.findall(r"^(host[12]) +(\d+) \| epoch  10  loss", printed, re.M)
    assert sorted(trial for _, trial in epochs) == sorted(where)  # each trial's output, once
    assert all(where[trial] == host for host, trial in epochs)

    by_hand = sorted((float(value) for _, _, value in ends), reverse=True)
    rows = re.findall(r"^ *\d+  digits-1/\d+ +([\d.]+) ", printed, re.M)
    assert [float(value) for value in rows] == by_hand[: len(rows)] and len(rows) == 10
    best = json.loads(site.sweepfw("best", "digits-1", "--json"))[0]
    assert best["value"] == pytest.approx(by_hand[0], abs=1e-5)
    assert f"val_accuracy {by_hand[0]:g} ({best['trials'][0]})" in site.sweepfw("ls")

    with flower(site) as url:
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://{url.partition('@')[2]}/api/tasks", timeout=60)

        def tasks() -> list[dict[str, Any]]:
            return [task for task in look(url, "/api/tasks").values() if task["name"] == "digits-1"]

        until(lambda: [task["state"] for task in tasks()] == ["SUCCESS"] * 12, what=tasks)
        mine = tasks()
        assert Counter(task["args"] for task in mine) == Counter(f"digits-1/{n}" for n in range(1, 13))
        first = next(task for task in mine if task["args"] == "digits-1/1")
        assert first["kwargs"] == "epochs=10, hidden=64, opt=momentum, lr=0.001, seed=1"
        assert first["worker"].partition("-")[0] == where["1"]
        browser = Browser(tmp_path)
        text = browser.text(f"{url}/tasks")
        assert text.count("digits-1/") >= 12 and "hidden=192" in text
        picture = artifacts(tmp_path) / "flower.png"
        browser.picture(f"{url}/tasks", picture)
        assert picture.stat().st_size > 20_000


def test_a_failed_trial_is_told_everywhere(site: Site) -> None:
    project(site, "fails", "echo trial $i; test $i -ne 2 || { echo no luck; exit 3; }", i=[1, 2, 3])
    printed = site.sweepfw("run", "fails", code=1)
    assert re.search(r"^host\d  fails-1/2 failed: exit 3 after ", printed, re.M), printed
    assert "fails-1 is done: 2 succeeded, 1 failed" in printed
    assert site.sweepfw("logs", "fails-1/2") == "trial 2\nno luck\n"
    with flower(site) as url:

        def ends() -> dict[str, str]:
            return {t["args"]: t["state"] for t in look(url, "/api/tasks").values() if t["name"] == "fails-1"}

        wanted = {"fails-1/1": "SUCCESS", "fails-1/2": "FAILURE", "fails-1/3": "SUCCESS"}
        until(lambda: ends() == wanted, what=ends)  # it hears of them a little later


# -- nothing is open -------------------------------------------------------------------------------------


def test_nothing_is_open_and_who_takes_every_port_learns_nothing(site: Site) -> None:
    """During a sweep, with the tunnel made anew while a local user of the worker's host sits on the ports."""
    worker, head = site.lab["host2"], site.lab["host1"]
    project(site, "scanned", "sleep $i; echo done", "needs: {hosts: [host2]}", i=[8, 9, 10, 1, 2, 3])
    ports = [str(port) for port in (5671, 5672, 7443, 5555, 4369, 25672, 15672, *range(6000, 6800))]
    call = ["docker", "exec", "-i", "-u", "plain", worker.container, "python3", "-c", LISTEN, *ports]
    listener = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout and int(listener.stdout.readline()) > 800
        run = site.start("run", "scanned")
        head.run(["docker", "restart", "-t", "5", role(site, head, "tunnel")])
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(open_ports, [host.address for host in site.lab.hosts]))
        assert found == [[22], [22]]
        printed, _ = run.communicate(timeout=300)
        assert run.returncode == 0 and "scanned-1 is done: 6 succeeded" in printed, printed
        worker.run(["bash", "-c", "echo >/dev/tcp/127.0.0.1/7443"])  # so much would have been seen
        assert listener.stdout.readline().startswith("came ('127.0.0.1', 7443)")
    finally:
        told, _ = listener.communicate(timeout=60)
    assert told == ""


# -- GPUs, mounts ----------------------------------------------------------------------------------------


def test_each_trial_has_its_own_gpu_and_none_that_others_use(site: Site) -> None:
    host = site.lab["host2"]
    told = json.loads(host.run(["docker", "inspect", role(site, host, "worker")]).stdout)[0]["HostConfig"]
    assert told["Runtime"] == "nvidia" or told["DeviceRequests"]
    project(site, "gpus", ON_A_GPU % (3, 600), "needs: {gpus: 1}", i=list(range(1, 10)))
    free = {uuid for number, uuid in enumerate(host.gpu_uuids()) if number != TAKEN}
    assert len(taken(site)) == 1
    used, most = run_on_gpus(site, host, "gpus")
    assert used == free and most == 3
    host.release_gpu(TAKEN)
    until(lambda: not taken(site))


# Each waits for a while until so many have begun.
ON_A_GPU = """
note() { echo "$1 $CUDA_VISIBLE_DEVICES $SWEEPFW_TRIAL" >>/srv/scratch/gpus; }
begun() { [ "$(grep -c start /srv/scratch/gpus)" -ge %d ]; }
note start; for _ in $(seq %d); do if begun; then break; fi; sleep 0.1; done; nvidia-smi -L; note end
"""


def run_on_gpus(site: Site, host: Host, name: str) -> tuple[set[str], int]:
    """The GPUs that a sweep used there, and how many at once."""
    site.sweepfw("run", name, "--logs", "none")
    lines = [line.split() for line in host.read("/srv/scratch/gpus").splitlines()]
    host.run(["rm", "/srv/scratch/gpus"])
    return {uuid for _, uuid, _ in lines}, busy(lines)


def busy(lines: list[list[str]]) -> int:
    """How many GPUs were in use at once. No GPU was in two trials' hands."""
    running: dict[str, str] = {}
    most = 0
    for word, uuid, trial in lines:
        if word == "start":
            assert uuid not in running, lines
            running[uuid] = trial
            most = max(most, len(running))
        else:
            assert running.pop(uuid) == trial, lines
    return most


def taken(site: Site) -> list[str]:
    """Who uses GPUs beside us, as `infra status` says."""
    told = json.loads(site.sweepfw("infra", "status", "--json", code=None))
    return [gpu["taken"] for host in told["hosts"] for gpu in host["gpus"] if gpu["taken"]]


def test_mounts_are_there_and_all_that_trials_write_is_the_users(site: Site) -> None:
    script = """
    cat /data/digits
    echo x >/data/mine && exit 9
    echo made >/srv/scratch/by-$i; mkdir /srv/scratch/folder-$i
    echo kept >$SWEEPFW_OUTPUT/model
    id -un; stat -c '%U %a' $SWEEPFW_OUTPUT/model .
    """
    project(site, "mounted", script, "needs: {hosts: [host1]}", i=[1])
    printed = site.sweepfw("run", "mounted", "--logs", "all")
    assert "all of them" in printed and "Read-only file system" in printed
    assert printed.count("host1  1 | lab") == 3
    host = site.lab["host1"]
    made = host.run(["stat", "-c", "%U:%G %n", "/srv/scratch/by-1", "/srv/scratch/folder-1"]).stdout
    assert made == "lab:lab /srv/scratch/by-1\nlab:lab /srv/scratch/folder-1\n"
    state = f"sweepfw-t-{site.state.uid[:6]}-worker"
    where = host.run(["docker", "volume", "inspect", "-f", "{{.Mountpoint}}", state]).stdout.strip()
    strange = host.run(["find", where, "-mindepth", "1", "!", "-user", "lab"]).stdout
    assert strange == "" and host.run(["find", where, "-name", "model"]).stdout != ""


# -- what happens meanwhile ------------------------------------------------------------------------------


def test_a_late_edit_changes_nothing_and_a_killed_terminal_neither(site: Site) -> None:
    script = """
    echo start >>/srv/scratch/late; until [ -e /srv/scratch/go ]; do sleep 0.1; done; cat text; . ./more
    """
    folder = project(site, "late", script, "needs: {hosts: [host1]}", i=[1, 2, 3, 4])
    (folder / "text").write_text("as it was\n")
    (folder / "more").write_text("echo more of it\n")
    host = site.lab["host1"]
    process = site.start("run", "late")
    until(lambda: host.run(["cat", "/srv/scratch/late"], check=False).stdout.count("start") == 2)
    (folder / "text").write_text("edited\n")
    (folder / "more").unlink()
    process.kill()
    process.communicate()
    host.run(["touch", "/srv/scratch/go"])
    printed = site.sweepfw("attach", "late-1")
    assert "late-1 is done: 4 succeeded" in printed
    for trial in range(1, 5):
        assert site.sweepfw("logs", f"late-1/{trial}") == "as it was\nmore of it\n"
    assert [len(trial["attempts"]) for trial in shown(site, "late-1")["trials"]] == [1] * 4


def test_a_checkpoint_goes_where_the_next_attempt_runs(site: Site) -> None:
    """The worker is ended mid-trial; the trial goes on at the other host, with what it had saved."""
    script = """
    if [ -e $SWEEPFW_CHECKPOINT/half ]; then cat $SWEEPFW_CHECKPOINT/half; exit; fi
    echo "half of it on $HOSTNAME" >$SWEEPFW_CHECKPOINT/half; touch /srv/scratch/half; sleep 600
    """
    project(site, "half", script, "needs: {gpus: 0}", i=[1])
    process = site.start("run", "half")
    there: list[Host] = []

    def begun() -> bool:
        there[:] = [
            h
            for h in site.lab.hosts
            if h.run(["test", "-e", "/srv/scratch/half"], check=False).returncode == 0
        ]
        return bool(there)

    until(begun)
    name = role(site, there[0], "worker")
    there[0].run(["docker", "stop", "-t", "120", name])
    try:
        printed, _ = process.communicate(timeout=300)
    finally:
        process.kill()
        there[0].run(["docker", "start", name])
    other = next(host.name for host in site.lab.hosts if host is not there[0])
    assert process.returncode == 0 and re.search(rf"^{other}  half-1/1 succeeded", printed, re.M), printed
    assert site.sweepfw("logs", "half-1/1").startswith("half of it on ")
    attempts = shown(site, "half-1/1")["attempts"]
    assert [(each["state"], each["host"]) for each in attempts] == [
        ("interrupted", there[0].name),
        ("succeeded", other),
    ]


def test_a_gpu_that_others_left_is_used_again(site: Site) -> None:
    """The worker looks every half minute."""
    host = site.lab["host2"]
    host.release_gpu(TAKEN)
    project(site, "freed", ON_A_GPU % (4, 50), "needs: {gpus: 1}", i=list(range(1, 10)))
    until(lambda: run_on_gpus(site, host, "freed") == (set(host.gpu_uuids()), 4), 300)


# -- what people ask for, and down ------------------------------------------------------------------------

BIG = """
echo "score: $n"
head -c 12000000 /dev/zero | tr '\\0' "$n" >"$SWEEPFW_OUTPUT/big.bin"
ln -s big.bin "$SWEEPFW_OUTPUT/latest"
"""
SCORE = "metrics: [score]\nobjective: {metric: score, goal: maximize}\n"


def test_status_logs_and_output_files_of_the_best(site: Site) -> None:
    project(site, "big", BIG, SCORE, n=[1, 2, 3, 4])
    site.sweepfw("run", "big", "--quiet")

    def status() -> tuple[bool, list[bool]]:
        told = json.loads(site.sweepfw("infra", "status", "--json", code=None))
        return told["head"]["broker"], [host["worker"]["alive"] for host in told["hosts"]]

    until(lambda: status() == (True, [True, True]), what=status)
    assert "serves at" in site.sweepfw("infra", "logs", "head", "head")
    assert "there are rabbitmq, head" in site.sweepfw("infra", "logs", "host1", "x", code=2)
    assert "2 files came, 12.0 MB" in site.sweepfw("pull", "big-1", "--best", "1")
    assert (site.workspace / "runs/big-1/trials/4/1/files/latest").read_bytes() == b"4" * 12_000_000
    assert "nothing new" in site.sweepfw("pull", "big-1/4")
    assert "no trial big-1/9" in site.sweepfw("pull", "big-1/9", code=2)


def test_down_brings_all_home_and_leaves_what_was_there(site: Site, before: dict[str, str]) -> None:
    """Asked for while trials run."""
    script = """
    echo half >$SWEEPFW_CHECKPOINT/state; echo saved
    test $i -eq 0 && sleep 300; echo of $i >$SWEEPFW_OUTPUT/model
    test $i -ne 1 || head -c 12000000 /dev/zero >$SWEEPFW_OUTPUT/weights  # stays on its host
    """
    project(site, "homeward", script, "needs: {gpus: 0}", i=[1, 2, 3])
    site.sweepfw("run", "homeward", "-q")
    site.sweepfw("run", "homeward", "--set", "i=0", "--detach")
    until(lambda: "saved\n" in site.sweepfw("logs", "homeward-2/1", code=None))
    assert "1 trial running" in site.sweepfw("infra", "down", code=2)
    assert "--outputs all|best:N|none" in site.sweepfw("infra", "down", "--yes", code=2)
    assert drained(site) == []  # what is refused changes nothing
    site.environment["SWEEPFW_CRASH"] = "down.drained:1"
    site.sweepfw("infra", "down", "--yes", "--outputs", "all", code=-signal.SIGKILL)
    del site.environment["SWEEPFW_CRASH"]
    assert drained(site) == ["host1"]
    assert "trials are sent to host1 again" in site.sweepfw("infra", "up")
    assert drained(site) == []
    printed = site.sweepfw("infra", "down", "--yes", "--outputs", "all")
    assert "t is down" in printed and "homeward-1, homeward-2" in printed
    site.lab["host2"].release_gpu(TAKEN)
    site.lab["host2"].take_gpu(TAKEN)
    for host in site.lab.hosts:
        host.run(["sh", "-c", "rm -rf /srv/scratch/*"])
    assert inventory(site.lab) == before
    assert not remembered(site)
    runs = site.workspace / "runs"
    models = sorted(path.read_text() for path in runs.glob("homeward-1/trials/*/1/files/model"))
    assert models == ["of 1\n", "of 2\n", "of 3\n"]
    assert (runs / "homeward-2/trials/1/checkpoint/state").read_text() == "half\n"
    assert "3/3" in site.sweepfw("ls") and "3 succeeded" in site.sweepfw("show", "homeward-1")
    states = {each["sweep"]: each["state"] for each in json.loads(site.sweepfw("ls", "--json"))}
    assert (states["homeward-1"], states["homeward-2"]) == ("done", "queued")
    assert site.sweepfw("logs", "homeward-2/1") == "saved\n"
