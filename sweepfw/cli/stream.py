"""Bytes of several trials, as lines that a terminal can show: whole, harmless, and not too many."""

from __future__ import annotations

from collections.abc import Iterator

LONGEST = 2_000  # characters of a line that are shown
PENDING = 16_384  # bytes kept of a line that has no end yet
LINES = 200  # lines of one trial shown between two ticks; the log has all of them


class Lines:
    """One trial's output, cut into lines. A carriage return draws a line anew, as on a terminal: of what
    progress bars print, only the last state of each line is shown."""

    def __init__(self) -> None:
        self._pending = b""
        self._shown = 0
        self._skipped = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that these bytes complete."""
        *whole, rest = (self._pending + data).split(b"\n")
        self._pending = rest.rpartition(b"\r")[2][-PENDING:] if len(rest) > PENDING else rest
        for line in whole:
            if self._shown < LINES:
                self._shown += 1
                yield _text(line)
            else:
                self._skipped += 1

    def tick(self) -> str | None:
        """Begin a new interval; a word on what was not shown in the last one."""
        self._shown, skipped, self._skipped = 0, self._skipped, 0
        return f"... {skipped:,} lines not shown" if skipped else None

    def end(self) -> Iterator[str]:
        """The last line, if it had no end."""
        if self._pending.strip():
            yield _text(self._pending)
        self._pending = b""
        if word := self.tick():
            yield word


def last_lines(tail: bytes, count: int = 20) -> list[str]:
    """The last lines of a failed trial's output."""
    return [_text(line) for line in tail.rstrip(b"\r\n").split(b"\n")[-count:]] if tail.strip() else []


def _text(line: bytes) -> str:
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = shown[: 4 * LONGEST].decode("utf-8", "replace")
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
