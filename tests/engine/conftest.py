"""A head and workers for tests that ask for them (see worker_fixtures)."""

from worker_fixtures import head, work

__all__ = ["head", "work"]
