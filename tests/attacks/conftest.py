"""A head and workers for tests that ask for them (see tests/engine/worker_fixtures)."""

from worker_fixtures import head, work

__all__ = ["head", "work"]
