"""What a run of chaos found: for people, and for comparison."""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from invariants import Breach

MOST = 20  # breaches that are printed; the report has all


@dataclass
class Strike:
    """A fault as it happened. `result` is what came of it, in a word or two; empty: nothing to say. `struck`
    False: there was nobody to strike, or it could not be done."""

    at: float
    kind: str
    victim: str = ""
    result: str = ""
    struck: bool = True


@dataclass
class Report:
    """`side`: here or lab. `figures`: what was measured, by name."""

    side: str
    seed: int
    trials: int
    arguments: Sequence[str]
    strikes: list[Strike] = field(default_factory=list)
    breaches: list[Breach] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def command(self) -> str:
        """What runs it again."""
        return " ".join(["scripts/chaos", self.side, *self.arguments])

    @property
    def verdict(self) -> str:
        missed = sum(not each.struck for each in self.strikes)
        what = f"{self.trials} trials, {len(self.strikes)} faults{f' ({missed} missed)' if missed else ''}"
        if not self.breaches:
            return f"{what}: no promise broken"
        counted = Counter(breach.invariant for breach in self.breaches)
        told = ", ".join(f"{name}: {n}" for name, n in counted.items())
        return f"{what}: {len(self.breaches)} breaches ({told})"

    def text(self) -> str:
        """For the terminal."""
        lines = [f"seed {self.seed}    again: {self.command}", ""]
        lines += [
            f"  {one.at:8.2f} s  {one.kind:<16} {one.victim:<26} {one.result}".rstrip()
            for one in self.strikes
        ]
        lines += ["", *(f"  {name}: {value}" for name, value in self.figures.items())]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  BREACH  {breach}" for breach in self.breaches[:MOST]]
        if len(self.breaches) > MOST:
            lines.append(f"  ... and {len(self.breaches) - MOST} more in the report")
        return "\n".join([*lines, "", f"{self.verdict}, in {self.seconds:.0f} s", ""])

    def markdown(self) -> str:
        """For the report's folder."""
        lines = [f"# Chaos, {self.side}, seed {self.seed}", "", f"{self.verdict}.", ""]
        lines += [f"Again: `{self.command}`", "", "| s | fault | struck | result |", "|---|---|---|---|"]
        lines += [f"| {one.at:.2f} | {one.kind} | {one.victim} | {one.result} |" for one in self.strikes]
        lines += ["", *(f"- {name}: {value}" for name, value in self.figures.items())]
        lines += [f"- {note}" for note in self.notes]
        if self.breaches:
            lines += ["", "## Breaches", "", *(f"- {breach}" for breach in self.breaches)]
        return "\n".join([*lines, ""])

    def write(self, folder: Path) -> None:
        """report.json and report.md in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        told: Mapping[str, Any] = {
            **asdict(self),
            "breaches": [breach._asdict() for breach in self.breaches],
            "command": self.command,
            "verdict": self.verdict,
            "python": platform.python_version(),
        }
        (folder / "report.json").write_text(json.dumps(told, indent=2) + "\n")
        (folder / "report.md").write_text(self.markdown())


def parser(side: str, kinds: Mapping[str, str], *, seconds: float) -> argparse.ArgumentParser:
    """The options that both sides share. `kinds`: each fault with its sentence; `seconds`: the usual span."""
    made = argparse.ArgumentParser(
        prog=f"scripts/chaos {side}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds of faults:\n" + kinds_text(kinds),
    )
    made.add_argument("--seed", type=int, help="of faults and trials [default: a random one, printed]")
    made.add_argument("--trials", type=int, default=100, help="[default: 100]")
    made.add_argument("--faults", type=int, default=10, help="[default: 10]")
    made.add_argument("--kinds", help="kinds of faults, with commas between them [default: all]")
    made.add_argument(
        "--seconds",
        type=float,
        help=f"over which the faults are spread [default: by trials; {seconds:g} for 100]",
    )
    made.add_argument("--report", type=Path, help="a folder for report.json and report.md")
    made.add_argument("--keep", action="store_true", help="leave the workspace where it is, to be looked at")
    made.add_argument("--list", action="store_true", help="say which kinds of faults there are")
    return made


def kinds_text(kinds: Mapping[str, str]) -> str:
    return "".join(f"  {name:<16} {what}\n" for name, what in kinds.items())


def chosen(kinds: Mapping[str, str], wanted: str | None) -> list[str]:
    """The kinds that were asked for; SystemExit for one that there is not."""
    names = [name.strip() for name in wanted.split(",")] if wanted else list(kinds)
    for name in names:
        if name not in kinds:
            raise SystemExit(f"--kinds: there is no {name!r}; there are: {', '.join(kinds)}")
    return names
