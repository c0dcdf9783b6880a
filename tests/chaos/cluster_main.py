"""What `scripts/chaos lab` does."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

import cluster
import report
from cluster_faults import KINDS
from cluster_scene import USUAL, Options

WORDS = {name: kind.what for name, kind in KINDS.items()}


def usual(trials: int) -> float:
    return max(USUAL, 0.42 * trials)


def main(arguments: Sequence[str]) -> int:
    parser = report.parser("lab", WORDS, seconds=USUAL)
    parser.add_argument("--hosts", type=int, default=3, help="how many, three at least [default: 3]")
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        help="how often infra up and infra down are killed first [default: 0]",
    )
    given = parser.parse_args(arguments)
    if given.list:
        print(report.kinds_text(WORDS), end="")
        return 0
    seed = random.randrange(10**6) if given.seed is None else given.seed
    words = [*arguments, *([] if given.seed is not None else ["--seed", str(seed)])]
    options = Options(
        seed,
        given.trials,
        given.faults,
        report.chosen(WORDS, given.kinds),
        given.seconds or usual(given.trials),
        max(3, given.hosts),
        given.restarts,
        words,
    )
    folder = Path(tempfile.mkdtemp(prefix="sweepfw-chaos-"))
    try:
        told = cluster.run(options, folder, say=lambda text: print(text, flush=True))
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(told.text())
    if given.report:
        told.write(given.report)
    return 1 if told.breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
