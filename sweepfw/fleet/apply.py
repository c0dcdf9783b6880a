"""Do the steps: side by side where they need nothing of one another; the first failure is named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Literal, Protocol

from sweepfw import crash
from sweepfw.core.command import Cmd, cmd
from sweepfw.core.secrets import needles
from sweepfw.errors import SweepError, UnreachableError
from sweepfw.fleet import containers, images, layers
from sweepfw.fleet.facts import Docker
from sweepfw.fleet.plan import Act, Build, Copy, Key, Make, Run, Step, Write
from sweepfw.masking import mask

if TYPE_CHECKING:
    from sweepfw.shell.shell import Result, Shell

_PATIENCE = 300.0  # seconds for a command that only asks the engine for something
_PULL = 3600.0
# BuildKit's words where a step of the Dockerfile failed. Whatever else ends a build may come of an `up` that
# was killed: its build goes on, we are joined to it, and end when it does, with words of many kinds.
_FAILED = "did not complete successfully"
_PAUSE = 1.0  # seconds until the next try
_LAST_LINES = 8
_SIDE_BY_SIDE = 32


class Progress(Protocol):
    """Told of each step, from several threads. `detail` is what a long one does just now."""

    def __call__(
        self, step: Step, state: Literal["begun", "detail", "done", "failed"], detail: str = ""
    ) -> None: ...


class StepError(SweepError):
    """A step failed. What was done stays; the next `up` goes on. `lines`: the last that its command said."""

    exit_code = 1

    def __init__(self, step: Step, why: str, lines: Sequence[str] = ()) -> None:
        self.step, self.lines = step, tuple(lines)
        super().__init__(f"{step.host}: {step.what}: {why}")


@dataclass(slots=True)
class Doing:
    """What steps are done with. `dockers`: the engine of each host; `context` and `secrets`: what
    images are built from; `base`: their base."""

    shells: Mapping[str, Shell]
    dockers: Mapping[str, Docker]
    base: str
    context: Mapping[str, bytes]
    secrets: Mapping[str, bytes]
    progress: Progress
    _keys: Lock = field(default_factory=Lock)

    def do(self, step: Step) -> None:
        """StepError or UnreachableError where it fails."""
        self.progress(step, "begun")
        try:
            self._act(step, step.act)
        except UnreachableError:
            self.progress(step, "failed")
            raise
        except SweepError as error:
            self.progress(step, "failed")
            raise error if isinstance(error, StepError) else StepError(step, str(error)) from None
        crash.point("up.step")
        self.progress(step, "done")

    def _act(self, step: Step, act: Act) -> None:
        match act:
            case Run(commands, tolerant):
                for command in commands:
                    self._run(step, command, tolerant=tolerant)
            case Write(path, data):
                self.shells[step.host].put(data, path)
            case Key(command):
                with self._keys:
                    self._run(step, command)
            case Make(container, replace):
                self._make(step, container, replace=replace)
            case Build(image):
                self._build(step, image)
            case Copy(image, source):
                self._copy(step, image, source)

    def _run(
        self, step: Step, command: Cmd, data: bytes = b"", *, tolerant: bool = False, host: str = ""
    ) -> Result:
        """On the step's host, or another."""
        phrased = _phrased(command, self.dockers[host or step.host].path or "docker")
        patience = _PULL if command.argv[1:2] == ("pull",) else _PATIENCE
        result = self.shells[host or step.host].run(phrased, data, timeout=patience)
        if result.code and not tolerant:
            raise _failure(step, command, result)
        return result

    def _make(self, step: Step, wanted: containers.Wanted, *, replace: bool) -> None:
        """Whatever ends this leaves no container, or one in the state `created`, which is made anew."""
        if replace:
            for command in containers.removal(wanted.name):
                self._run(step, command, tolerant=True)
        self._run(step, wanted.create())
        crash.point("up.created-container")
        self._run(step, wanted.fill(), wanted.archive())
        crash.point("up.filled-container")
        self._run(step, wanted.start())

    def _build(self, step: Step, image: str) -> None:
        for last in (False, False, True):
            said, failed = self._build_once(step, image)
            if not failed:
                return
            if last or any(_FAILED in line for line in said):
                raise StepError(step, "the build failed", _told(said))
            time.sleep(_PAUSE)

    def _build_once(self, step: Step, image: str) -> tuple[list[str], bool]:
        """What was said at the end, and whether it failed."""
        import io

        said: list[str] = []
        hidden = needles(self.secrets)

        def hear(line: str) -> None:
            line = mask(line.encode(errors="replace"), hidden).decode(errors="replace")
            said.append(line)
            del said[:-200]
            self.progress(step, "detail", line)

        command = images.build(image, self.base, self.secrets, self.dockers[step.host].path or "docker")
        data = io.BytesIO(images.build_input(self.context, self.secrets))
        result = self.shells[step.host].stream(command, data, lambda _: None, hear)
        return said, bool(result.code)

    def _copy(self, step: Step, image: str, source: str) -> None:
        """Through this machine, which alone reaches both. What an engine takes only whole is sent whole."""
        known = self._known_layers(step, image, source)
        if known and not self._send(step, image, source, known):
            return
        if failed := self._send(step, image, source, ()):
            raise StepError(step, "it did not arrive", failed)

    def _known_layers(self, step: Step, image: str, source: str) -> list[str]:
        here, there = self.dockers[source], self.dockers[step.host]
        if not here.path or not there.path or not layers.may_skip(here, there):
            return []
        wanted = layers.read(self._run(step, layers.of(here.path, image), host=source).text)
        known = layers.read(self._run(step, layers.listing(there.path), tolerant=True).text)
        return layers.shared(wanted[0], known) if wanted else []

    def _send(self, step: Step, image: str, source: str, without: Sequence[str]) -> list[str]:
        """Nothing, or what was said when it did not work."""
        save = layers.save(self.dockers[source].path or "docker", image, without)
        load = cmd(self.dockers[step.host].path or "docker", "load", "--quiet")
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            before, sent = sent, sent + size
            if before >> 23 != sent >> 23:  # every 8 MiB
                self.progress(step, "detail", f"{sent / 1e6:.0f} MB")

        saved, loaded = _pipe(self.shells[source], save, self.shells[step.host], load, count)
        # Nothing of a half-sent image was kept under its name.
        look = cmd("docker", "image", "inspect", "--format", "{{.Id}}", image)
        if not loaded.code and not self._run(step, look, tolerant=True).code:
            return []
        return [*_lines(saved), *_lines(loaded)] or ["no more was said"]


def apply(steps: Sequence[Step], doing: Doing) -> None:
    """Do all steps, each after those that it names. At the first failure no other is begun; those that run
    are waited for, and it is raised."""
    waiting = {step.id: step for step in steps}
    running: set[str] = set()
    ended: Queue[tuple[str, BaseException | None]] = Queue()
    failure: BaseException | None = None
    while running or (waiting and failure is None):
        for step in _ready(waiting, running) if failure is None else ():
            running.add(step)
            # A thread that Ctrl-C need not wait for.
            Thread(target=_carry, args=(doing, waiting.pop(step), ended), daemon=True).start()
        id, error = ended.get()
        running.remove(id)
        failure = failure or error
    if failure is not None:
        raise failure


def _carry(doing: Doing, step: Step, ended: Queue[tuple[str, BaseException | None]]) -> None:
    try:
        doing.do(step)
    except BaseException as error:
        ended.put((step.id, error))
    else:
        ended.put((step.id, None))


def _ready(waiting: Mapping[str, Step], running: set[str]) -> list[str]:
    """The steps that nothing has to come before any more, as many as may run at once."""
    ahead = {*waiting, *running}
    ready = [id for id, step in waiting.items() if not ahead.intersection(step.after)]
    return ready[: _SIDE_BY_SIDE - len(running)]


def _pipe(
    source: Shell, save: Cmd, target: Shell, load: Cmd, count: Callable[[int], None]
) -> tuple[Result, Result]:
    """One command's output as the other's input. Where one fails, the other ends as well."""
    reading, writing = os.pipe()
    loaded: Queue[Result | BaseException] = Queue()
    Thread(target=_load, args=(target, load, reading, loaded), daemon=True).start()

    def put(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(writing, rest) :]
        count(len(data))

    saved = None
    try:
        saved = source.stream(save, None, put)
    except BrokenPipeError:
        pass  # the other has ended, and tells why
    finally:
        os.close(writing)
    result = loaded.get()
    if isinstance(result, BaseException):
        raise result
    return saved or result, result


def _load(shell: Shell, command: Cmd, reading: int, loaded: Queue[Result | BaseException]) -> None:
    """Run the command; close its input when it ends, so that nobody writes into it for ever."""
    try:
        with os.fdopen(reading, "rb", 0) as stdin:
            result = shell.stream(command, stdin)
    except BaseException as error:
        loaded.put(error)
    else:
        loaded.put(result)


def _phrased(command: Cmd, docker: str) -> Cmd:
    """With docker's own place, which may not be on the PATH of commands over SSH."""
    return Cmd((docker, *command.argv[1:])) if command.argv[0] == "docker" else command


def _failure(step: Step, command: Cmd, result: Result) -> StepError:
    lines = _lines(result)
    return StepError(step, lines[-1] if lines else f"exit code {result.code}", lines[:-1])


def _lines(result: Result) -> list[str]:
    text = (result.err or result.out).decode(errors="replace")
    return _told(text.splitlines())


def _told(lines: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip()][-_LAST_LINES:]
