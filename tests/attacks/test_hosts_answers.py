"""A host whose answers are garbage, endless, or claims: one line for it, and nothing of it steers our
terminal, our files or a command. By a real sshd, behind which hostile programs answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sshd import Sshd, needs_sshd, public

from sweepfw.cli.infra_doctor import described, picture, to_json
from sweepfw.cli.terminal import Screen
from sweepfw.core.deployment import Deployment, Host
from sweepfw.fleet import facts
from sweepfw.fleet.doctor import Case, complaints
from sweepfw.fleet.look import Seen
from sweepfw.fleet.remains import read as read_remains

OURS = ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m")

NASTY = "\\033]0;pwned\\007\\033[2J\\302\\233\\342\\200\\256 evil\\r"
PROGRAMS = {  # program -> a shell script
    "words": {"id": "echo garbage", "date": "echo now", "nproc": "echo many"},
    "numbers": {"id": "printf '%05000d\\n' 7", "nproc": "printf '%05000d\\n' 7"},
    "escape sequences": dict.fromkeys(("docker", "nvidia-smi", "stat"), f"printf '{NASTY}\\n{NASTY}\\n'")
    | {"uname": f"case $1 in -m) echo x86_64;; *) printf '{NASTY}\\n';; esac"},
    "silence": {"id": "exit 1", "date": "exit 1"},
    "endless": {"uname": "yes"},
    "claims of other paths": {"id": "case $1 in -u|-g) echo 0;; *) echo '../../etc:$(touch ran)';; esac"},
    "claims to be another": {
        "cat": 'case $1 in *machine-id) echo "../../$(id -u)";; *) /bin/cat "$@";; esac'
    },
    "another time": {"date": "echo nan"},
    "half an engine": {"docker": 'echo \'{"ServerVersion": {"a": [1]}, "Runtimes": 7, "ClientInfo": [1]}\''},
    "deep JSON": {"docker": "head -c 100000 /dev/zero | tr '\\0' '['"},
}
NONSENSE = {
    "words",
    "numbers",
    "silence",
    "claims of other paths",
    "claims to be another",
    "another time",
}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[str]]]:
    """hostile("words"): options for `infra doctor` that lead to such a host."""
    monkeypatch.setenv("HOME", str(tmp_path))
    programs = tmp_path / "programs"
    sshd = Sshd(tmp_path / "sshd", f"SetEnv PATH={programs}:/usr/bin:/bin")

    def start(kind: str) -> list[str]:
        programs.mkdir()
        for name, script in PROGRAMS[kind].items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        sshd.start()
        key = public(sshd.host_keys[0]).fingerprint
        return ["-a", f"127.0.0.1:{sshd.port}", "-i", str(sshd.client_key), "--trust", f"127.0.0.1={key}"]

    yield start
    sshd.stop()


def harmless(shown: str) -> None:
    for colour in OURS:
        shown = shown.replace(colour, "")
    left = {char for char in shown if not char.isprintable()} - {"\r", "\n"}
    assert not left, sorted(left)


@needs_sshd
@pytest.mark.parametrize("kind", PROGRAMS)
def test_doctor(kind: str, hostile: Callable[[str], list[str]], workspace_folder: Path) -> None:
    """The real command at a terminal."""
    words = hostile(kind)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "sweepfw", "infra", "doctor", *words],
        cwd=str(workspace_folder),
        env={**os.environ, "TERM": "xterm-256color"},
        dimensions=(24, 200),
        timeout=280,
    )
    shown = child.read().decode()
    child.close()
    harmless(shown)
    assert child.exitstatus in (1, 4), shown
    assert "bug" not in shown and "Traceback" not in shown
    if kind in NONSENSE:
        assert child.exitstatus == 4 and ("make no sense" in shown or "no POSIX shell" in shown), shown
    if kind == "endless":
        assert "printed more than 64 MB" in shown
    assert not (Path.cwd() / "ran").exists() and not (Path(os.environ["HOME"]) / "ran").exists()


@needs_sshd
def test_up_and_json(hostile: Callable[[str], list[str]], workspace_folder: Path) -> None:
    """`up` changes nothing; what `--json` says is JSON, with every character in it."""
    words = hostile("escape sequences")
    for verb in (["up", "--yes"], ["doctor", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "sweepfw", "infra", *verb, *words],
            cwd=workspace_folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=140,
        )
        assert done.returncode in (1, 4) and b"\x1b" not in done.stdout + done.stderr
        if verb[0] == "doctor":
            told = json.loads(done.stdout)["hosts"][0]
            assert told["reachable"] and "\x1b]0;pwned\x07" in told["facts"]["kernel"]
    assert not Path(os.environ["XDG_STATE_HOME"]).exists() and not (workspace_folder / "config.yml").exists()


MARK = "0123456789abcdef"
GOOD = {
    "clock": "1790000000.5",
    "who": "1000\n1000\nada\nada\n1000 27\n/home/ada",
    "machine": "0123456789abcdef0123456789abcdef",
    "system": "gpu1\nx86_64\nLinux 6.1\n8",
    "memory": "MemTotal:       16000000 kB\nMemAvailable: 8000000 kB",
    "release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"',
    "home": "ext2/ext3",
    "dir": "/home/ada/.sweepfw\n/dev/sda1 100 50 50000000 50% /",
    "driver": "/usr/bin/nvidia-smi\n550.54",
    "gpus": "0, GPU-11111111, NVIDIA A100, 40960, 100",
    "command": "/usr/bin/docker",
    "info": '{"ServerVersion": "26.1.5", "DockerRootDir": "/var/lib/docker", "Runtimes": {"runc": {}}}',
    "buildx": "v1",
    "containers": "sweepfw-x-head|running|Up (healthy)|u|head|c|i",
    "disk": "/dev/sda1 100 50 50000000 50% /",
    "end": "",
}
odd = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["\x1b]0;x\x07", "9" * 5000, "-1", "1e999", "nan", "{}", "[]", "[" * 9999, '{"a": []}', "a|b"]
    ),
    st.integers().map(str),
)  # fmt: skip


def answer(parts: dict[str, str]) -> str:
    return "".join(f"\n@@{MARK} {name}\n{text}\n" for name, text in parts.items())


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), odd, min_size=1, max_size=4), st.data())
def test_any_answer_is_facts_or_nonsense(changed: dict[str, str], data: st.DataObject) -> None:
    """Whatever stands in a section, or in one line of it: everything that is made of it holds."""
    parts = dict(GOOD)
    for name, text in changed.items():
        lines = GOOD[name].split("\n")
        at = data.draw(st.integers(0, len(lines) - 1))
        parts[name] = text if data.draw(st.booleans()) else "\n".join([*lines[:at], text, *lines[at + 1 :]])
    try:
        found = facts.read(answer(parts), MARK, 1790000000.0, 1790000001.0)
    except facts.NONSENSE:
        return
    if found.uid < 0 or not found.dir:
        return
    assert found.dir.startswith("/") and "\n" not in found.dir and "/" not in found.machine_id + found.user
    host = Host("gpu1", "gpu1")
    case = Case(Deployment("lab", (host,), "gpu1", ("gpu1",)), "u", Seen({"gpu1": found}, {}, {}), {})
    wrong = complaints(case)
    assert all(isinstance(each.line, str) for each in wrong) and described(found)

    class Decision:
        deployment, seen, complaints = case.deployment, case.seen, wrong

    harmless("\n".join(picture(Decision, Screen())))  # type: ignore[arg-type]  # what picture reads of one
    json.dumps(to_json(Decision), allow_nan=False)  # type: ignore[arg-type]  # as above


REMAINS = {
    "who": "1000\n1000",
    "machine": "0123",
    "key": "1",
    "folder": "/home/ada/.sweepfw/x",
    "command": "/usr/bin/docker",
    "docker": "26.1.5",
    "containers": '{"Names": "x", "Labels": "sweepfw.role=head", "State": "running"}',
    "volumes": '{"Name": "v-head"}',
    "networks": '{"Name": "n"}',
    "images": '{"Repository": "sweepfw", "Tag": "a"}',
    "used": "u i",
    "mounts": "/x v /var/lib/sweepfw",
    "disk": "/dev/sda1 100 50 50000000 50% /",
    "gpus": "0, GPU-11111111, A100, 40960, 100",
    "processes": "GPU-11111111, 7, 100",
    "owners": "7 0::/docker/x",
    "failed": "",
    "end": "",
}


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(REMAINS)), odd, min_size=1, max_size=4))
def test_any_answer_about_what_is_left_is_read_or_nonsense(changed: dict[str, str]) -> None:
    try:
        found = read_remains(MARK, "u", answer({**REMAINS, **changed}))
    except facts.NONSENSE:
        return
    assert found.anything in (True, False) and found.silent in (True, False)
    assert all(isinstance(each.health, str) for each in found.containers)
