"""What an attempt's end was, and what may follow it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from sweepfw.core.model import AttemptState

TRIES_WHEN_LOST = 3  # so many losses beside others; then the trial runs alone, and a loss alone is poison

# What the frameworks print when a GPU is full: PyTorch, CUDA itself, TensorFlow, JAX, CuPy.
_GPU_FULL = re.compile(
    r"CUDA out of memory|OutOfMemoryError: CUDA|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|RESOURCE_EXHAUSTED|OOM when allocating tensor|HIP out of memory|cupy\.cuda\.memory\.OutOfMemoryError"
)

STOPPED_TO_GO_ON = "interrupted"  # the text given to a keeper's stop when the trial is to run again


def judge(told: Mapping[str, Any], tail: str = "") -> tuple[AttemptState, str]:
    """The state and reason of an attempt, from what its keeper told and the last of its output.

    What we ended is named by why we did, whatever the trial made of its SIGTERM.
    """
    if error := told.get("error"):
        return "failed", str(error["kind"])
    if told.get("ended_by") == "stop":
        return ("interrupted", "") if told.get("why") == STOPPED_TO_GO_ON else ("cancelled", "")
    if told.get("ended_by") == "timeout":
        return "failed", "timeout"
    if told.get("ended_by") == "output_limit":
        return "failed", "output too large"
    return _by_exit(told, tail)


def _by_exit(told: Mapping[str, Any], tail: str) -> tuple[AttemptState, str]:
    code, signal = told.get("exit_code"), told.get("signal")
    if code == 0 and not signal:
        return "succeeded", ""
    if told.get("oom"):
        return "failed", "out of memory"
    if _GPU_FULL.search(tail):
        return "failed", "gpu out of memory"
    return "failed", f"signal {signal}" if signal else f"exit {code}"


def may_retry(reason: str, retries: tuple[tuple[str, int], ...], failures: Mapping[str, int]) -> bool:
    """Whether a trial that failed for this reason runs again. `failures`: earlier ones since it was opened.

    A rule is for a reason (`exit 3`), a kind of reason (`exit`, `signal`) or for any (`*`); the most exact
    one counts, and it counts the failures that it matches.
    """
    rules = dict(retries)
    for rule in (reason, reason.split(maxsplit=1)[0], "*"):
        if rule in rules:
            before = sum(n for earlier, n in failures.items() if _matches(rule, earlier))
            return before < rules[rule]
    return False


def _matches(rule: str, reason: str) -> bool:
    return rule in ("*", reason, reason.split(maxsplit=1)[0])


def after_loss(losses: int, alone: bool) -> Literal["again", "alone", "poison"]:
    """What follows when an attempt was lost with its keeper, worker or host; `losses` before this one."""
    if alone:
        return "poison"
    return "again" if losses + 1 < TRIES_WHEN_LOST else "alone"
