"""Runs on GPUs that a pretended nvidia-smi tells of: whose turn it is, on real processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Wait = Callable[..., None]

SMI = """#!/bin/sh
echo "$$ $1" >> {folder}/asked
[ -e {folder}/hangs ] && exec sleep 600.{mark}
[ -e {folder}/fails ] && {{ echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18; }}
case "$1" in
  --query-gpu=*used*) cat {folder}/gpus ;;
  --query-compute-apps=*) cat {folder}/processes ;;
esac
"""
TRIAL = """
echo "start $SWEEPFW_SWEEP/$SWEEPFW_TRIAL $SWEEPFW_SLOT $CUDA_VISIBLE_DEVICES" >> "$WITNESS"
sleep 0.1
[ -e "$WITNESS.wait" ] && until [ -e "$WITNESS.end" ] || [ $SECONDS -gt 250 ]; do sleep 0.05; done
echo "end $SWEEPFW_SWEEP/$SWEEPFW_TRIAL $SWEEPFW_SLOT $CUDA_VISIBLE_DEVICES" >> "$WITNESS"
"""


class Machine:
    """Four GPUs, as nvidia-smi on PATH tells, and the trials' witness."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.witness = folder, folder / "witness"
        self.mark = f"{random.randrange(10**9):09}"
        self.uuids = [f"GPU-{self.mark}-{n}" for n in range(4)]
        folder.mkdir()
        (folder / "bin").mkdir()
        smi = folder / "bin/nvidia-smi"
        smi.write_text(SMI.format(folder=folder, mark=self.mark))
        smi.chmod(0o755)
        rows = [f"{n}, {uuid}, Pretended, 24576, 14\n" for n, uuid in enumerate(self.uuids)]
        (folder / "gpus").write_text("".join(rows))
        self.witness.touch()
        (folder / "asked").touch()
        self.take()

    def take(self, *taken: int) -> None:
        """A foreign process, this one, computes on these GPUs from now on."""
        rows = "".join(f"{self.uuids[n]}, {os.getpid()}, 1000\n" for n in taken)
        draft = self.folder / "draft"
        draft.write_text(rows)
        draft.replace(self.folder / "processes")

    def asked(self) -> int:
        """How often it was asked who computes."""
        return (self.folder / "asked").read_text().count("compute-apps")

    def started(self) -> list[list[str]]:
        """[sweep/trial, slot, GPUs] of every start so far."""
        return [row[1:] for row in self.rows() if row[0] == "start"]

    def rows(self) -> list[list[str]]:
        return [(line + " ").split(" ")[:4] for line in self.witness.read_text().splitlines()]

    def hold(self) -> None:
        """Trials go on until `let_go`."""
        Path(f"{self.witness}.wait").touch()

    def let_go(self) -> None:
        Path(f"{self.witness}.end").touch()

    def most_at_once(self) -> dict[str, int]:
        """How many trials shared each GPU at worst."""
        now: dict[str, int] = defaultdict(int)
        most: dict[str, int] = defaultdict(int)
        for event, _, _, gpus in self.rows():
            for gpu in gpus.split(","):
                now[gpu] += 1 if event == "start" else -1
                most[gpu] = max(most[gpu], now[gpu])
        return most

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}


@pytest.fixture
def machine(tmp_path: Path, make_project: Callable[..., Path]) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    yield machine
    for uuid in machine.uuids:
        for kind in ("lock", "next"):
            Path(f"/tmp/sweepfw-gpu-{uuid}.{kind}").unlink(missing_ok=True)


@pytest.fixture
def project(machine: Machine, make_project: Callable[..., Path]) -> Callable[..., Path]:
    def make(trials: int, settings: str = "") -> Path:
        text = (
            f"command: [bash, trial.sh]\nvariables: {{WITNESS: '{machine.witness}'}}\ngrace: 0\n{settings}\n"
        )
        return make_project("p", text, f"i: !!python/tuple [0, {trials}]\n", {"trial.sh": TRIAL})

    return make


def sleepers(machine: Machine) -> list[int]:
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in told.splitlines() if f"sleep 600.{machine.mark}" in line]


@pytest.mark.parametrize("jobs", [None, 8, 2])
def test_a_slot_for_each_gpu(
    jobs: int | None,
    machine: Machine,
    project: Callable[..., Path],
    start_sweepfw: Start,
    wait_until: Wait,
) -> None:
    project(12)
    machine.hold()
    run = start_sweepfw("run", "p", *(["-j", str(jobs)] if jobs else []), env=machine.environment())
    slots = min(jobs or 4, 4)
    wait_until(lambda: len(machine.started()) == slots)
    machine.let_go()
    assert run.wait(timeout=60) == 0, run.communicate()
    pairs = {(slot, gpus) for _, slot, gpus in machine.started()}
    assert pairs == {(str(n), uuid) for n, uuid in enumerate(machine.uuids[:slots])}
    assert set(machine.most_at_once().values()) == {1}


@pytest.mark.parametrize(
    ("visible", "used"),
    [("2,1", [1, 2]), ("GPU-{mark}-3, 0", [0, 3]), ("1,9,2", [1]), ("", None), ("-1", None), ("-1,2", None)],
)
def test_the_users_own_choice(
    visible: str, used: list[int] | None, machine: Machine, project: Callable[..., Path], sweepfw: Run
) -> None:
    """On a shared machine people say with CUDA_VISIBLE_DEVICES which GPUs are theirs."""
    project(8)
    visible = visible.format(mark=machine.mark)
    told = sweepfw("run", "p", "-j", "2", env={**machine.environment(), "CUDA_VISIBLE_DEVICES": visible})
    assert told.returncode == 0, told.stderr
    seen = {gpus for _, _, gpus in machine.started()}
    assert seen == ({visible} if used is None else {machine.uuids[n] for n in used})
    assert machine.asked() == 0 or used is not None
    assert told.stdout.count("lists no GPU '9'") == (visible == "1,9,2")


def test_trials_that_need_two(machine: Machine, project: Callable[..., Path], sweepfw: Run) -> None:
    project(5, "needs: {gpus: 2}")
    assert sweepfw("run", "p", env=machine.environment()).returncode == 0
    a, b, c, d = machine.uuids
    assert {gpus for _, _, gpus in machine.started()} <= {f"{a},{b}", f"{c},{d}"}
    assert set(machine.most_at_once().values()) == {1}


def test_trials_that_need_none(machine: Machine, project: Callable[..., Path], sweepfw: Run) -> None:
    project(3, "needs: {gpus: 0}")
    machine.take(0, 1, 2, 3)
    assert sweepfw("run", "p", "-j", "3", env=machine.environment()).returncode == 0
    assert sorted(machine.started()) == [[f"p-1/{n}", s, ""] for n, s, _ in sorted_slots(machine)]


def sorted_slots(machine: Machine) -> list[tuple[int, str, str]]:
    return sorted((int(name.split("/")[1]), slot, gpus) for name, slot, gpus in machine.started())


def test_two_workspaces_never_share_a_gpu(
    machine: Machine,
    project: Callable[..., Path],
    start_sweepfw: Start,
    tmp_path: Path,
    wait_until: Wait,
) -> None:
    project(16)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "workspace", other)
    machine.hold()
    one = start_sweepfw("run", "p", "--name", "a", "-q", env=machine.environment())
    wait_until(lambda: len(machine.started()) == 4)
    with (tmp_path / "out").open("w") as out:
        two = start_sweepfw("run", "p", "--name", "b", env=machine.environment(), cwd=other, stdout=out)
    wait_until(lambda: "is used by another run" in (tmp_path / "out").read_text())  # it stands in line
    machine.let_go()
    for run in (one, two):
        assert run.wait(timeout=90) == 0, run.communicate()
    assert len(machine.started()) == 32
    assert set(machine.most_at_once().values()) == {1}


def test_a_gpu_that_others_use_is_waited_for(
    machine: Machine, project: Callable[..., Path], start_sweepfw: Start, wait_until: Wait
) -> None:
    project(6)
    machine.take(0, 1, 2, 3)
    run = start_sweepfw("run", "p", env=machine.environment())
    wait_until(lambda: machine.asked() > 4)
    begun, before = time.monotonic(), machine.asked()
    time.sleep(2)
    more = machine.asked() - before
    assert more <= 4 * (time.monotonic() - begun)  # four slots, at most once a second
    assert machine.started() == []
    machine.take(0, 2, 3)
    out, _ = run.communicate(timeout=90)
    assert run.returncode == 0
    assert {gpus for _, _, gpus in machine.started()} == {machine.uuids[1]}
    assert f"GPU 0 (Pretended) is used by process {os.getpid()}" in out
    assert out.count("GPU 0 ") == 1


@pytest.mark.parametrize("order", ["interrupt", "stop", "pause"])
def test_orders_are_heard_while_gpus_are_waited_for(
    order: str,
    machine: Machine,
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    wait_until: Wait,
) -> None:
    project(6)
    machine.take(0, 1, 2, 3)
    run = start_sweepfw("run", "p", env=machine.environment())
    wait_until(lambda: machine.asked() > 4)
    if order == "interrupt":
        run.send_signal(signal.SIGINT)
    else:
        assert sweepfw(order, "p-1").returncode == 0
    assert run.wait(timeout=60) == (130 if order == "interrupt" else 3)
    assert machine.started() == []


def test_a_driver_that_hangs_holds_up_no_end(
    machine: Machine,
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    wait_until: Wait,
) -> None:
    project(6)
    machine.take(0, 1, 2, 3)
    run = start_sweepfw("run", "p", env=machine.environment())
    wait_until(lambda: machine.asked() > 4)
    (machine.folder / "hangs").touch()
    wait_until(lambda: sleepers(machine))
    assert sweepfw("stop", "p-1").returncode == 0
    assert run.wait(timeout=40) == 3  # the driver has 60 s
    wait_until(lambda: not sleepers(machine))


@pytest.mark.parametrize("verb", ["run", "resume"])
def test_a_driver_that_hangs_from_the_start_is_left_by_an_interrupt(
    verb: str,
    machine: Machine,
    project: Callable[..., Path],
    start_sweepfw: Start,
    sweepfw: Run,
    wait_until: Wait,
) -> None:
    project(2)
    if verb == "resume":
        assert sweepfw("run", "p", "--only", "1", env=machine.environment()).returncode == 0
    (machine.folder / "hangs").touch()
    run = start_sweepfw(verb, "p" if verb == "run" else "p-1", env=machine.environment())
    wait_until(lambda: len(sleepers(machine)) == 2)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=40)
    assert run.returncode == 130
    assert "Traceback" not in out + err
    wait_until(lambda: not sleepers(machine))


def test_a_driver_that_fails(machine: Machine, project: Callable[..., Path], sweepfw: Run) -> None:
    """The machine has no GPUs then, and one line says why."""
    project(2)
    (machine.folder / "fails").touch()
    told = sweepfw("run", "p", "-j", "1", env=machine.environment())
    assert told.returncode == 0
    assert told.stdout.count("Driver/library version mismatch") == 1
    shown = json.loads(sweepfw("show", "p-1", "--json").stdout)
    assert shown["counts"] == {"succeeded": 2}
