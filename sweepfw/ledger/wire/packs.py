"""Bytes of any length that are sent and received: in files, so that they can be sent again and taken at
leisure, and never all in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from sweepfw.errors import SweepError
from sweepfw.ledger.wire.framing import PIECE

_IN_MEMORY = 4_000_000  # bytes; more goes to the disk


def spooled(pieces: Iterable[bytes]) -> IO[bytes]:
    """A file of these, at its beginning. Whoever gets it closes it."""
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # the caller closes it
    try:
        for piece in pieces:
            file.write(piece)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def sendable(pack: bytes | IO[bytes]) -> bytes | IO[bytes]:
    """What can be sent again if need be."""
    return pack if isinstance(pack, bytes) or pack.seekable() else spooled(read(pack))


def given(pack: IO[bytes], start: int) -> Iterator[bytes]:
    """What is to be sent, from where it began; its failures are not those of the connection."""
    try:
        pack.seek(start)
        yield from read(pack)
    except OSError as error:
        raise SweepError(
            f"{getattr(pack, 'name', 'what was to be sent')}: can't be read ({error})"
        ) from error


def read(pack: IO[bytes]) -> Iterator[bytes]:
    while piece := pack.read(PIECE):
        yield piece


def read_and_close(pack: IO[bytes]) -> Iterator[bytes]:
    with pack:
        yield from read(pack)
