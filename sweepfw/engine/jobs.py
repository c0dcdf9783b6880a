"""What the attempts of a sweep share, for each snapshot that its trials run: environment, folders, limits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import sweepfw.inside
from sweepfw import crash
from sweepfw import snapshot as snapshots
from sweepfw.config.workspace import Workspace
from sweepfw.core.model import Grant, Sweep
from sweepfw.trial.attempt import Job
from sweepfw.trial.editables import editables, import_roots, outside
from sweepfw.trial.environment import resolve
from sweepfw.trial.guard.client import Setup, Snapshot
from sweepfw.trial.interpreter import Resolved

if TYPE_CHECKING:
    from sweepfw.core.secrets import Secrets
    from sweepfw.trial.guard.secret import Hidden

INSIDE = str(Path(sweepfw.inside.__file__).parent)  # what `import sweepfw` finds in a trial


def cover_lost(job: Job, grant: Grant) -> None:
    """Mask what an attempt reported whose keeper died before it could."""
    if job.setup.secrets:
        from sweepfw.trial.guard.masked import cover_reports

        cover_reports(f"{job.run}/trials/{grant.trial}/{grant.attempt}", job.setup.secrets.needles)


class Jobs:
    """Makes the Job of a snapshot when it is first asked for, once. Safe from several threads.

    `agree` is told what an environment was resolved to, and tells what holds for the sweep (asked with None:
    what holds so far). Without it, that is a file beside the sweep's trials. `number` numbers the jobs. A
    sweep that needs secrets is given them before the first job is asked for.
    Raises SetupFailed where the environment can't be built, SweepError where it is not there.
    """

    def __init__(
        self,
        place: Workspace,
        sweep: Sweep,
        say: Callable[[str], None],
        cancelled: Callable[[], bool] = lambda: False,
        environment: Mapping[str, str] = os.environ,
        *,
        agree: Callable[[str, str | None], str | None] | None = None,
        number: Callable[[], int] | None = None,
    ) -> None:
        self._place, self._sweep, self._say, self._cancelled = place, sweep, say, cancelled
        self._environment = environment
        self._agree = agree or self._note
        self._made: dict[str, Job] = {}
        self._number = number or (lambda: len(self._made))
        self._held: list[int] = []
        self._lock = threading.Lock()  # held for minutes, where an environment is built
        self._giving = threading.Lock()  # guards the two below
        self._secrets: Secrets | None = None
        self._hidden: Hidden | None = None

    def give(self, secrets: Secrets) -> Hidden | None:
        """Have these in the jobs that are made from now on. What keepers are told of them: as long as the
        values are the same, the same."""
        needs = self._sweep.spec.secrets
        with self._giving:
            if needs and secrets != self._secrets:
                from sweepfw.trial.secrets import hidden

                self._secrets, self._hidden = secrets, hidden(needs, secrets)
            return self._hidden

    def __call__(self, snapshot: str) -> Job:
        job = self._made.get(snapshot)
        if job is None:
            with self._lock:
                job = self._made.get(snapshot) or self._make(snapshot)
                self._made[snapshot] = job
        return job

    def close(self) -> None:
        """Let go of the environments, so that they can be collected. No trial of the sweep runs any more."""
        while self._held:
            os.close(self._held.pop())

    def _make(self, snapshot: str) -> Job:
        spec, run = self._sweep.spec, self._place.run(self._sweep.name)
        found = self._resolve(snapshot)
        env = found.over(self._environment) | dict(spec.variables)
        env.setdefault("PYTHONUNBUFFERED", "1")
        env.pop(crash.VARIABLE, None)  # ours alone, also where a trial runs sweepfw
        env["PYTHONPATH"] = ":".join(filter(None, [env.get("PYTHONPATH"), INSIDE]))
        if spec.needs.gpus == 0:
            env["CUDA_VISIBLE_DEVICES"] = ""
        store = self._place.snapshots
        setup = Setup(
            env=env,
            snapshot=Snapshot(str(snapshots.manifest(store, snapshot)), str(snapshots.objects(store))),
            shared=str(self._shared(snapshot)) if spec.workdir == "shared" else None,
            timeout=spec.timeout,
            grace=spec.grace,
            log_limit=spec.log_limit,
            outputs=spec.outputs,
            output_limit=spec.output_limit,
            secrets=self._hidden,
        )
        return Job(self._number(), spec, setup, found.python, found.describe, run, self._roots(found, env))

    def _resolve(self, snapshot: str) -> Resolved:
        """The environment, locked to what the sweep's first build resolved to."""
        if self._sweep.spec.environment.kind != "requirements":
            return self._build(snapshot, None)
        lock = self._agree(snapshot, None)
        found = self._build(snapshot, lock)
        if lock is None and found.lock is not None:
            lock = self._agree(snapshot, found.lock)
            if lock is not None and lock != found.lock:  # another host was first
                found = self._build(snapshot, lock)
        return found

    def _build(self, snapshot: str, lock: str | None) -> Resolved:
        found = resolve(
            self._sweep.spec.environment,
            self._place,
            self._root(),
            snapshot,
            env=self._environment,
            lock=lock,
            say=self._say,
            cancelled=self._cancelled,
            secrets=self._hidden,
        )
        self._held += [] if found.held is None else [found.held]
        return found

    def _note(self, snapshot: str, text: str | None) -> str | None:
        file = self._place.run(self._sweep.name) / "environment" / f"{snapshot}.txt"
        if file.exists():
            return file.read_text()
        if text is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".part")  # half of it would be taken for the whole
            draft.write_text(text)
            crash.point("environment.agreed")
            draft.replace(file)
        return text

    def _roots(self, found: Resolved, env: Mapping[str, str]) -> tuple[str, ...]:
        """Where trials import the project from, if it is installed editable. Says what is not frozen."""
        installed, root = editables(found.python, env), self._root()
        for name, folder in outside(installed, root):
            self._say(f"warning: {name} is installed from {folder}, which is not frozen with the project")
        return import_roots(installed, root)

    def _root(self) -> Path:
        return Path(str(self._sweep.provenance.get("root", "")))

    def _shared(self, snapshot: str) -> Path:
        """One copy that all trials work in, read-only; made once per snapshot."""
        folder = self._place.state / "work" / snapshot
        if not folder.exists():
            draft = folder.with_name(f"{snapshot}.{os.getpid()}")
            draft.parent.mkdir(mode=0o700, exist_ok=True)
            snapshots.checkout(self._place.snapshots, snapshot, draft)
            for path in sorted(draft.rglob("*"), reverse=True):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o222)
            draft.chmod(0o555)
            try:
                draft.rename(folder)
            except OSError:  # another run was faster
                if not folder.exists():
                    raise
        return folder
