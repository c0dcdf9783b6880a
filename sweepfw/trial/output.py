"""What a trial says while it runs: its log and its reports, read from the attempt's folder as they grow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sweepfw.core.metrics import Fold, OutputMetrics, Point, combine, parse_lines
from sweepfw.core.model import MetricSummary
from sweepfw.trial.guard.files import open_plain
from sweepfw.trial.guard.follow import Follower

TAIL = 16_384  # bytes of the end that messages are made of: 20 lines, unless they are very long
_CHUNK = 1 << 18


class Reports:
    """Follows output.log and metrics.jsonl of one attempt. Memory does not grow with either.

    `show` gets the output's bytes in order. With `keep`, metrics that were found in the output are written to
    parsed.jsonl beside it, since a long log loses its middle; that file is begun anew each time, so reading
    a log again can't double them.
    """

    def __init__(
        self,
        folder: str,
        declared: tuple[tuple[str, str | None], ...],
        show: Callable[[bytes], None] | None,
        limit: int,
        *,
        keep: bool,
        needles: Sequence[bytes] = (),
    ) -> None:
        self._folder, self._show, self._keep = folder, show, keep
        self._parser = OutputMetrics(declared) if declared else None
        self._log = Follower(f"{folder}/output.log", limit)
        self._limit = limit
        self._metrics = _Growing(f"{folder}/metrics.jsonl")
        self._needles = needles  # of the trial's secrets: the log comes masked, what it reports does not
        self._reported, self._printed = Fold(), Fold()
        self._begun = False  # parsed.jsonl
        self.trouble: OSError | None = None  # why not all of it could be kept

    def look(self, printed: int | None = None) -> None:
        """Read what is new. `printed`: bytes of output so far; None: as many as the log holds."""
        if self._parser or self._show:
            self._read_log(self._size() if printed is None else printed)
        for block in self._metrics.blocks():
            self._reported.add(parse_lines(self._masked(block))[0])

    def end(self, printed: int | None = None) -> None:
        """Read the rest; nothing is written any more."""
        self.look(printed)
        if self._parser:
            self._found(self._parser.end())
        self._reported.add(parse_lines(self._masked(self._metrics.rest()))[0])
        self._log.close()

    def summaries(self) -> dict[str, MetricSummary]:
        """Every metric so far: what was reported, else what was printed."""
        if not self._printed.summaries:
            return self._reported.summaries
        return combine(self._reported.summaries, self._printed.summaries)

    def tail(self) -> bytes:
        """The last bytes of the log."""
        return tail(self._folder)

    def _masked(self, block: bytes) -> bytes:
        if not self._needles:
            return block
        from sweepfw.masking import cover

        return cover(block, self._needles)

    def _size(self) -> int:
        try:
            return min(Path(f"{self._folder}/output.log").stat().st_size, self._limit)
        except OSError:
            return 0

    def _read_log(self, printed: int) -> None:
        try:
            while printed and (data := self._log.read(printed)):
                if self._show:
                    self._show(data)
                if self._parser:
                    self._found(self._parser.feed(data))
        except OSError:
            return  # the trial did not start, or its folder was removed

    def _found(self, points: Iterable[Point]) -> None:
        points = list(points)
        self._printed.add(points)
        if points and self._keep:
            lines = "".join(_line(point) for point in points)
            try:
                flags = os.O_APPEND if self._begun else os.O_TRUNC
                fd = open_plain(f"{self._folder}/parsed.jsonl", os.O_WRONLY | os.O_CREAT | flags)
                with open(fd, "w") as file:  # noqa: PTH123  # a descriptor
                    file.write(lines)
            except OSError as error:
                self.trouble = self.trouble or error
            self._begun = True


def tail(folder: str) -> bytes:
    """The last bytes of an attempt's log; none where there is no log."""
    try:
        with open(open_plain(f"{folder}/output.log"), "rb") as log:  # noqa: PTH123  # a descriptor
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            return log.read(TAIL)
    except OSError:
        return b""


def _line(point: Point) -> str:
    step = {} if point.step is None else {"step": point.step}
    return json.dumps(step | {point.name: point.value}) + "\n"


class _Growing:
    """A file that grows by whole lines, read from where we were."""

    def __init__(self, path: str) -> None:
        self._path, self._offset, self._partial = path, 0, b""

    def blocks(self) -> Iterable[bytes]:
        """New whole lines, many at a time."""
        try:
            with open(open_plain(self._path), "rb") as file:  # noqa: PTH123  # a descriptor
                file.seek(self._offset)
                while data := file.read(_CHUNK):
                    self._offset += len(data)
                    whole, newline, rest = data.rpartition(b"\n")
                    if newline:
                        yield self._partial + whole + newline
                        self._partial = rest
                    elif len(self._partial) < _CHUNK:
                        self._partial += rest
        except OSError:
            return  # most trials report nothing

    def rest(self) -> bytes:
        """A last line without an end."""
        rest, self._partial = self._partial, b""
        return rest
