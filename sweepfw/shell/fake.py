"""A shell that only pretends: for tests of what is decided, at the speed of thought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import IO, TypeAlias

from sweepfw.core.command import Cmd
from sweepfw.errors import SweepError
from sweepfw.shell.shell import Result, Sink

Answer: TypeAlias = "Result | str | Callable[[tuple[str, ...]], Result]"


@dataclass(slots=True)
class FakeShell:
    """Answers by the first pattern (`*` and `?` as in a file name) that the command's words, joined, match.

    A plain text is that output and exit code 0. What has no answer is no such command. `ran` is what it was
    asked to run; `files` what it holds, by path as given, and `modes` with which rights; `given` what each
    streamed command got to read.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    given: list[bytes] = field(default_factory=list)
    closed: bool = False

    def run(
        self,
        command: Cmd,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        argv = tuple(command.reveal())
        self.ran.append(argv)
        for pattern, answer in self.answers.items():
            if fnmatchcase(" ".join(argv), pattern):
                if isinstance(answer, str):
                    return Result(0, answer.encode())
                return answer if isinstance(answer, Result) else answer(argv)
        raise SweepError(f"{command.argv[0]}: no such command on this machine; install it or put it on PATH")

    def has(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern.split(" ")[0]) for pattern in self.answers)

    def put(self, data: bytes, path: str, mode: int = 0o600) -> None:
        self.files[path], self.modes[path] = data, mode

    def get(self, path: str) -> bytes:
        if path not in self.files:
            raise SweepError(f"{path}: can't be read (No such file or directory)")
        return self.files[path]

    def stream(
        self,
        command: Cmd,
        stdin: IO[bytes] | None = None,
        stdout: Sink | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Result:
        from sweepfw.shell.pump import Lines, sink

        self.given.append(stdin.read() if stdin else b"")
        result = self.run(command)
        lines = Lines(on_line)
        sink(stdout)(result.out)
        lines(result.err)
        return Result(result.code, b"", lines.end())

    def close(self) -> None:
        self.closed = True
