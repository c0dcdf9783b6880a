"""The lab's hosts, for tests: `lab` for all of a session, `start_lab` for hosts of a special kind.

Tests that use them bear the marker `hosts`. They are skipped where no lab can run, and fail there under
`scripts/test --lab`, which makes what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import lab_images
import pytest
from lab import Lab
from lab_handmade import Handmade

LAB = "SWEEPFW_LAB" in os.environ  # scripts/test --lab says so


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "_lab_runs" in getattr(item, "fixturenames", ()):
            item.add_marker("hosts")
            # Starting hosts and building images count too; what these tests call has limits of its own.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def _lab_runs() -> None:
    reason = lab_images.why_not()
    if reason and not LAB:
        pytest.skip(f"the lab can't run here: {reason}")


@pytest.fixture(scope="session")
def _session_lab(_lab_runs: None) -> Iterator[Lab]:
    lab = Lab.start(hosts=2)
    yield lab
    lab.stop()


@pytest.fixture
def lab(_session_lab: Lab) -> Iterator[Lab]:
    """Two hosts with Docker, up and connected. Whatever a test does to a host's state is undone after it."""
    yield _session_lab
    _session_lab.heal()


@pytest.fixture
def start_lab(_lab_runs: None) -> Iterator[Callable[..., Lab]]:
    """start_lab(hosts=3, gpus={"host2": 4}): as Lab.start; gone at the test's end."""
    labs: list[Lab] = []

    def start(*arguments: object, **options: object) -> Lab:
        labs.append(Lab.start(*arguments, **options))  # type: ignore[arg-type]  # passed on as they are
        return labs[-1]

    yield start
    for lab in labs:
        lab.stop()


@pytest.fixture
def handmade(lab: Lab, tmp_path: Path) -> Iterator[Handmade]:
    """A deployment that was never up, and nothing of which stays."""
    handmade = Handmade.create(lab, tmp_path / "workspace")
    yield handmade
    handmade.clear()
