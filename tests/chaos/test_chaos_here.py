"""The profile of CI: a hundred trials under ten faults on this machine, of a seed that stays the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import here_faults
import here_main
import pytest


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_hundred_trials_and_ten_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trials", "100", "--faults", "10", "--seed", "4", "--report", str(tmp_path)]
    found = here_main.main(words)
    printed = capsys.readouterr().out
    print(printed)
    assert found == 0
    assert "no promise broken" in printed
    strikes = json.loads((tmp_path / "report.json").read_text())["strikes"]
    assert len(strikes) == 10
    assert sum(each["struck"] for each in strikes) >= 8, strikes


def test_every_kind_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(here_faults.KINDS) == set(here_faults.BLOWS)
    assert here_main.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(here_faults.KINDS)


def test_a_broken_promise_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault that doubles an accepted trial, beside sweepfw: the verdict is red, and the exit code 1."""

    def double(scene: Any, fault: Any) -> tuple[str, str]:
        path = scene.world.witness / "witness.jsonl"
        starts = [line for line in path.read_bytes().splitlines() if b'"what": "start"' in line]
        with path.open("ab") as file:
            file.write(starts[0].replace(b'"nonce": "', b'"nonce": "f') + b"\n")
        return "trial", "doubled"

    monkeypatch.setitem(here_faults.BLOWS, "freeze-cli", double)
    assert here_main.main(["--trials", "9", "--faults", "1", "--kinds", "freeze-cli", "--seed", "1"]) == 1
    assert "BREACH  granted: chaos-1/" in capsys.readouterr().out
