"""What a trial is given and nobody is to see, in the hands of real keepers."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from guard_lab import Lab, children_of, lab_in

from sweepfw.core.secrets import needles
from sweepfw.trial.guard import masked, secret
from sweepfw.trial.guard.secret import Hidden, SecretFolder, memory, sweep

KEY = b"hunter22-of-the-test"
FILE = b"first line of it\nsecond line of it\n"


def folders(keepers: list[int]) -> list[str]:
    """What lies in memory for secrets now, made by these processes."""
    ours = rf"sweepfw-{secret._namespace()}-(\d+)-"
    made = [match for name in os.listdir("/dev/shm") if (match := re.match(ours, name))]
    return [match.string for match in made if int(match[1]) in keepers]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_in(tmp_path)


@pytest.fixture
def hidden() -> Hidden:
    return Hidden({"KEY": KEY}, {"conf": FILE}, needles({"KEY": KEY, "conf": FILE}))


def output(folder: Path) -> bytes:
    return (folder / "output.log").read_bytes()


def test_variables_and_files_while_the_trial_lasts(lab: Lab, hidden: Hidden) -> None:
    lab.setup(secrets=hidden, env={"KEY": "the shell's own"})
    outcome, folder = lab.sh(
        'printf %s "$KEY" | wc -c; wc -c < $SWEEPFW_SECRETS/conf;'
        "stat -c %a $SWEEPFW_SECRETS $SWEEPFW_SECRETS/conf;"
        "stat -f -c %T $SWEEPFW_SECRETS; echo ${PIP_CONFIG_FILE-none}; echo $SWEEPFW_SECRETS;"
        "echo new > $SWEEPFW_SECRETS/new; mkdir $SWEEPFW_SECRETS/sub; chmod 0 $SWEEPFW_SECRETS"
    )
    told = output(folder).decode().split()
    assert told[:6] == [str(len(KEY)), str(len(FILE)), "700", "400", "tmpfs", "none"]
    assert outcome["exit_code"] == 0
    assert told[6].startswith("/dev/shm/sweepfw-")
    assert not os.path.exists(told[6])


def test_pip_is_told_of_its_configuration_unless_somebody_did(lab: Lab) -> None:
    given = Hidden({}, {"pip.conf": b"[global]\n"}, ())
    lab.setup(secrets=given)
    _, folder = lab.sh('test "$PIP_CONFIG_FILE" = "$SWEEPFW_SECRETS/pip.conf" && cat $PIP_CONFIG_FILE')
    assert output(folder) == b"[global]\n"
    lab.setup(secrets=given, env={"PIP_CONFIG_FILE": "/own"})
    _, folder = lab.sh("echo $PIP_CONFIG_FILE")
    assert output(folder) == b"/own\n"


def test_without_secrets_nothing_is_made(lab: Lab) -> None:
    _, folder = lab.sh("echo ${SWEEPFW_SECRETS-none}")
    assert output(folder) == b"none\n"


PRINTS = """
import base64, json, os, sys, time, urllib.parse
key, out = os.environb[b"KEY"], sys.stdout.buffer
for at in range(len(key)):  # a letter at a time, some with a pause between
    out.write(key[at : at + 1]); out.flush()
    if at % 5 == 0: time.sleep(0.06)
out.write(b"|" + base64.b64encode(b"x" + key + b"yz") + b"|")
out.write(urllib.parse.quote(key, safe="").encode() + b"\\n")
conf = open(os.environ["SWEEPFW_SECRETS"] + "/conf", "rb").read()
out.write(b"acc: 0.5 " + conf.replace(b"\\n", b"\\r\\n"))
out.write(b"hunter22-of"); out.flush()
with open("../metrics.jsonl", "w") as metrics:
    metrics.write(json.dumps({key.decode(): 1, "loss": 2}) + "\\n")
open("left-" + key.decode(), "w").close()
"""


@pytest.mark.parametrize("limit", [10**6, 60])
def test_what_it_prints_reports_and_leaves_is_masked(lab: Lab, hidden: Hidden, limit: int) -> None:
    lab.setup(secrets=hidden, log_limit=limit)
    outcome, folder = lab.run(sys.executable, "-c", PRINTS)
    assert outcome["exit_code"] == 0
    log = output(folder)
    if limit > 60:
        assert log.startswith(b"***|")
        assert log.endswith(b"|***\nacc: 0.5 ***\r\n***\r\nhunter22-of")  # the last is only how it begins
        assert outcome["log_bytes"] == len(log)
    assert json.loads((folder / "metrics.jsonl").read_text()) == {"*" * len(KEY): 1, "loss": 2}
    assert outcome["left"] == [("left-***", 0)]
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert KEY not in data, path
            assert base64.b64encode(b"x" + KEY)[4:-4] not in data, path
            assert b"second line" not in data, path


def test_a_growing_log_is_masked_too(lab: Lab, hidden: Hidden) -> None:
    lab.setup(secrets=hidden)
    folder = lab.start("sh", "-c", 'echo "is $KEY"; printf "and hunter22"; sleep 60')
    lab.wait_for(b"and ", folder)
    assert output(folder) == b"is ***\nand "  # what could go on to be the secret waits
    lab.keeper.stop("enough", 0)
    assert lab.end()["ended_by"] == "stop"
    assert output(folder) == b"is ***\nand hunter22"


def test_words_of_the_outcome_are_masked(lab: Lab, hidden: Hidden) -> None:
    lab.setup(secrets=hidden)
    outcome, _ = lab.run(f"./{KEY.decode()}")
    assert outcome["error"] == {"kind": "no such command", "text": "./***: there is no such file"}


def test_gone_however_the_trial_ends(lab: Lab, hidden: Hidden, wait_until: Callable[..., None]) -> None:
    assert lab.sh("true")[0]["exit_code"] == 0  # there is a keeper by now
    keepers = children_of(lab.guardian.pid)
    lab.setup(secrets=hidden, timeout=0.2, grace=0)
    outcome, _ = lab.sh("sleep 60")
    assert outcome["ended_by"] == "timeout"
    assert folders(keepers) == []
    lab.setup(secrets=hidden)
    assert lab.sh("exit 3")[0]["exit_code"] == 3
    assert lab.run("/not/there")[0]["error"]["kind"] == "no such command"
    assert folders(keepers) == []
    started(lab)
    assert len(folders(keepers)) == 1
    lab.keeper.close()  # its client has gone
    wait_until(lambda: folders(keepers) == [])


def started(lab: Lab) -> str:
    """A trial that has its secrets and goes on; their folder."""
    folder = lab.start("sh", "-c", "echo $SWEEPFW_SECRETS; exec sleep 600")
    lab.wait_for(b"\n", folder)
    path = output(folder).decode().strip()
    assert os.path.isfile(f"{path}/conf")
    return path


def test_gone_when_the_keeper_is_killed(lab: Lab, hidden: Hidden, wait_until: Callable[..., None]) -> None:
    lab.setup(secrets=hidden)
    path = started(lab)
    os.kill(int(path.split("-")[2]), signal.SIGKILL)
    wait_until(lambda: not os.path.exists(path))


CLIENT = """
import os, sys
from guard_lab import Lab
from pathlib import Path
from sweepfw.trial.guard.secret import Hidden
lab = Lab(Path(sys.argv[1]))
lab.setup(secrets=Hidden({}, {"conf": b"in memory"}, ()))
folder = lab.start("sh", "-c", "echo $$ $SWEEPFW_SECRETS; exec sleep 600")
lab.wait_for(b"\\n", folder)
print(lab.guardian.pid, (folder / "output.log").read_text().strip(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", ["client", "client and guardian", "all three"])
def test_gone_whoever_is_killed(killed: str, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """All three in one instant: what is left is found when the next guardian starts."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
    )  # fmt: skip
    assert client.stdout
    guardian, trial, path = client.stdout.readline().split()
    keeper = int(path.split("-")[2])
    assert os.path.isfile(f"{path}/conf")
    victims = {"client": [], "client and guardian": [int(guardian)], "all three": [int(guardian), keeper]}
    for pid in victims[killed]:
        os.kill(pid, signal.SIGSTOP)  # so that none of them sees another's end
    for pid in (client.pid, *victims[killed]):
        os.kill(pid, signal.SIGKILL)
    client.communicate()
    if killed == "all three":
        lab = Lab(tmp_path / "next")
        try:
            wait_until(lambda: not os.path.exists(path))
        finally:
            lab.close()
            with suppress(ProcessLookupError):
                os.kill(int(trial), signal.SIGKILL)  # nobody was left to do that
    else:
        wait_until(lambda: not os.path.exists(path))
        wait_until(lambda: not lives(int(trial)))


def lives(pid: int) -> bool:
    """Whoever inherited it may not have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sweep_spares_what_is_somebody_s() -> None:
    mine = SecretFolder()
    path = mine.make({"conf": b"x"})
    start, container, process, _, *rest = path.split("-")
    left = "-".join([start, container, process, "1", *rest])  # another process had our id once
    other = "-".join([start, "77", process, "1", *rest])  # another container's
    foreign = path + "-of-something-else"
    for folder in (left, other, foreign):
        os.mkdir(folder)
    try:
        sweep()
        assert [os.path.exists(each) for each in (path, left, other, foreign)] == [True, False, True, True]
    finally:
        mine.drop()
        for folder in (other, foreign):
            os.rmdir(folder)
    assert not os.path.exists(path)


def test_no_memory_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(secret, "_places", lambda: [str(tmp_path)])
    if stat.S_ISDIR(os.stat("/dev/shm").st_mode) and "tmpfs" in subprocess.check_output(
        ["stat", "-f", "-c", "%T", str(tmp_path)], text=True
    ):
        pytest.skip("the tests' own folder is in memory")
    with pytest.raises(OSError, match="no folder in memory for secrets"):
        memory()
    monkeypatch.setattr(secret, "_places", lambda: [str(tmp_path), "/dev/shm"])
    assert memory() == "/dev/shm"


def test_nothing_is_pickled_or_printed(hidden: Hidden) -> None:
    import pickle

    assert "hunter22" not in repr(hidden) + f"{hidden}"
    with pytest.raises(TypeError):
        pickle.dumps(hidden)


def test_nothing_of_them_in_arguments_or_in_what_others_may_read(lab: Lab, hidden: Hidden) -> None:
    lab.setup(secrets=hidden)
    folder = lab.start("sh", "-c", "echo $$; sleep 600; exit")
    lab.wait_for(b"\n", folder)
    trial = int(output(folder))
    keeper = int(Path(f"/proc/{trial}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (trial, keeper, lab.guardian.pid):
        assert KEY not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert KEY in Path(f"/proc/{trial}/environ").read_bytes()  # its own, and that of who runs as it
    for pid in (keeper, lab.guardian.pid):
        assert KEY not in Path(f"/proc/{pid}/environ").read_bytes()
    lab.keeper.stop("enough", 0)
    lab.end()


DUMPABLE = """
import ctypes, os, resource, sys
sys.path.insert(0, sys.argv[1])
libc = ctypes.CDLL(None)
from sweepfw.trial.guard.reap import children, close_up, name_process
if os.geteuid() == 0:
    import _ctypes, posix  # while we may read them
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    libc.prctl(4, 1, 0, 0, 0)  # becoming another user closed us already
assert libc.prctl(3, 0, 0, 0, 0) == 1
assert close_up()
name_process("closed")
pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
print(libc.prctl(3, 0, 0, 0, 0), open("/proc/self/comm").read().strip(), children() == [pid])
os.kill(pid, 9)
os.abort()
"""


def test_no_core_dump_and_all_the_rest_still_works_for_an_ordinary_user(tmp_path: Path) -> None:
    """Whatever the limits say; a status that says `dumped` would be one."""
    done = subprocess.Popen(
        [sys.executable, "-c", DUMPABLE, str(Path(__file__).parents[2])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout
    assert done.stderr
    told = done.stdout.read().split()
    status = os.waitid(os.P_PID, done.pid, os.WEXITED)
    done.wait()
    assert told == ["0", "closed", "True"], done.stderr.read()
    assert status
    assert (status.si_code, status.si_status) == (os.CLD_KILLED, signal.SIGABRT)


@pytest.fixture
def cores() -> Iterator[None]:
    """Cores are dumped here, as far as may be."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


def writer(pipe: Path) -> int:
    """The other end of it, once somebody reads; it stays open. 0: nobody does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("who", ["guardian", "command", "head"])
def test_no_core_is_dumped(
    who: str, tmp_path: Path, wait_until: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    if who == "guardian":
        lab = Lab(tmp_path)
        request.addfinalizer(lab.close)
        assert lab.sh("true")[0]["exit_code"] == 0
        pid = lab.guardian.pid
    else:
        os.mkfifo(tmp_path / "value")
        words = {
            "command": ("sweepfw", "secret", "set", "KEY", "--from-file"),
            "head": ("sweepfw.engine.service", "head", "--settings"),
        }
        argv = [sys.executable, "-m", *words[who], str(tmp_path / "value")]
        pid = subprocess.Popen(argv, cwd=tmp_path).pid
        wait_until(lambda: writer(tmp_path / "value"), 120)
    os.kill(pid, signal.SIGABRT)
    status = os.waitid(os.P_PID, pid, os.WEXITED)
    assert status
    assert (status.si_code, status.si_status) == (os.CLD_KILLED, signal.SIGABRT)  # else: CLD_DUMPED


@pytest.mark.usefixtures("cores")
def test_the_trial_has_the_user_s_own_limits(lab: Lab) -> None:
    told = subprocess.check_output(["sh", "-c", "ulimit -c; ulimit -Hc"], text=True)
    script = f"{sys.executable} -c 'import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))'"
    _, folder = lab.sh("ulimit -c; ulimit -Hc;" + script)
    assert output(folder).decode() == f"{told}1\n"


def test_what_went_wrong_with_its_files_is_told_masked(lab: Lab, hidden: Hidden) -> None:
    """A folder of that name is to be among the output files, where the trial put a file."""
    lab.setup(secrets=hidden, outputs=("*.pt",))
    outcome, folder = lab.sh('mkdir "cache-$KEY"; touch "cache-$KEY/x.pt" "../files/cache-$KEY"')
    assert outcome["error"]["kind"] == "output not kept"
    assert outcome["error"]["text"].endswith("/cache-***'")
    assert KEY not in (folder / "outcome.json").read_bytes()


def test_reports_that_can_t_be_masked_are_not_kept(
    hidden: Hidden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, _: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(masked, "cover_file", refuse)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"%s": 1}\n' % KEY)
    outcome: Any = {"error": None, "log_error": f"{KEY.decode()}: gone", "left": []}
    error = masked.hide(outcome, str(tmp_path), hidden.needles)
    assert str(error) == "[Errno 1] metrics.jsonl can't be masked: Operation not permitted"
    assert outcome["log_error"] == "***: gone"
    assert not (tmp_path / "metrics.jsonl").exists()
