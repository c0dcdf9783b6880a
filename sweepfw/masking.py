"""Taking secrets out of bytes that were printed. Imports nothing: the keepers load it too.

A needle is a text that must not show: `core.secrets.needles` makes them. Stretches that needles cover, also
where several overlap, are replaced by `***`; every other byte stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MARK = b"***"


def mask(data: bytes, needles: Sequence[bytes]) -> bytes:
    """The bytes with every needle in them replaced."""
    masker = Masker(needles)
    return masker.feed(data) + masker.end()


def cover(data: bytes, needles: Sequence[bytes]) -> bytes:
    """As `mask`, with as many `*` as there were bytes: for what is read by offset."""
    covered = bytearray(data)
    for start, end in spans(data, needles):
        covered[start:end] = b"*" * (end - start)
    return bytes(covered)


def spans(data: bytes, needles: Iterable[bytes]) -> list[tuple[int, int]]:
    """The stretches that needles cover, in order; those that overlap are one, those that touch are two."""
    found = []
    for needle in needles:
        at = data.find(needle)
        while at >= 0:
            found.append((at, at + len(needle)))
            at = data.find(needle, at + 1)
    if len(found) < 2:
        return found
    found.sort()
    merged = found[:1]
    for start, end in found[1:]:
        before, last = merged[-1]
        if start < last:
            merged[-1] = (before, max(last, end))
        else:
            merged.append((start, end))
    return merged


class Masker:
    """Masks a stream that comes in pieces of any size, as if it had come in one.

    The last bytes of a piece are held back while they are how a needle begins: at most one byte less than the
    longest needle has. Silence does not set them free, since the rest of a needle may come an hour later;
    the next bytes or the stream's end do. A line is held only where a needle goes on behind its end.
    """

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = [needle for needle in needles if needle]
        self._held = b""
        self._behind: dict[bytes, list[bytes]] = {}
        self._covered = 0  # so many of the held bytes lie under a mark that was given out

    def feed(self, data: bytes) -> bytes:
        """What can be shown by now."""
        data = self._held + data
        return self._give(data, self._decided(data))

    def end(self) -> bytes:
        """What was held back: nothing follows, so it is no needle."""
        return self._give(self._held, len(self._held))

    def _give(self, data: bytes, until: int) -> bytes:
        """Show `data` up to a place, and hold the rest."""
        shown: list[bytes] = []
        at = self._covered
        for start, end in spans(data, self._needles):
            if start >= until:
                break
            if start >= at:
                shown += (data[at:start], MARK)
            at = max(at, end)
        shown.append(data[at:until])
        self._held, self._covered = data[until:], max(0, at - until)
        return b"".join(shown)

    def _decided(self, data: bytes) -> int:
        """Where the first needle may begin that is not whole yet."""
        first = len(data)
        for needle in self._going_on(data[-1:]):
            at = data.find(needle[:1], max(0, len(data) - len(needle) + 1), first)
            while at >= 0:
                if needle.startswith(data[at:]):
                    first = at
                    break
                at = data.find(needle[:1], at + 1, first)
        return first

    def _going_on(self, last: bytes) -> list[bytes]:
        """The needles that go on behind this byte: few, behind the end of a line."""
        found = self._behind.get(last)
        if found is None:
            found = self._behind[last] = [needle for needle in self._needles if last in needle[:-1]]
        return found
