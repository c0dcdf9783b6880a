"""A trial on a keeper: what it sees, what is kept of it, what is told of its end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_lab import Ended, Lab, LogGrew, children_of, freeze, lab_in

from sweepfw.trial.guard.client import KeeperDied, Setup, Start


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_in(tmp_path)


def test_outcome_of_a_success(lab: Lab) -> None:
    outcome, folder = lab.sh("echo out; echo err >&2", params='{"lr": 0.1}')
    assert (outcome["exit_code"], outcome["signal"], outcome["ended_by"], outcome["error"]) == (
        0,
        None,
        None,
        None,
    )
    assert outcome["attempt"] == "lab/1/1"
    assert outcome["token"] == "t1"
    assert outcome["oom"] is False
    assert outcome["survivors"] == []
    assert outcome["log_bytes"] == outcome["log_kept"] == 8
    assert outcome["started"] <= outcome["ended"] + 5  # a clock may be set back meanwhile
    assert outcome["max_rss"] > 0
    assert (folder / "output.log").read_bytes() == b"out\nerr\n"
    assert (folder / "params.json").read_text() == '{"lr": 0.1}'


@pytest.mark.parametrize(("script", "code", "signal"), [("exit 3", 3, None), ("kill -9 $$", None, 9)])
def test_outcome_of_a_failure(lab: Lab, script: str, code: int | None, signal: int | None) -> None:
    outcome, folder = lab.sh(script)
    assert (outcome["exit_code"], outcome["signal"]) == (code, signal)
    assert (folder / "work").is_dir(), "the working copy is kept after a failure"


def test_what_a_trial_inherits(lab: Lab) -> None:
    """Nothing: no descriptor, no ignored or blocked signal, no terminal, no environment but its own."""
    script = (
        "import os, signal, sys\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:-1], os.getsid(0) == os.getpid(), sorted(os.environ))\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['SigBlk'], 16))\n"
        "print([s for s in range(1, 32) if int(os.popen('cat /proc/self/status | grep SigIgn').read()"
        ".split()[1], 16) >> (s - 1) & 1 and s not in (13, 25)])\n"
        "print(os.read(0, 1))\n"
    )
    with open("/dev/null") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        outcome, folder = lab.run(sys.executable, "-I", "-c", script, env={"SWEEPFW_TRIAL": "1"})
    lines = (folder / "output.log").read_text().splitlines()
    assert lines[0] == "['0', '1', '2'] True ['LC_CTYPE', 'PATH', 'PWD', 'SWEEPFW_TRIAL']"
    assert lines[1:] == ["0", "[]", "b''"]
    assert outcome["exit_code"] == 0


def test_sigpipe_is_not_ignored(lab: Lab) -> None:
    _, folder = lab.sh("grep SigIgn /proc/self/status")
    ignored = int((folder / "output.log").read_text().split()[1], 16)
    assert ignored & 0x7FFFFFFF == 0  # the two above are glibc's own


def test_arguments_arrive_byte_for_byte(lab: Lab) -> None:
    arguments = ["; rm -rf ~", "$(id)", "a\nb", "🎲", "\u202eabc", "", "'\"`*", os.fsdecode(b"\xff\xfe")]
    _, folder = lab.run("printf", "%s\\0", *arguments)
    assert (folder / "output.log").read_bytes() == b"\0".join(map(os.fsencode, arguments)) + b"\0"


def test_stdout_can_be_opened_again(lab: Lab) -> None:
    _, folder = lab.sh("echo a >/dev/stdout; echo b >/dev/stderr; echo c | tee /dev/stderr")
    assert (folder / "output.log").read_text() == "a\nb\nc\nc\n"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("no-such-program", "not found on the trial's PATH"),
        ("./gone.sh", "there is no such file"),
        ("./plain.sh", "chmod +x"),
        ("./lost.sh", "interpreter"),
        ("./empty.sh", "first line names none"),
    ],
)
def test_no_such_command(lab: Lab, tmp_path: Path, command: str, text: str) -> None:
    files = {"plain.sh": "#!/bin/sh\n", "lost.sh": "#!/no/such/shell\n", "empty.sh": "echo\n"}
    modes = {"lost.sh": 0o755, "empty.sh": 0o755}
    lab.setup(snapshot=freeze(tmp_path / "snapshot", files, modes))
    outcome, folder = lab.run(command)
    assert outcome["error"]["kind"] == "no such command"
    assert text in outcome["error"]["text"]
    assert outcome["exit_code"] is None
    assert sorted(path.name for path in folder.iterdir()) == [
        "files",
        "outcome.json",
        "output.log",
        "params.json",
    ]
    assert lab.sh("true")[0]["exit_code"] == 0
    assert not (folder / "files").exists()


def test_the_command_is_found_on_the_trials_own_path(lab: Lab, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "tool").chmod(0o755)
    for name in ("one", "two"):
        _, folder = lab.run("tool", env={"PATH": f"{tmp_path / name}:/bin"})
        assert (folder / "output.log").read_text() == f"{name}\n"


def test_a_snapshot_that_is_broken_fails_the_setup_and_the_next_trial_works(lab: Lab, tmp_path: Path) -> None:
    snapshot = freeze(tmp_path / "snapshot", {"a": "content"})
    lab.setup(snapshot=snapshot)
    stored = next(path for path in Path(snapshot.objects).rglob("*") if path.is_file())
    stored.rename(tmp_path / "hidden")
    outcome, folder = lab.sh("cat a")
    assert outcome["error"]["kind"] == "setup failed"
    assert str(stored) in outcome["error"]["text"]
    assert not (folder / "work").exists()
    stored.write_text("cont")
    assert lab.sh("cat a")[0]["error"]["kind"] == "setup failed"
    (tmp_path / "hidden").rename(stored)
    outcome, folder = lab.sh("cat a")
    assert (folder / "output.log").read_text() == "content"


def test_too_many_arguments_fail_the_setup(lab: Lab) -> None:
    outcome, _ = lab.run("true", "x" * 200_000)
    assert outcome["error"]["kind"] == "setup failed"
    assert lab.run("true", "x" * 100_000)[0]["exit_code"] == 0


def test_output_files_are_kept_and_others_named(lab: Lab, tmp_path: Path) -> None:
    lab.setup(
        snapshot=freeze(tmp_path / "snapshot", {"train.py": "", "model.pt": "old"}),
        outputs=("ckpt/**", "*.pt"),
    )
    outcome, folder = lab.sh(
        "mkdir -p ckpt/deep __pycache__; echo 1 >ckpt/deep/a; echo new >model.pt; echo 22 >other.txt;"
        "echo >__pycache__/x.pyc; mkfifo ckpt/pipe; ln -s /etc/passwd ckpt/link; exit 1"
    )
    files = {
        str(path.relative_to(folder / "files")) for path in (folder / "files").rglob("*") if not path.is_dir()
    }
    assert files == {"ckpt/deep/a", "model.pt", "ckpt/link"}
    assert (folder / "files/ckpt/link").is_symlink()
    assert (folder / "files/model.pt").read_text() == "new\n"
    assert outcome["files"]["count"] == 3
    assert outcome["left"] == [("other.txt", 3)]
    assert outcome["left_count"] == 1
    _, folder = lab.sh("cat model.pt; ls")
    assert (folder / "output.log").read_text() == "oldmodel.pt\ntrain.py\n"


def test_unused_folders_go_and_used_ones_stay(lab: Lab) -> None:
    _, first = lab.sh("test -d ../files && test -d ../../checkpoint")
    _, second = lab.sh("echo 1 >../files/a; echo 2 >../../checkpoint/b")
    lab.sh("true")
    assert not (first / "files").exists()
    assert not (first.parent / "checkpoint").exists()
    assert (second / "files/a").read_text() == "1\n"
    assert (second.parent / "checkpoint/b").read_text() == "2\n"


def test_the_checkpoint_is_there_for_the_next_attempt(lab: Lab, tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "trials/1/checkpoint")
    lab.sh("echo 5 >../../checkpoint/epoch; exit 1", checkpoint=checkpoint)
    outcome, _ = lab.run("cat", f"{checkpoint}/epoch", checkpoint=checkpoint)
    assert outcome["exit_code"] == 0


def test_working_copies_go_after_success(lab: Lab, tmp_path: Path, wait_until) -> None:  # type: ignore[no-untyped-def]
    lab.setup(snapshot=freeze(tmp_path / "snapshot", {"a/b": "content"}))
    folders = [lab.sh("cat a/b")[1] for _ in range(3)]
    wait_until(
        lambda: not any((folder / "work").exists() for folder in folders), what="the idle keeper tidies up"
    )


def test_a_shared_folder_is_worked_in(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/a").write_text("content")
    lab.setup(shared=str(tmp_path / "shared"))
    _, folder = lab.sh("cat a; pwd")
    assert (folder / "output.log").read_text() == f"content{tmp_path}/shared\n"
    assert lab.sh("exit 1")[0]["exit_code"] == 1
    assert (tmp_path / "shared/a").exists()


def test_output_limit(lab: Lab) -> None:
    lab.setup(output_limit=1000)
    assert lab.sh("head -c 1000 /dev/zero >../files/a")[0]["ended_by"] is None
    outcome, _ = lab.sh("head -c 1001 /dev/zero >../files/a")
    assert outcome["ended_by"] == "output_limit"


def test_news_of_the_log_while_it_grows(lab: Lab) -> None:
    script = "echo one; until test -e 1; do sleep 0.01; done; echo two; until test -e 2; do sleep 0.01; done"
    folder = lab.start("sh", "-c", script)
    for number, total in ((1, 4), (2, 8)):
        assert lab.keeper.receive(60) == LogGrew(total)
        (folder / "work" / str(number)).touch()
    assert isinstance(lab.keeper.receive(60), Ended)
    assert lab.sh("echo short")[0]["exit_code"] == 0


def test_receive_times_out(lab: Lab) -> None:
    lab.start("sleep", "600")
    assert lab.keeper.receive(0.05) is None
    lab.keeper.stop("enough", 0)
    assert lab.end()["why"] == "enough"


def test_a_stop_that_comes_late_does_not_meet_the_next_trial(lab: Lab) -> None:
    lab.sh("true")
    lab.keeper.stop("late", 0)
    outcome, _ = lab.sh("sleep 0.05")
    assert outcome["exit_code"] == 0
    assert outcome["ended_by"] is None


def test_a_second_setup_replaces_the_first(lab: Lab, tmp_path: Path) -> None:
    for name in ("one", "two"):
        lab.setup(snapshot=freeze(tmp_path / name, {name: name}))
        _, folder = lab.sh("ls")
        assert (folder / "output.log").read_text() == f"{name}\n"


def test_a_bug_in_a_keeper_is_told_and_costs_that_keeper_only(lab: Lab, tmp_path: Path) -> None:
    lab.keeper.start(
        Start(setup=77, folder=str(tmp_path / "x"), checkpoint=str(tmp_path / "c"), argv=("true",))
    )
    with pytest.raises(KeeperDied, match="KeyError"):
        lab.keeper.receive(60)
    revived = lab.guardian.revive(0)
    revived.prepare(1, Setup(env={"PATH": os.environ["PATH"]}))
    folder = tmp_path / "trials/9/1"
    revived.start(Start(setup=1, folder=str(folder), checkpoint=str(folder) + "c", argv=("true",)))
    assert lab.end(revived)["exit_code"] == 0


def test_keepers_are_small_and_named(lab: Lab) -> None:
    lab.sh("true")
    names = [
        Path(f"/proc/{pid}/comm").read_text() for pid in (lab.guardian.pid, *children_of(lab.guardian.pid))
    ]
    assert names == ["sweepfw-guard\n", "sweepfw-keeper\n"]


def test_outcome_is_json_for_any_name(lab: Lab) -> None:
    outcome, folder = lab.run("sh", "-c", "touch $(printf '\\377')")
    assert outcome["left_count"] == 1
    assert json.loads((folder / "outcome.json").read_bytes())["left_count"] == 1


def test_out_of_memory_is_the_kernels_word(lab: Lab) -> None:
    lab.sh("true")
    (keeper,) = children_of(lab.guardian.pid)
    told = [line.split(":", 2) for line in Path(f"/proc/{keeper}/cgroup").read_text().splitlines()]
    place = next((path for _, kinds, path in told if "memory" in kinds.split(",")), "")
    group = Path(f"/sys/fs/cgroup/memory{place}")
    if not group.name.startswith("sweepfw-"):
        pytest.skip("no control group of a keeper's own: that takes cgroup v1 and root, or a delegated v2")
    (group / "memory.limit_in_bytes").write_text("60000000")
    with contextlib.suppress(OSError):  # swap is not counted everywhere
        (group / "memory.memsw.limit_in_bytes").write_text("60000000")
    outcome, _ = lab.run(sys.executable, "-c", "x = bytearray(10**9)")
    assert (outcome["signal"], outcome["oom"]) == (9, True)
    outcome, _ = lab.sh("kill -9 $$")
    assert (outcome["signal"], outcome["oom"]) == (9, False)
    lab.guardian.close()
    assert not group.exists()
