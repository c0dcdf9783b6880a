"""The sweep that chaos strikes: which trials it has, dealt by the seed, and its project's folder."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import witness

# How many of a hundred trials are of each kind; all others are calm.
SHARES = {"fail": 3, "signal": 3, "daemon": 8, "deaf": 4, "memory": 2, "disk": 2, "poison": 1}


def deal(
    seed: int,
    trials: int,
    shares: Mapping[str, float] = SHARES,
    seconds: tuple[float, float] = (0.05, 0.5),
) -> list[str]:
    """So many different cases, in a shuffled order. Every kind with a share comes at least once, where there
    are trials enough."""
    chance = random.Random(seed + 1)  # not the faults' own numbers
    kinds = [kind for kind, share in shares.items() for _ in range(max(1, round(share * trials / 100)))]
    kinds = kinds[:trials] + ["calm"] * (trials - len(kinds))
    chance.shuffle(kinds)
    return [
        witness.case(kind, round(chance.uniform(*seconds), 2), number) for number, kind in enumerate(kinds, 1)
    ]


def write_project(
    folder: Path,
    cases: Sequence[str],
    witnessed: str,
    more: str = "",
    poison: str = "keeper",
    secret: bytes | None = None,
) -> None:
    """A project of these trials. `witnessed`: the witness folder as trials see it; `more`: lines of
    project.yml; `poison`: what the poisoned ones kill; `secret`: what they expect in a file of theirs."""
    folder.mkdir(parents=True)
    shutil.copy(witness.__file__, folder / "witness.py")
    variables = [f"CHAOS_WITNESS: '{witnessed}'", f"CHAOS_POISON: {poison}"]
    if secret is not None:
        variables.append(f"CHAOS_SECRET: '{hashlib.sha256(secret).hexdigest()}'")
        more += f"secrets: {{{witness.SECRET}: file}}\n"
    (folder / "project.yml").write_text(
        'command: [python, witness.py, "{case}"]\n'
        f"variables: {{{', '.join(variables)}}}\n"
        "metrics: [proof]\nmax_failures: null\ngrace: 1\n" + more
    )
    (folder / "parameters.yml").write_text("case:\n" + "".join(f"  - {case}\n" for case in cases))
