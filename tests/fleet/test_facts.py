"""What hosts print, read: each case is a file in tests/cases/facts that says what differs from host.txt."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from sshd import Sshd, _children, needs_sshd

from sweepfw.fleet import questions
from sweepfw.fleet.facts import Facts, Reach, read, read_reach

CASES = Path(__file__).parents[1] / "cases" / "facts"
NOW = 1795315146.7


def printed(sections: dict[str, str | None]) -> str:
    """host.txt with some sections' content replaced; None: the section is missing."""
    text = "\n" + (CASES / "host.txt").read_text()
    for name, content in sections.items():
        new = "" if content is None else f"\n@@MARK {name}\n{content}\n"
        text, count = re.subn(rf"\n@@MARK {name}\n.*?(?=\n@@MARK |\Z)", lambda _, n=new: n, text, flags=re.S)
        assert count == 1, name
    return text


def value(facts: Facts, path: str) -> Any:
    found: Any = facts
    for part in path.split("."):
        found = found[int(part)] if part.isdecimal() else attrgetter(part)(found)
    return plain(found)


def plain(found: Any) -> Any:
    if isinstance(found, tuple):
        return [plain(each) for each in found]
    return found.decode() if isinstance(found, bytes) else found


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yml")), ids=lambda path: path.stem)
def test_reads(case: Path) -> None:
    told = yaml.safe_load(case.read_text())
    facts = read(printed(told.get("sections", {})), "MARK", NOW, NOW + 1)
    assert {path: value(facts, path) for path in told["expect"]} == told["expect"]


@pytest.mark.parametrize(
    ("clock", "offset"),
    [("1795315146.5", -0.2), ("1795315147.0", 0), ("1795315157.7", 10), ("1795311546.7", -3600), ("", 0)],
)
def test_a_clock_is_off_only_as_far_as_the_time_of_asking_does_not_explain(clock: str, offset: float) -> None:
    facts = read(printed({"clock": clock}), "MARK", NOW, NOW + 1)
    assert facts.offset == pytest.approx(offset, abs=1e-3)


def test_the_real_script_in_a_posix_shell(tmp_path: Path) -> None:
    """On this machine, whatever it has: in dash and bash, nothing on stderr, each section there once."""
    for shell in ("dash", "bash"):
        command = questions.look("0123", str(tmp_path / "a b"), "t-c0ffee", ["/", "/no such place"]).reveal()
        done = subprocess.run([shell, *command[1:]], input=questions.SCRIPT.encode(), capture_output=True)
        assert done.stderr == b""
        text = done.stdout.decode()
        names = re.findall(r"^@@0123 (\w+)$", text, re.M)
        assert len(names) == len(set(names)) and {"clock", "who", "keys", "command"} <= set(names)
        facts = read(text, "0123", 0, 2e10)
        assert facts.user and facts.machine_id and facts.cpus and facts.arch and facts.disk_free
        assert facts.dir == str(tmp_path / "a b")
        assert facts.missing_mounts == ("/no such place",)


def test_reach() -> None:
    text = """\
name host2 10.0.0.2
name host3 
name 10.0.0.4 10.0.0.4
scan 22 # host2:22 SSH-2.0-OpenSSH_9.2p1 Debian-2
scan 22 host2 ssh-ed25519 AAAA2
scan 22 # host2:22 SSH-2.0-OpenSSH_9.2p1 Debian-2
scan 22 host2 ecdsa-sha2-nistp256 BBBB2
scan 2222 # host2:2222 SSH-2.0-OpenSSH_9.2p1 Debian-2
scan 2222 [host2]:2222 ssh-ed25519 AAAA3
scan 22 # fe80::7:22 SSH-2.0-OpenSSH_9.2p1
scan 22 getaddrinfo host3: Name or service not known
bare 22 10.0.0.4 SSH-2.0-dropbear
bare 22 10.0.0.5 bash: connect: Connection refused
"""  # noqa: W291  # as it is printed
    places = [
        ("host2", 22),
        ("host2", 2222),
        ("host3", 22),
        ("10.0.0.4", 22),
        ("10.0.0.5", 22),
        ("fe80::7", 22),
    ]
    assert read_reach(text, places) == {
        ("host2", 22): Reach(True, ("ssh-ed25519 AAAA2", "ecdsa-sha2-nistp256 BBBB2"), "10.0.0.2"),
        ("host2", 2222): Reach(True, ("ssh-ed25519 AAAA3",), "10.0.0.2"),
        ("host3", 22): Reach(False),
        ("10.0.0.4", 22): Reach(True),
        ("10.0.0.5", 22): Reach(False),
        ("fe80::7", 22): Reach(True),
    }


@pytest.mark.parametrize("scanner", [True, False])
def test_the_real_reach_script(tmp_path: Path, scanner: bool) -> None:
    """Against something that answers as sshd does, and a port where nothing listens; with ssh-keyscan on the
    host, or without."""
    import socket
    import threading

    script = questions.REACH if scanner else questions.REACH.replace("command -v ssh-keyscan", "false")
    for seconds in ("-T 8", "timeout 8", "read -r -t 6"):  # this machine may be a slow one
        assert seconds in script
        script = script.replace(seconds, seconds.rpartition(" ")[0] + " 60")
    # A port that is taken, but where nobody listens, stays one where nobody listens.
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    line, _ = server.accept()
                    with line, suppress(OSError):
                        line.sendall(b"SSH-2.0-OpenSSH_0.0 test\r\n")

        serving = threading.Thread(target=serve)
        serving.start()
        places = [server.getsockname(), mute.getsockname()]
        done = subprocess.run(
            questions.reach(places).reveal(), input=script.encode(), capture_output=True, timeout=180
        )
        server.shutdown(socket.SHUT_RDWR)  # wakes who waits for the next one
        serving.join()
    found = read_reach(done.stdout.decode(), places)
    assert [found[place].answers for place in places] == [True, False]


@needs_sshd
@pytest.mark.parametrize("keys", [("rsa", "ecdsa", "ed25519"), ("ecdsa",), ("rsa",)])
def test_a_hosts_key_is_asked_for_once(
    tmp_path: Path, wait_until: Callable[..., None], keys: tuple[str, ...]
) -> None:
    """Where it can be: each time is a connection without a login, and sshd turns away who makes many."""
    sshd = Sshd(tmp_path / "sshd", keys=keys).start()
    try:
        assert sshd.process
        pid = sshd.process.pid
        wait_until(lambda: not _children(pid), 60)  # who asked whether it answers has been told of by then
        before = sshd.log.count("Connection from")
        places = [("127.0.0.1", sshd.port)]
        command = questions.reach(places).reveal()
        done = subprocess.run(command, input=questions.REACH.encode(), capture_output=True, timeout=180)
        asked = sshd.log.count("Connection from") - before
    finally:
        sshd.stop()
    found = read_reach(done.stdout.decode(), places)[places[0]]
    expected = (tmp_path / f"sshd/host_{keys[-1]}.pub").read_text().split()[:2]
    assert found.answers and " ".join(expected) in found.keys
    assert asked == (1 if "ed25519" in keys else 3), done.stdout
