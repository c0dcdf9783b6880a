"""What sweepfw's promises stand on, taken out one at a time in a copy of the tree: tests must go red.

`scripts/mutate` does all of it, or what is named; `--list` shows them. A mutation is a piece of the source's
text and what takes its place: where the text is not there any more, that is an error, and not a mutation that
nobody noticed. Noticed is what makes a test fail: tests that can't begin, or don't end, are an error too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sweepfw.trial.guard.reap import become_subreaper, kill_children

ROOT = Path(__file__).parents[2]
PARTS = ("sweepfw", "tests", "projects", "docker", "scripts", "pyproject.toml")
FAILED = 1  # pytest's code for tests that failed; all others are errors of ours
PATIENCE = 500.0  # seconds


class Patch(NamedTuple):
    """`old` stands once in the file, below sweepfw/."""

    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    """`tests` are the ones that must notice. `broker`: they need one, and take more than some seconds."""

    name: str
    promise: str
    patches: tuple[Patch, ...]
    tests: tuple[str, ...]
    broker: bool = False


LEASES = "tests/engine/test_head_leases.py"
CRASHES = "tests/ledger/test_ledger_crashes.py"
CONTRACT, ACCESS = "tests/ledger/test_ledger_contract.py", "tests/ledger/test_service_access.py"

MUTATIONS = (
    Mutation(
        "token",
        "an end told with a token that is not the trial's current one is recorded as stale",
        (Patch("ledger/protocol.py", '            if row[3] != "running":\n', "            if False:\n"),),
        (f"{CONTRACT}::test_an_end_of_an_old_attempt_is_kept_as_stale",),
    ),
    Mutation(
        "token of another host",
        "a worker speaks for attempts of its own host only",
        (
            Patch(
                "ledger/wire/answers.py",
                "            if not access.may_ask(call.caller, arguments, self._host_of):\n",
                "            if False:\n",
            ),
        ),
        (f"{ACCESS}::test_a_worker_speaks_for_its_own_host_only",),
    ),
    Mutation(
        "accepted once",
        "the first end of an attempt stands, and is told again to who asks again",
        (Patch("ledger/protocol.py", "            if row[4] is not None:\n", "            if False:\n"),),
        (f"{CONTRACT}::test_the_first_outcome_stands_and_is_told_again",),
    ),
    Mutation(
        "accepted is never run again",
        "a trial is granted while it is queued, and not after its end",
        (
            Patch("ledger/rules.py", '    if trial != "queued":\n', "    if False:\n"),
            Patch(
                "ledger/protocol.py",
                "WHERE sweep = ? AND number = ? AND state = 'queued'\n",
                "WHERE sweep = ? AND number = ?\n",
            ),
        ),
        (f"{CRASHES}::test_what_has_its_success_is_granted_to_nobody",),
    ),
    Mutation(
        "lease",
        "an attempt that nobody hears of any more loses its lease",
        (
            Patch(
                "engine/leases.py",
                "return [token for token, deadline in self._deadlines.items() if deadline <= now]",
                "return []",
            ),
        ),
        (f"{LEASES}::test_a_silent_attempt_is_queued_again_after_its_lease",),
    ),
    Mutation(
        "renewal",
        "who renews keeps it",
        (
            Patch(
                "engine/leases.py",
                "            answer = super().renew(token)\n            self.leases.hold(token)\n",
                "            answer = super().renew(token)\n",
            ),
        ),
        (f"{LEASES}::test_who_renews_keeps_it",),
    ),
    Mutation(
        "grace after a head start",
        "leases begin anew when the head does: it could not hear anybody before",
        (
            Patch(
                "engine/leases.py",
                "                leases.hold(attempt.token)\n",
                "                leases._deadlines[attempt.token] = leases._clock()\n",
            ),
        ),
        (f"{LEASES}::test_a_new_head_starts_all_anew",),
    ),
    Mutation(
        "grace after a gap",
        "leases begin anew when the head itself stood still",
        (
            Patch(
                "engine/leases.py",
                "            if now - before > self.length / 4:\n",
                "            if False:\n",
            ),
        ),
        (f"{LEASES}::test_a_gap_in_the_reapers_own_loop_starts_all_anew",),
    ),
    Mutation(
        "reconciler",
        "what was sent and not claimed is sent again",
        (
            Patch(
                "engine/board.py",
                "Sent(worker, load, task, self._clock() + pause, pause)",
                "Sent(worker, load, task, self._clock() + 1e9, pause)",
            ),
        ),
        ("tests/engine/test_head_scheduler.py::test_what_nobody_claimed_is_sent_again_under_the_same_id",),
        broker=True,
    ),
    Mutation(
        "broker lost its messages",
        "a new connection to the broker has everything sent again",
        (
            Patch(
                "engine/scheduler.py",
                "            self.board.missed_all()  # a broker that was wiped has lost it all\n",
                "            pass\n",
            ),
            Patch(
                "engine/board.py",
                "Sent(worker, load, task, self._clock() + pause, pause)",
                "Sent(worker, load, task, self._clock() + 1e9, pause)",
            ),
        ),
        ("tests/engine/test_head_scheduler.py::test_a_broker_that_was_restarted_costs_no_trial",),
        broker=True,
    ),
    Mutation(
        "guardian",
        "what dies is dead: nothing of a trial outlives its worker",
        (
            Patch(
                "trial/guard/keeper.py",
                "            kill_children(seconds=_KILL_ABANDONED)\n",
                "            pass\n",
            ),
            Patch(
                "trial/guard/guardian.py",
                "        kill_children(seconds=_KILL)\n        for child",
                "        for child",
            ),
        ),
        ("tests/trial/test_guard_death.py::test_killed",),
    ),
    Mutation(
        "written ends",
        "an end that was written is delivered, and the trial does not run again",
        (
            Patch(
                "trial/attempt.py",
                "        if grant and (outcome := recall(folder, grant, sweep.spec)):\n",
                "        if (outcome := None) and grant:\n",
            ),
        ),
        ("tests/chaos/test_crash_here.py::test_whatever_dies_here_is_finished[attempt.heard:2]",),
    ),
)


class MutationError(Exception):
    """A mutation that can't be made, or tests that can't be run."""


def copy(folder: Path) -> None:
    """The tree, as far as tests need it."""
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, folder / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, folder / part)


def patch(folder: Path, mutation: Mutation) -> None:
    for file, old, new in mutation.patches:
        path = folder / "sweepfw" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise MutationError(
                f"{mutation.name}: sweepfw/{file} has this {text.count(old)} times, not once: {old!r}"
            )
        path.write_text(text.replace(old, new))


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code, and what it said; MutationError where it does not end."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYTHONPATH": str(folder), "CI": "1"}
    with tempfile.TemporaryFile() as said:  # a pipe would be held open by what tests leave behind
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise MutationError(f"{' '.join(tests)}: no end after {PATIENCE:.0f} s") from None
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        return process.returncode, said.read().decode(errors="replace")


def check_unpatched(mutations: Sequence[Mutation], folder: Path) -> str:
    """All their tests, in a copy in which nothing is changed; MutationError where one is red."""
    copy(folder)
    code, said = run_tests(folder, sorted({test for each in mutations for test in each.tests}))
    if code != 0:
        raise MutationError(f"red without any mutation (pytest: {code})\n{said[-2000:]}")
    return "green"


def notice(mutation: Mutation, folder: Path) -> str:
    """Which test noticed; MutationError where none did."""
    copy(folder)
    patch(folder, mutation)
    code, said = run_tests(folder, mutation.tests)
    if code == 0:
        raise MutationError(f"{mutation.name}: NOT NOTICED by {' '.join(mutation.tests)}")
    if code != FAILED:
        raise MutationError(f"{mutation.name}: its tests can't be run (pytest: {code})\n{said[-2000:]}")
    found = re.search(r"^FAILED (\S+)", said, re.MULTILINE)
    if not found:
        raise MutationError(f"{mutation.name}: no test failed, but they went wrong\n{said[-2000:]}")
    return f"red: {found[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutations only")
    parser.add_argument("--unpatched", action="store_true", help="their tests without them: green")
    parser.add_argument("--list", action="store_true", help="show them, and do nothing")
    options = parser.parse_args()
    become_subreaper()
    if unknown := set(options.names) - {each.name for each in MUTATIONS}:
        parser.error(f"no mutation {', '.join(sorted(unknown))}; --list shows them")
    chosen = [each for each in MUTATIONS if not options.names or each.name in options.names]
    if options.list:
        for mutation in chosen:
            print(f"{mutation.name:30} {mutation.promise}")
        return 0
    well = [_try(each.name, partial(notice, each)) for each in chosen if not options.unpatched]
    if options.unpatched or not options.names:
        well.append(_try("none of them", partial(check_unpatched, chosen)))
    return 0 if all(well) else 1


def _try(name: str, check: Callable[[Path], str]) -> bool:
    """In a folder of its own; nothing that ran there lives on."""
    begun, well = time.monotonic(), True
    with tempfile.TemporaryDirectory(prefix="sweepfw-mutation-") as folder:
        try:
            told = check(Path(folder))
        except MutationError as error:
            well, told = False, str(error)
        finally:
            kill_children(seconds=5)  # without a guardian, what tests began may live on
    print(f"{name:30} {time.monotonic() - begun:6.1f} s  {told}", flush=True)
    return well


if __name__ == "__main__":
    sys.exit(main())
