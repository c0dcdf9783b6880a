"""Deployments of unusual shape, with a sweep on each: shared homes, jump hosts, changed keys.

What `up` says of hosts that can't serve is in test_lab_up; here is what a deployment does that stands.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Kind, Lab
from lab_bed import Bed, deployed, person
from lab_site import containers


@pytest.fixture(scope="module")
def bed(_lab_runs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The head's host is the only one that may knock at host3, which shares its home with host2."""
    kinds = {"host2": Kind(home="shared"), "host3": Kind(home="shared", behind="host1")}
    lab = Lab.start(hosts=3, kinds=kinds)
    try:
        with deployed(lab, tmp_path_factory.mktemp("site"), slots=1) as bed:
            yield bed
    finally:
        lab.stop()


@pytest.fixture(autouse=True)
def inside(bed: Bed) -> Iterator[None]:
    with person(bed.site):
        yield


def ours(bed: Bed, host: str) -> tuple[list[str], list[str]]:
    """The deployment's folders and keys in the home of a host."""
    folders = bed.lab[host].run(["ls", "-A", "/home/lab/.sweepfw"], check=False).stdout.split()
    keys = bed.lab[host].read("/home/lab/.ssh/authorized_keys").splitlines()
    return sorted(folders), [line for line in keys if "sweepfw:" in line]


def running(lab: Lab) -> list[str]:
    return sorted(id for host in lab.hosts for id, status in containers(host).values() if "Up" in status)


def test_hosts_that_share_a_home_and_one_behind_another(bed: Bed) -> None:
    sweep = bed.submit("wait_for go; head -c 66000000 /dev/urandom >$SWEEPFW_OUTPUT/large", 3)
    bed.running(sweep, 3)
    bed.go(sweep)
    bed.ended(sweep)
    assert bed.once(sweep, 3)
    assert {each.host for each in bed.attempts(sweep)} == {"host1", "host2", "host3"}
    folders, keys = ours(bed, "host2")
    assert len(folders) == len(keys) == 2
    assert ours(bed, "host3") == (folders, keys)
    bed.site.sweepfw("pull", sweep.name)
    found = list((bed.site.workspace / "runs" / sweep.name).rglob("large"))
    assert [path.stat().st_size for path in found] == [66_000_000] * 3


def test_a_changed_key_stops_everything_until_it_is_known(bed: Bed) -> None:
    """First a worker's, then the one of the head, through which the way leads to the third host."""
    site, lab = bed.site, bed.lab
    before = running(lab)
    lab["host2"].change_host_key()
    for words in (["infra", "up"], ["infra", "up", "--skip-unreachable"]):
        printed = site.sweepfw(*words, code=4)
        assert "ITS KEY HAS CHANGED" in printed and "nothing was sent" in printed
        assert "host2" in printed.split("ITS KEY")[0].splitlines()[-2] and "--skip" not in printed
    lab["host1"].change_host_key()
    project = site.workspace / "projects" / "late"
    project.mkdir(parents=True)
    (project / "project.yml").write_text("command: 'true'\n")
    for line in ("infra up", "infra down --yes --outputs none", "infra status", "infra logs host3 worker"):
        assert "host1: ITS KEY HAS CHANGED" in site.sweepfw(*line.split(), code=4)
    for line in ("run late", "ls", "pull x", "stop x"):
        printed = site.sweepfw(*line.split(), code=4)
        assert "host1: ITS KEY HAS CHANGED" in printed and len(printed.splitlines()) == 1, printed
    assert running(lab) == before

    # What is said of it helps: its line goes from the user's file, or is put right there.
    lab.write_ssh_files({"host3": "host1"})
    site.state.known_hosts.unlink(missing_ok=True)
    assert "start tunnel anew" in site.sweepfw("infra", "up")
    sweep = bed.submit("true", 3)
    bed.ended(sweep)
    assert bed.told(sweep) == ["1/1 succeeded", "2/1 succeeded", "3/1 succeeded"]


def test_nothing_is_left_in_a_home_that_two_hosts_share(bed: Bed) -> None:
    bed.site.sweepfw("infra", "down", "--yes", "--outputs", "none")
    assert ours(bed, "host2") == ([], [])
