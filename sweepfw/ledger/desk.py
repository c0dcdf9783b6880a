"""What the head does beside the ledger: it knows the workers, hands out snapshots, keeps logs and files.

Two doors, as the ledger has: `engine.desk` inside the head, `ledger.client` over HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import IO, Protocol

from sweepfw.core.deployment import Advert, HeadStatus, LogPart, Orders
from sweepfw.core.model import Outcome, Receipt, Worker
from sweepfw.core.secrets import Secrets


class Desk(Protocol):
    # -- workers ---------------------------------------------------------------------------------------

    def announce(self, worker: Worker, advert: Advert) -> None:
        """The worker lives and may be sent trials. Registers it at the ledger; again updates what it has."""
        ...

    def orders(self, worker: Worker, seen: int, wait: float, *, connected: bool = True) -> Orders:
        """What it has to do, at once where there is something new since `seen`, else after `wait` seconds.

        Also a sign of life; `connected` False: the worker has lost the broker and gets nothing published.
        """
        ...

    def environment_lock(self, uid: str, snapshot: str, text: str | None) -> str | None:
        """The versions that the sweep's environment was resolved to. The first text given stands."""
        ...

    # -- snapshots -------------------------------------------------------------------------------------

    def lacks(self, digests: Collection[str]) -> set[str]:
        """Which of these contents the head does not have."""
        ...

    def put_contents(self, pack: IO[bytes]) -> None:
        """Store contents: a tar (no compression) whose members are named by their SHA-256, each checked."""
        ...

    def put_manifest(self, id: str, text: bytes) -> None:
        """Store a snapshot's list; all its contents must be there."""
        ...

    def manifest(self, id: str) -> bytes:
        """SweepError where the head has no such snapshot."""
        ...

    def contents(self, digests: Collection[str]) -> Iterator[bytes]:
        """A tar like the one of `put_contents`, in pieces."""
        ...

    # -- what attempts leave ---------------------------------------------------------------------------

    def keep(self, token: str, pack: IO[bytes]) -> None:
        """Store an attempt's small files (a tar, paths relative to the attempt's folder) at the head."""
        ...

    def conclude(
        self, token: str, offset: int, log: bytes, files: Mapping[str, bytes], outcome: Outcome
    ) -> Receipt:
        """`append_log`, `keep` and `finish` in one call, for an attempt that leaves little: most do. Where
        its output or a file can't be stored, SweepError: it is not finished then."""
        ...

    def put_checkpoint(self, token: str, pack: IO[bytes]) -> bool:
        """Store the trial's checkpoint folder as a tar, as a whole or not at all. False where the token is
        not the trial's current one: nothing is stored."""
        ...

    def checkpoint(self, token: str) -> Iterator[bytes] | None:
        """The trial's newest checkpoint as a tar in pieces, None where there is none."""
        ...

    # -- secrets ---------------------------------------------------------------------------------------

    def put_secrets(self, uid: str, values: Mapping[str, bytes]) -> None:
        """Keep the values that the sweep's trials get, instead of those before; none: keep none. Also for a
        sweep that is yet to be submitted. SweepError for names that can't be, and for too much."""
        ...

    def secrets(self, token: str) -> Secrets:
        """All values of the sweep, for the attempt that runs with this token; what people gave, they can't
        read back. SweepError for any other token, and where nobody gave some."""
        ...

    # -- people ----------------------------------------------------------------------------------------

    def read_log(self, uid: str, trial: int, attempt: int, offset: int, wait: float = 0) -> LogPart:
        """Output from offset on, up to some hundred kB; waits up to `wait` seconds for some. An attempt that
        has not begun its output yet has an empty log."""
        ...

    def files(self, uid: str, trial: int, attempt: int) -> dict[str, int]:
        """The files that the head keeps of an attempt, with their sizes."""
        ...

    def file(self, uid: str, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        """One of them, in pieces. SweepError where it is not there."""
        ...

    def forget(self, uid: str) -> None:
        """Delete the sweep at the ledger and its files here and on the workers."""
        ...

    def drain(self, host: str, *, off: bool = False) -> None:
        """Send no new trials to the host's worker; `off`: send again."""
        ...

    def status(self) -> HeadStatus: ...
