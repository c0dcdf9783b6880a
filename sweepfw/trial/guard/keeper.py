"""A keeper: runs the trials of one slot, one at a time, and outlives none of them."""

from __future__ import annotations

import json
import os
import time
from errno import EDQUOT, ENOSPC

from sweepfw import crash
from sweepfw.trial.guard.command import NoCommand
from sweepfw.trial.guard.execution import Execution
from sweepfw.trial.guard.files import write_file
from sweepfw.trial.guard.folder import AttemptFolder, Setup
from sweepfw.trial.guard.log import BoundedLog
from sweepfw.trial.guard.oom import Group
from sweepfw.trial.guard.orders import Abandoned, Orders
from sweepfw.trial.guard.reap import children, kill_children
from sweepfw.trial.guard.secret import SecretFolder
from sweepfw.trial.guard.wire import Wire

TYPE_CHECKING = False  # the module typing is not loaded here
if TYPE_CHECKING:
    from typing import Any

    from sweepfw.trial.guard.messages import Outcome, SetupMessage, StartMessage

_IDLE = 1.0  # seconds after which a spare working copy is not expected to be used any more
_KILL_ABANDONED = 2.0  # seconds for killing when nobody is left to tell


def keep(wire: Wire, guardian: int, group: Group) -> None:
    """Serve the client until it or the guardian is gone. An error that nobody foresaw is told to the client;
    our death is then the guardian's to clean up after, like any other."""
    try:
        Keeper(wire, guardian, group).serve()
    except Exception:
        import traceback

        wire.send(("crashed", 0, traceback.format_exc()))
        raise


class Keeper:
    """What one keeper knows between two trials."""

    def __init__(self, wire: Wire, guardian: int, group: Group) -> None:
        self._wire = wire
        self._orders = Orders(wire, guardian)
        self._group = group
        self._setups: dict[int, Setup] = {}
        self._hopeless: set[int] = set()  # processes that would not die
        self._secret_folder: SecretFolder | None = None

    def serve(self) -> None:
        """Run what is ordered. Returns when there is nobody to serve; then nothing of a trial is left."""
        try:
            while True:
                self._obey(self._next())
        except (Abandoned, EOFError):
            kill_children(seconds=_KILL_ABANDONED)
            self._drop_secrets()
            self._drop_spares()

    def _next(self) -> Any:
        while True:
            if self._orders.abandoned:
                raise Abandoned
            if (message := self._orders.next()) is not None:
                return message
            idle = _IDLE if any(setup.spares for setup in self._setups.values()) else None
            before = time.monotonic()
            self._orders.wait(idle)
            if idle and time.monotonic() - before >= idle:
                self._drop_spares()

    def _drop_spares(self) -> None:
        for setup in self._setups.values():
            setup.spares.drop()

    def _obey(self, message: Any) -> None:
        kind, number, *rest = message
        if kind == "setup":
            self._prepare(number, rest[0])
        elif kind == "start":
            self._run(number, rest[0])

    def _prepare(self, number: int, message: SetupMessage) -> None:
        if number in self._setups:
            self._setups[number].spares.drop()
        self._setups[number] = Setup(message)

    def _run(self, seq: int, start: StartMessage) -> None:
        setup = self._setups[start["setup"]]
        for other in self._setups.values():
            if other is not setup:
                other.spares.drop()
        folder = AttemptFolder(start, setup)
        outcome = self._conduct(seq, start, setup, folder)
        if outcome["started"] is None:
            folder.discard_work()
        crash.point("keeper.gathered")
        try:
            write_file(folder.outcome, json.dumps(outcome).encode() + b"\n")
        except OSError as error:  # never a success that is not on disk
            outcome["error"] = outcome["error"] or _trouble(error)
        crash.point("keeper.outcome")
        self._wire.send(("ended", seq, outcome))
        crash.point("keeper.told")
        if outcome["exit_code"] == 0 and not outcome["ended_by"] and not outcome["error"]:
            folder.keep_work()

    def _environment(self, setup: Setup, start: StartMessage) -> dict[str, str]:
        """All variables of the trial; its secret files are there then. Raises OSError."""
        env = setup.env
        if setup.secrets:
            self._secret_folder = SecretFolder()
            env = setup.secrets.over(env, self._secret_folder.make(setup.secrets.files))
            crash.point("keeper.secrets")
        return {**env, **start["env"]}

    def _drop_secrets(self) -> None:
        if self._secret_folder:
            self._secret_folder.drop()

    def _conduct(self, seq: int, start: StartMessage, setup: Setup, folder: AttemptFolder) -> Outcome:
        """Run the attempt to its end; what is to be told of it. Raises Abandoned."""
        self._hopeless.intersection_update(children() if self._hopeless else ())
        execution = Execution(seq, setup, self._orders, self._wire, self._hopeless)
        log, error, begun = None, None, time.time_ns()
        try:
            folder.make()
            crash.point("keeper.folder")
            log = _open_log(folder.log, setup)
            folder.fill(self._orders.check)
            crash.point("keeper.filled")
            begun = time.time_ns()
            execution.start(folder, log, start["argv"], self._environment(setup, start))
        except NoCommand as reason:
            error = {"kind": "no such command", "text": str(reason)}
        except (OSError, ValueError, KeyError) as reason:
            error = _trouble(reason)
        crash.point("keeper.started")
        execution.attend()
        self._drop_secrets()
        crash.point("keeper.ended")
        self._hopeless.update(execution.survivors)
        ended = time.time()
        if log:
            log.close()
        outcome = _told(start, execution, log) | {"error": error, "oom": self._group.struck(), "ended": ended}
        outcome["started"] = begun / 1e9 if execution.pid else None
        _gather(outcome, folder, setup, begun)
        return outcome


def _open_log(path: str, setup: Setup) -> BoundedLog:
    if not setup.secrets:
        return BoundedLog(path, setup.log_limit)
    from sweepfw.trial.guard.masked import MaskedLog

    return MaskedLog(path, setup.log_limit, setup.secrets.needles)


def _told(start: StartMessage, execution: Execution, log: BoundedLog | None) -> Outcome:
    """What the execution and its log say."""
    code = None if execution.status is None else os.waitstatus_to_exitcode(execution.status)
    return {
        "attempt": start["label"],
        "token": start["token"],
        "argv": start["argv"],
        "exit_code": None if code is None or code < 0 else code,
        "signal": -code if code is not None and code < 0 else None,
        "ended_by": execution.ended_by,
        "why": execution.why,
        "seconds": round(execution.seconds, 6),
        "max_rss": execution.max_rss * 1024,
        "cpu": round(execution.cpu, 6),
        "log_bytes": log.total if log else 0,
        "log_kept": log.kept if log else 0,
        "log_error": str(log.error) if log and log.error else None,
        "survivors": execution.survivors,
        "files": {"count": 0, "bytes": 0},
        "left": [],
        "left_count": 0,
        "_log": log.error if log else None,
    }


def _gather(outcome: Outcome, folder: AttemptFolder, setup: Setup, begun: int) -> None:
    """Keep the output files, and say what went wrong with them or with the log."""
    trouble = outcome.pop("_log")
    try:
        if outcome["started"] is not None:
            outcome.update(folder.gather(begun))
    except (OSError, ValueError, KeyError) as error:
        trouble = trouble or error
    if trouble and not outcome["error"]:
        outcome["error"] = _trouble(trouble, "output not kept")
    if setup.secrets:  # last: errors name files, and those have the names that the trial gave them
        from sweepfw.trial.guard.masked import hide

        unmasked = hide(outcome, folder.path, setup.secrets.needles)
        if unmasked and not outcome["error"]:
            outcome["error"] = _trouble(unmasked, "output not kept")
    if setup.output_limit is not None and outcome["files"]["bytes"] > setup.output_limit:
        outcome["ended_by"] = outcome["ended_by"] or "output_limit"


def _trouble(error: Exception, kind: str = "setup failed") -> dict[str, str]:
    """An error as it is told: a full disk by its name, since there the user can help."""
    full = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
    return {"kind": "disk full" if full else kind, "text": f"{error}" or repr(error)}
