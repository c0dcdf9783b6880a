"""Texts of strangers on a terminal, at every verb: shown, never obeyed. And `--json`, which stays exact."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
import workspaces

from sweepfw.cli.main import VERBS
from sweepfw.core.model import Spec, Worker

OURS = re.compile(r"\x1b\[(?:K|2K|\d+m)")  # erase our own line; colours
# Title, clipboard, clear, a question that the terminal answers, C1, right-to-left, lines and returns.
NASTY = "\x1b]0;pwned\x07\x1b]52;c;cm0=\x07\x1b[2J\x1b[6n\x9b31m\u202egnp\u2066\u200b\r\x08\x85\u2028end"
NAME = NASTY.replace("/", "")  # in a file's name


class Place:
    """A workspace with NASTY wherever a stranger can put it, and its folder's name among it."""

    def __init__(self, root: Path) -> None:
        self.root = root / f"w{NAME}"
        self.root.mkdir()
        (self.root / ".sweepfw").mkdir(mode=0o700)
        for project, command in (
            ("p", "command: [sh, p.sh]\nobjective: {metric: loss}\n"),
            ("bad", "command: [\n"),
        ):
            folder = self.root / "projects" / project
            folder.mkdir(parents=True)
            (folder / "project.yml").write_text(command)
        folder = self.root / "projects/p"
        # What a value may not hold (control characters) is not in these.
        (folder / "parameters.yml").write_text('v: ["\\u202egnp\\u2066\\u200b", "a\\nb\\tc"]\n')
        (folder / "p.sh").write_bytes(
            b"printf '%s' '" + NASTY.encode() + b'\'\n: > "left-$(cat name)"\nexit 1\n'
        )
        (folder / "name").write_text(NAME)
        (folder / f"f{NAME}").touch()
        os.mkfifo(folder / f"pipe{NAME}")
        (self.root / f"d{NAME}").mkdir()
        self.fill()

    def fill(self) -> None:
        """A sweep `q-1` whose ledger holds what a hostile worker could have told."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workspaces, "HERE", Worker(NASTY, "boot-1"))
            made = workspaces.make(self.root)
            spec = Spec("q", "t", ("echo", "{v}"), metrics=(("loss", None),))
            sweep = made.sweep([{"v": "\u202egnp"}, {"v": "x"}, {"v": "y"}], spec, note="a note \u202e")
            made.ledger.open(sweep.uid)
            details = {"left": [[NAME, 3]], "left_count": 1, "error": {"text": NASTY}}
            told = {"log": NASTY.encode() + b"\n", "reports": [{"step": 1, "loss": 0.5}], "details": details}
            made.attempt(sweep, 1, **told)
            made.attempt(sweep, 2, state="failed", reason=NASTY, **told)
            made.ledger.close(sweep.uid)
        with sqlite3.connect(made.place.ledger) as db:  # what our own door would not take
            db.execute("UPDATE sweep SET note = ?", (NASTY,))
        folder = made.place.attempt(sweep.name, 1, 1)
        (folder / "files").mkdir()
        (folder / "files" / f"o{NAME}").touch()
        (folder / "metrics.jsonl").write_text(json.dumps({NASTY: 1, "loss": 2, "step": 1}) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a sweep `p-1`, which ran."""
    place = Place(tmp_path_factory.mktemp("texts"))
    assert at_terminal(place, "run", "p")[0] == 1
    return place


def harmless(shown: bytes) -> str:
    """What the terminal got does nothing but what we want of it."""
    text = OURS.sub("", shown.decode())
    left = {char for char in text if not char.isprintable()} - {"\r", "\n", "\t"}
    assert not left, (sorted(left), text[:2000])
    return text


def at_terminal(place: Place, *words: str) -> tuple[int, str]:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "sweepfw", *words],
        cwd=str(place.root),
        env={**os.environ, "TERM": "xterm-256color"},
        dimensions=(40, 120),
        timeout=250,
    )
    shown: bytes = child.read()
    child.close()
    if words[0] == "debug":  # hands the terminal over to the command, which is what it is for
        shown = shown.replace(NASTY.encode(), b"")
    assert child.exitstatus is not None
    return child.exitstatus, harmless(shown)


NOWHERE = {"infra", "pull", "flower"}  # there is no deployment
# For every verb: what it is called with, first where it works, then where it complains of what it was given.
CALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "new": (("new", "fine"), ("new", f"x{NAME}"), ("new", "p")),
    "init": (("init", f"d{NAME}", "-c", "true"), ("init", f"x{NAME}"), ("init", "projects/p")),
    "plan": (("plan", "p"), ("plan", "bad"), ("plan", NASTY), ("plan", "p", "--set", f"v={NASTY}")),
    "run": (
        ("run", "p", "-j", "1", "--note", "x \u202e"), ("run", "p", "--logs", "all", "-m", NASTY),
        ("run", "bad"), ("run", f"projects/{NAME}"), ("run", "p", "--name", NASTY),
        ("run", "p", "--only", NASTY),
    ),
    "attach": (("attach", "q-1"), ("attach", NASTY)),
    "pause": (("pause", "q-1"), ("pause", NASTY)),
    "stop": (("stop", "p-1"), ("stop", f"q-1/{NASTY}")),
    "resume": (("resume", "p-1"), ("resume", NASTY)),
    "retry": (("retry", "p-1", "1"), ("retry", "p-1", NASTY), ("retry", "p-1", "--reason", NASTY)),
    "extend": (
        ("extend", "p-1", "--set", "v=\u202e"), ("extend", "p-1", "--set", f"v={NASTY}"),
        ("extend", "p-1", "--set", NASTY),
    ),
    "debug": (("debug", "p-1/1"), ("debug", NASTY)),
    "ls": (("ls",), ("ls", "--on", NASTY)),
    "show": (("show", "q-1"), ("show", "q-1/1"), ("show", "q-1/2"), ("show", "p-1/1"), ("show", NASTY)),
    "logs": (("logs", "q-1/1"), ("logs", "-f", "q-1/2"), ("logs", "p-1/1"), ("logs", NASTY)),
    "best": (("best", "p-1"), ("best", "q-1"), ("best", NASTY)),
    "export": (
        ("export", "q-1"), ("export", "q-1", "--history"), ("export", "q-1", "p-1", "--format", "md"),
        ("export", "q-1", "--format", "json"), ("export", "q-1", "--history", "--format", "jsonl"),
        ("export", "q-1", "-o", f"no{NAME}/x.csv"), ("export", NASTY),
    ),
    "infra": (
        ("infra", "up", "-a", NASTY), ("infra", "up", NASTY), ("infra", "status", "--on", NASTY),
        ("infra", "up", "-a", "h", "-i", NASTY), ("infra", "doctor", "-a", "h", "--trust", NASTY),
        ("infra", NASTY),
    ),
    "pull": (("pull", "q-1"), ("pull", NASTY)),
    "flower": (("flower",), ("flower", "--on", NASTY)),
    "secret": (("secret", "ls"), ("secret", "set", NASTY), ("secret", "rm", NASTY)),
    "gc": (("gc", "--dry-run"), ("gc",)),
    "rm": (("rm", "q-1", "-y"), ("rm", NASTY)),
    "completion": (("completion", "bash"), ("completion", NASTY)),
}  # fmt: skip


def test_no_verb_is_left_out() -> None:
    assert set(CALLS) == set(VERBS)


@pytest.mark.parametrize("verb", CALLS)
def test_verbs(verb: str, place: Place, tmp_path: Path) -> None:
    """`rm` in a workspace of its own: others look at what it takes away."""
    if verb == "rm":
        place = Place(tmp_path)
    for number, words in enumerate(CALLS[verb]):
        code, shown = at_terminal(place, *words)
        assert "Traceback" not in shown and "this is a bug" not in shown, (words, shown)
        assert code in (0, 1, 2, 3, 4), (words, shown)
        assert number or code != 2 or verb in NOWHERE, (words, shown)
        if (NASTY in words and "-i" not in words) or code == 2:
            assert code == 2 and shown.count("\n") == 1, (words, shown)


def test_verbs_show_what_there_is(place: Place, tmp_path: Path) -> None:
    """Not by leaving it out: escaped, it can be read."""
    other = Place(tmp_path)
    _, shown = at_terminal(other, "show", "q-1/2")
    assert "\\x1b]0;pwned\\x07" in shown
    _, shown = at_terminal(other, "plan", "p")
    assert "\\u202egnp" in shown


def test_json_is_exact(tmp_path: Path) -> None:
    place = Place(tmp_path)

    def ask(*words: str) -> str:
        called = [sys.executable, "-m", "sweepfw", *words]
        return subprocess.run(called, cwd=place.root, capture_output=True, text=True, check=True).stdout

    trials = json.loads(ask("show", "q-1", "--json"))
    assert trials["note"] == NASTY and trials["trials"][1]["reason"] == NASTY
    assert trials["trials"][0]["params"] == {"v": "\u202egnp"}
    assert json.loads(ask("show", "q-1/1", "--json"))["attempts"][0]["host"] == NASTY
    assert json.loads(ask("ls", "--json"))[0]["note"] == NASTY
    rows = json.loads(ask("export", "q-1", "--history", "--format", "json"))
    assert [row["value"] for row in rows] == [1.0, 2.0, 0.5] and rows[0]["metric"].isprintable()  # its rule
    assert [json.loads(line)["argv"][-1] for line in ask("plan", "p", "--json").splitlines()] == [
        "--v=\u202egnp\u2066\u200b",
        "--v=a\nb\tc",
    ]


def test_the_picture_of_a_deployment() -> None:
    """`infra status`, where hosts, head and workers tell NASTY of themselves."""
    from sweepfw.cli.infra_status import picture
    from sweepfw.cli.terminal import Screen
    from sweepfw.core.deployment import Advert, Deployment, HeadStatus, Host, WorkerStatus
    from sweepfw.core.gpus import Gpu
    from sweepfw.fleet.remains import Container, Remains
    from sweepfw.fleet.status import HostStatus, Status, to_json

    worker = WorkerStatus(
        Worker(NASTY, "boot"), Advert(cpus=1, slots=1, version=NASTY, python=NASTY), True, 1.0, False,
        ((NASTY, 1, 1, NASTY),),
    )  # fmt: skip
    remains = Remains(
        NASTY, NASTY, True, NASTY, False, (Container(NASTY, NASTY, NASTY, NASTY, NASTY),), (NASTY,), (NASTY,),
        gpus=(Gpu(0, NASTY, NASTY, 1, 1, (7,)),), disk_free=1,
    )  # fmt: skip
    head = HeadStatus("lab", "u", NASTY, 0.0, False, 1, 1, 1, (worker,), {"unmet": {NASTY: NASTY}})
    hosts = (HostStatus("h", ("worker",), remains, worker=worker), HostStatus("i", ("worker",), None, NASTY))
    status = Status(Deployment("lab", (Host("h", "h"), Host("i", "i")), "h", ("h", "i")), "u", hosts, head)
    shown = "\n".join(picture(status, Screen(120, True), 1.0))
    assert "\\x1b]0;pwned" in harmless(shown.encode())
    harmless("\n".join(picture(replace(status, head=None, problem=NASTY), Screen(None, False), 1.0)).encode())
    assert json.loads(json.dumps(to_json(status)))["hosts"][1]["problem"] == NASTY
