"""What workers make of trials, on a real broker, with the head's parts in this process."""

from __future__ import annotations

import json
import os

from worker_fixtures import MARK, SLEEP, Work, ended
from worker_lab import HeadLab, processes, requirements, until

BACKEND = """
import zipfile
def build_wheel(folder, settings=None, metadata=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny.py", "WORD = 'tiny as it is'")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""

# -- what a trial leaves -------------------------------------------------------------------------------


def test_a_trial_runs_once_and_all_it_leaves_is_at_the_head(head: HeadLab, work: Work) -> None:
    worker = work("a")
    script = (
        'head -c 300000 /dev/urandom | tee "$SWEEPFW_OUTPUT/copy"; echo; echo "loss: 0.5"\n'
        'echo \'{"acc": 0.9, "step": 2}\' >> "$SWEEPFW_METRICS"; cat data.txt; exit $((i - 1))'
    )
    sweep = head.submit(script, 2, files={"data.txt": "frozen"}, metrics=(("loss", None),))
    ended(head, sweep)
    assert head.states(sweep) == ["succeeded", "failed"]
    first, second = head.attempts(sweep)
    assert (first.number, first.accepted, first.exit_code, first.host) == (1, True, 0, "a")
    assert (second.number, second.reason, second.exit_code) == (1, "exit 1", 1)
    assert (first.metrics["loss"].last, first.metrics["acc"].last_step) == (0.5, 2)
    for trial in (1, 2):
        kept, there = head.kept(sweep, trial), worker.place.attempt(sweep.name, trial, 1)
        log = head.log(sweep, trial)
        assert log == (there / "output.log").read_bytes()
        assert log == (kept / "files/copy").read_bytes() + b"\nloss: 0.5\nfrozen"
        assert json.loads((kept / "params.json").read_text()) == {"i": trial}
        assert (
            json.loads((kept / "outcome.json").read_text())["token"] == head.attempts(sweep)[trial - 1].token
        )
        assert (kept / "parsed.jsonl").exists() and (kept / "metrics.jsonl").exists()


def test_large_outputs_stay_on_their_host_and_that_is_said(head: HeadLab, work: Work) -> None:
    work("a")
    sweep = head.submit('head -c 11000000 /dev/zero > "$SWEEPFW_OUTPUT/model"')
    ended(head, sweep)
    [attempt] = head.attempts(sweep)
    assert attempt.outcome["files_on"] == "a"
    assert (head.kept(sweep) / "outcome.json").exists()
    assert not (head.kept(sweep) / "files").exists()


def test_output_arrives_while_a_trial_runs_and_a_long_one_in_order(head: HeadLab, work: Work) -> None:
    worker = work("a")
    go = head.folder / "go"
    script = f"echo first; until [ -e {go} ]; do sleep 0.05; done; seq 1 30000"
    sweep = head.submit(script, log_limit=100_000)
    until(lambda: head.log(sweep) == b"first\n", what="the first line")
    go.touch()
    ended(head, sweep)
    there = worker.place.attempt(sweep.name, 1, 1) / "output.log"
    assert head.log(sweep) == there.read_bytes()
    assert b"bytes left out here" in head.log(sweep) and head.log(sweep).endswith(b"30000\n")


def test_each_trial_runs_once_over_two_hosts(head: HeadLab, work: Work) -> None:
    for host in ("a", "b"):
        work(host)
    witness, go = head.folder / "witness", head.folder / "go"
    witness.touch()
    sweep = head.submit(f'echo "$i" >> {witness}; until [ -e {go} ]; do sleep 0.05; done', 24)
    until(lambda: len(witness.read_text().split()) == 4, what="as many as there are slots")
    go.touch()
    ended(head, sweep)
    assert sorted(map(int, witness.read_text().split())) == list(range(1, 25))
    assert {attempt.host for attempt in head.attempts(sweep)} == {"a", "b"}
    until(lambda: head.ledger.sweep(sweep.uid).state == "done")


# -- environments --------------------------------------------------------------------------------------


def test_an_environment_is_resolved_once_for_all_hosts(head: HeadLab, work: Work) -> None:
    for host in ("a", "b"):
        work(host)
    package = {
        "requirements.txt": "./tiny\n",
        "tiny/pyproject.toml": (
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "tiny"\nversion = "1.0"\n'
        ),
        "tiny/backend.py": BACKEND,
    }
    witness, go = head.folder / "witness", head.folder / "go"
    witness.touch()
    script = (
        f"echo $i >>{witness}; until [ -e {go} ]; do sleep 0.05; done\n"
        'python -c "import tiny; print(tiny.WORD)"'
    )
    sweep = head.submit(script, 8, files=package, environment=requirements())
    until(lambda: len(witness.read_text().split()) == 4, 120, "as many as there are slots")
    go.touch()
    ended(head, sweep, seconds=120)
    assert head.states(sweep) == ["succeeded"] * 8, head.log(sweep)
    assert all(head.log(sweep, n) == b"tiny as it is\n" for n in range(1, 9))
    assert {attempt.host for attempt in head.attempts(sweep)} == {"a", "b"}
    [agreed] = (head.place.run(sweep.name) / "environment").iterdir()
    assert "tiny" in agreed.read_text()


def test_what_builders_say_is_the_output_of_a_trial_that_could_not_be_set_up(
    head: HeadLab, work: Work
) -> None:
    work("a")
    files = {"requirements.txt": "./nowhere\n"}
    sweep = head.submit("echo never", files=files, environment=requirements())
    ended(head, sweep, seconds=120)
    [attempt] = head.attempts(sweep)
    assert (attempt.state, attempt.reason) == ("failed", "setup failed")
    assert b"nowhere" in head.log(sweep) and b"never" not in head.log(sweep)
    assert attempt.outcome["error"]["kind"] == "setup failed"


def test_a_trial_sees_the_hosts_python_and_nothing_of_ours(head: HeadLab, work: Work) -> None:
    work("a")
    script = 'env; python -c "import sys, sweepfw; print(sys.executable, sweepfw.__file__, sweepfw.report)"'
    sweep = head.submit(script)
    ended(head, sweep)
    log = head.log(sweep).decode()
    assert head.states(sweep) == ["succeeded"], log
    assert "token" not in log and "secret" not in log
    assert "inside/sweepfw.py" in log
    assert "OMP_NUM_THREADS=1" in log and "SWEEPFW_SLOT=" in log


# -- GPUs ----------------------------------------------------------------------------------------------

SMI = """#!/bin/sh
case "$1" in
*compute-apps*) cat "{folder}/taken" ;;
*) for i in 0 1 2 3; do echo "$i, GPU-$i$i$i$i, Tesla T4, 15360, 3"; done ;;
esac
"""


def test_each_trial_has_its_own_gpu_and_none_that_others_use(head: HeadLab, work: Work) -> None:
    bin = head.folder / "bin"
    bin.mkdir()
    (head.folder / "taken").write_text("GPU-2222, 4711, 500\n")
    (bin / "nvidia-smi").write_text(SMI.format(folder=head.folder))
    (bin / "nvidia-smi").chmod(0o755)
    work("a", slots=None, path=f"{bin}:{os.environ['PATH']}")
    [worker] = head.desk.status().workers
    assert worker.advert.slots == 4
    assert [bool(gpu.pids) for gpu in worker.advert.gpus] == [False, False, True, False]
    at_once = head.folder / "at-once"
    at_once.mkdir()
    script = (
        f"mkdir {at_once}/$CUDA_VISIBLE_DEVICES || exit 9\necho $CUDA_VISIBLE_DEVICES\n"
        f"until [ -e {head.folder}/go ]; do sleep 0.05; done; rmdir {at_once}/$CUDA_VISIBLE_DEVICES"
    )
    sweep = head.submit(script, 9)
    until(lambda: len(list(at_once.iterdir())) == 3, what="one on each")
    (head.folder / "go").touch()
    ended(head, sweep)
    assert head.states(sweep) == ["succeeded"] * 9
    used = {head.log(sweep, n).decode().strip() for n in range(1, 10)}
    assert used == {"GPU-0000", "GPU-1111", "GPU-3333"}
    assert {attempt.outcome["gpus"][0] for attempt in head.attempts(sweep)} == used


def test_a_gpu_that_others_took_meanwhile_is_given_back(head: HeadLab, work: Work) -> None:
    bin = head.folder / "bin"
    bin.mkdir()
    (head.folder / "taken").write_text("")
    (bin / "nvidia-smi").write_text(SMI.format(folder=head.folder))
    (bin / "nvidia-smi").chmod(0o755)
    work("a", slots=None, gpus=["GPU-1111"], path=f"{bin}:{os.environ['PATH']}")
    [worker] = head.desk.status().workers
    assert [gpu.uuid for gpu in worker.advert.gpus] == ["GPU-1111"] and worker.advert.slots == 1
    (head.folder / "taken").write_text("GPU-1111, 4711, 500\n")
    sweep = head.submit("echo $CUDA_VISIBLE_DEVICES")
    until(lambda: head.desk.status().workers[0].advert.gpus[0].pids, what="the head hears of it")
    assert head.states(sweep) == ["queued"] and head.attempts(sweep) == []


# -- what people order ---------------------------------------------------------------------------------


def test_stop_reaches_a_running_trial_at_once(head: HeadLab, work: Work) -> None:
    work("a", slots=1, renew=3600)  # so that it is no renewal that tells it
    sweep = head.submit(f"echo here; {SLEEP} & {SLEEP}", 2)
    until(lambda: head.log(sweep) == b"here\n")
    head.ledger.stop(sweep.uid)
    ended(head, sweep)
    assert processes(MARK) == []
    assert head.states(sweep) == ["cancelled"] * 2


def test_stop_reaches_a_trial_whose_environment_is_built(head: HeadLab, work: Work) -> None:
    work("a")
    files = {
        "requirements.txt": "./slow\n",
        "slow/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n',
        "slow/b.py": f"import subprocess\nsubprocess.run(['sleep', '{MARK}'])\n",
    }
    sweep = head.submit("echo never", files=files, environment=requirements())
    until(lambda: processes(MARK), what="the builder")
    head.ledger.stop(sweep.uid)
    ended(head, sweep)
    assert head.states(sweep) == ["cancelled"]
    until(lambda: processes(MARK) == [], what="the builder's end")


def test_a_removed_sweep_leaves_nothing_on_its_hosts(head: HeadLab, work: Work) -> None:
    worker = work("a")
    sweep = head.submit(f"echo here; {SLEEP}")
    until(lambda: head.log(sweep) == b"here\n")
    assert worker.place.run(sweep.name).is_dir()
    head.desk.forget(sweep.uid)
    until(lambda: not worker.place.run(sweep.name).exists(), what="its folder's end")
    assert processes(MARK) == []
