"""What dies is dead: whatever a trial starts and however it hides, nothing of it is left. Promise 2."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import family, marked

# All of them ignore SIGTERM, SIGHUP and SIGINT; SIG_IGN is inherited. The mark stands in their command lines.
# The trial says that all are there, and then ends or stays, as it is told; all that stays ends by itself.
HIDERS = """
trap '' TERM HUP INT
sleep 600.$MARK1 &                                                         # a child in the background
setsid sleep 600.$MARK2 > /dev/null 2>&1 < /dev/null &                     # in a session of its own
(setsid sh -c 'sleep 600.$MARK3 & :' > /dev/null 2>&1 < /dev/null &)       # a daemon, forked twice
env -i setsid /bin/sh -c 'exec /bin/sleep "$0"' 600.$MARK4 &               # without an environment
(cd / && setsid sh -c 'exec 0<&- 1>&- 2>&-; exec sleep 600.$MARK5') &      # without descriptors or our folder
# The last one forks on.
setsid sh -c 'trap "" TERM; for i in $(seq 9000); do sh -c "sleep 0.05; :" 9.$MARK6 & wait; done' 9.$MARK6 &
sleep 0.2
echo "all there" >> "$WITNESS"
test "$STAY" = no || sleep 600
"""


class Hidden:
    """A project whose trials hide processes, and who looks for them."""

    def __init__(self, make_project: Callable[..., Path], folder: Path) -> None:
        self.mark = f"{random.randrange(10**9):09}"
        self.witness = folder / "witness"
        self._make = make_project

    def project(self, *, stay: bool, keys: str = "grace: 0.3\n", name: str = "hide") -> None:
        marks = "".join(f", MARK{n}: '{self.mark}{n}'" for n in range(1, 7))
        self._make(
            name,
            f"command: [sh, hide.sh]\nvariables: {{WITNESS: '{self.witness}', STAY: {'yes' if stay else 'no'}"
            f"{marks}}}\n{keys}",
            files={"hide.sh": HIDERS},
        )

    def there(self) -> bool:
        """Whether all of them run, as the trial said and as is seen."""
        return self.told() and len(self.left()) >= 6

    def told(self) -> bool:
        return self.witness.exists() and "all there" in self.witness.read_text()

    def left(self) -> list[int]:
        return marked(self.mark)


@pytest.fixture
def hidden(make_project: Callable[..., Path], tmp_path: Path) -> Iterator[Hidden]:
    """Whatever a failed test leaves is killed."""
    lab = Hidden(make_project, tmp_path)
    yield lab
    for pid in lab.left():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def outcome(sweepfw: Callable[..., Any]) -> Callable[..., tuple[str, str, int]]:
    """State of the sweep's trial, reason and number of its last attempt."""

    def tell(sweep: str = "hide-1") -> tuple[str, str, int]:
        [trial] = json.loads(sweepfw("show", sweep, "--json").stdout)["trials"]
        last = trial["attempts"][-1]
        return trial["state"], last["reason"], last["attempt"]

    return tell


def test_at_the_normal_end(
    hidden: Hidden, sweepfw: Callable[..., Any], outcome: Callable[[], tuple[str, str, int]]
) -> None:
    hidden.project(stay=False)
    done = sweepfw("run", "hide")
    assert (done.returncode, hidden.left()) == (0, []), done
    assert hidden.told()
    assert outcome() == ("succeeded", "", 1)


def test_after_the_timeout(
    hidden: Hidden, sweepfw: Callable[..., Any], outcome: Callable[..., tuple[str, str, int]]
) -> None:
    """A slow machine gets more time until all are there."""
    for seconds in (2, 10, 60):
        name = f"hide{seconds}"
        hidden.project(stay=True, keys=f"timeout: {seconds}s\ngrace: 0.3\n", name=name)
        done = sweepfw("run", name)
        assert (done.returncode, hidden.left()) == (1, []), done
        assert outcome(f"{name}-1") == ("failed", "timeout", 1)
        if hidden.told():
            return
    raise AssertionError("they were never all there")


@pytest.mark.parametrize(
    ("order", "grace"), [(["hide-1"], 0.3), (["hide-1/1"], 0.3), (["hide-1", "--now"], 600), (["--all"], 0.3)]
)
def test_after_a_stop(
    order: list[str],
    grace: float,
    hidden: Hidden,
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    sweepfw: Callable[..., Any],
    outcome: Callable[[], tuple[str, str, int]],
    wait_until: Callable[..., None],
) -> None:
    hidden.project(stay=True, keys=f"grace: {grace}\n")
    process = start_sweepfw("run", "hide")
    wait_until(hidden.there)
    assert sweepfw("stop", *order).returncode == 0
    out, errors = process.communicate(timeout=60)
    assert (hidden.left(), errors) == ([], ""), out
    assert process.returncode == 3, out
    assert outcome()[0] == "cancelled"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_an_interrupt(
    kind: signal.Signals,
    hidden: Hidden,
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    outcome: Callable[[], tuple[str, str, int]],
    wait_until: Callable[..., None],
) -> None:
    """Once: the trial gets its grace, and is queued again. It tells what it does and what to type."""
    hidden.project(stay=True)
    process = start_sweepfw("run", "hide")
    wait_until(hidden.there)
    process.send_signal(kind)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, hidden.left(), errors) == (130, [], ""), out
    assert "interrupted: nothing new starts" in out and "sweepfw resume hide-1" in out
    assert outcome() == ("queued", "", 1)


def test_after_a_second_interrupt(
    hidden: Hidden,
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    outcome: Callable[[], tuple[str, str, int]],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """It ends at once, whatever the grace."""
    hidden.project(stay=True, keys="grace: 10m\n")
    with (tmp_path / "out").open("w") as out:
        process = start_sweepfw("run", "hide", stdout=out)
        wait_until(hidden.there)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "interrupted" in (tmp_path / "out").read_text())
        assert process.poll() is None and len(hidden.left()) >= 5, "the grace is not over"
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert (process.returncode, hidden.left()) == (130, [])
    assert outcome() == ("queued", "", 1)


@pytest.mark.parametrize("victim", ["cli", "sweepfw-guard", "sweepfw-keeper"])
def test_after_a_kill(
    victim: str,
    hidden: Hidden,
    start_sweepfw: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[..., None],
) -> None:
    hidden.project(stay=True, keys="grace: 10m\n")
    process = start_sweepfw("run", "hide", "-q", "-j", "1")
    wait_until(hidden.there)
    [pid] = [process.pid] if victim == "cli" else family(process.pid)[victim]
    before = set(hidden.left())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not before & set(hidden.left()), what="what the trial started is gone")
    if victim == "sweepfw-keeper":  # the trial runs again, in another keeper
        wait_until(lambda: len(hidden.left()) >= 6, what="the trial's next attempt")
        process.kill()
    process.wait(60)
    wait_until(lambda: not hidden.left(), what="nothing is left")
