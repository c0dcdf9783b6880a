"""Failures that the user can act on. The command line prints their one line and exits with their code."""


class SweepError(Exception):
    """One line that says where, what was wrong and what would be right; exit code 2, nothing changed."""

    exit_code = 2


class BusyError(SweepError):
    """Somebody else holds what this command needs; it works later. Exit code 75."""

    exit_code = 75


class StoppedError(SweepError):
    """The sweep can't go on now, but nothing is lost: `resume` continues it. Exit code 3."""

    exit_code = 3


class UnreachableError(SweepError):
    """The deployment does not answer. Exit code 4."""

    exit_code = 4


class LedgerError(SweepError):
    """The ledger can't be used as it is: torn, foreign, newer, not writable, on a broken disk."""


class DiskFullError(StoppedError):
    """A write found no room and changed nothing. The same call works once there is room."""
