"""A broker, a head and workers for tests that ask for them (see tests/engine/worker_fixtures)."""

from worker_fixtures import broker, head, work

__all__ = ["broker", "head", "work"]
