"""Machines for a test, as far as SSH can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import Sshd


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """start("name", "a line of sshd_config", ...): a machine, gone with the test."""
    started: list[Sshd] = []

    def start(name: str = "sshd", *lines: str, **options: object) -> Sshd:
        started.append(Sshd(tmp_path / name, *lines, **options).start())  # type: ignore[arg-type]  # its own
        return started[-1]

    yield start
    for sshd in started:
        sshd.cut()


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
