"""Every point of a crash at the head and at a worker: what dies is started again, and nothing is lost,
doubled, or run again after its success."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from broker_lab import Broker
from crash_cases import HEAD, WORKER, Case
from crash_cell import TRIALS, Cell


@pytest.fixture(scope="module")
def cell(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    found = Cell(tmp_path_factory.mktemp("cell"), broker, HEAD, WORKER)
    yield found
    found.end()


@pytest.mark.parametrize("case", HEAD, ids=lambda case: case.id)
def test_whatever_the_head_dies_of_is_finished(cell: Cell, case: Case) -> None:
    if case.point in cell.survived:  # in a work before
        return
    cell.do(case, cell.head)
    if case.verb in ("little", "much", "saving"):  # what ran did not notice
        assert cell.begun == [(trial, 1) for trial in range(1, TRIALS + 1)]


@pytest.mark.parametrize("case", WORKER, ids=lambda case: case.id)
def test_whatever_a_worker_dies_of_is_finished(cell: Cell, case: Case) -> None:
    if case.point in cell.survived:
        return
    cell.do(case, cell.worker)
