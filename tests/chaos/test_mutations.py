"""What the promises stand on is taken out, and the tests notice. `scripts/mutate` does those that need a
broker as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutations
import pytest
from mutations import MUTATIONS, Mutation

CHEAP = [each for each in MUTATIONS if not each.broker]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_the_text_of_a_mutation_is_there_once(mutation: Mutation) -> None:
    for file, old, new in mutation.patches:
        assert (mutations.ROOT / "sweepfw" / file).read_text().count(old) == 1, old
        assert old != new


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutation", CHEAP, ids=lambda each: each.name)
def test_it_is_noticed(mutation: Mutation) -> None:
    """In a process of its own: what a broken guardian leaves is killed there."""
    assert "  red: tests/" in mutate(mutation.name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_them_all_is_well() -> None:
    """A copy lacks nothing that the tests need: so they are red for the mutation's sake."""
    assert "  green" in mutate("--unpatched", *(each.name for each in CHEAP))


def mutate(*words: str) -> str:
    command = [sys.executable, mutations.__file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_test_that_hangs_has_noticed_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_one.py").write_text("import time\n\ndef test_long():\n    time.sleep(60)\n")
    monkeypatch.setattr(mutations, "PATIENCE", 1.0)
    with pytest.raises(mutations.MutationError, match="no end after 1 s"):
        mutations.run_tests(tmp_path, ["test_one.py"])


def test_a_test_that_cannot_begin_has_noticed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = "import pytest\n\n@pytest.fixture\ndef it():\n    open('gone')\n\ndef test_one(it):\n    pass\n"
    monkeypatch.setattr(mutations, "copy", lambda folder: (folder / "test_one.py").write_text(lacking))
    with pytest.raises(mutations.MutationError, match="no test failed"):
        mutations.notice(Mutation("none", "", (), ("test_one.py",)), tmp_path)


def test_a_mutation_that_changes_nothing_is_told(tmp_path: Path) -> None:
    harmless = mutations.Patch("crash.py", "import os\n", "import os  # as it is\n")
    tests = ("tests/core/test_gpus.py",)
    with pytest.raises(mutations.MutationError, match="NOT NOTICED"):
        mutations.notice(Mutation("nothing", "", (harmless,), tests), tmp_path / "one")
    gone = mutations.Patch("crash.py", "no such text", "")
    with pytest.raises(mutations.MutationError, match="0 times, not once"):
        mutations.notice(Mutation("gone", "", (gone,), tests), tmp_path / "two")
