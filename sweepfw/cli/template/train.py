"""Fits a line to noisy points by gradient descent. Put your own training here."""

import argparse
import json
import math
import os
from pathlib import Path

try:
    import sweepfw  # there in every trial
except ImportError:  # run by hand, without sweepfw: nothing is reported
    sweepfw = None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--momentum", type=float, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()

    points = make_points()
    # The checkpoint belongs to the trial: if it is interrupted, the next attempt goes on from here.
    saved = Path(os.environ.get("SWEEPFW_CHECKPOINT", "checkpoint")) / "state.json"
    state = {"epoch": 0, "w": [0.0, 0.0], "v": [0.0, 0.0]}
    if saved.exists():
        state = json.loads(saved.read_text())
        print("going on after epoch", state["epoch"])

    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        loss = descend(points, state, args.lr, args.momentum)
        state["epoch"] = epoch
        print(f"epoch {epoch}: loss {loss:.4f}")
        if sweepfw:
            sweepfw.report(loss=loss, step=epoch)
        save(state, saved)

    # What lies in this folder is kept as the trial's output files.
    save(state["w"], Path(os.environ.get("SWEEPFW_OUTPUT", "output")) / "model.json")


def make_points():
    return [(x / 50, 3 * x / 50 - 1 + 0.1 * math.sin(37 * x)) for x in range(100)]


def descend(points, state, lr, momentum):
    """One step down; the mean squared error before it."""
    errors = [(x, state["w"][0] * x + state["w"][1] - y) for x, y in points]
    slopes = [sum(2 * e * x for x, e in errors), sum(2 * e for _, e in errors)]
    for i, slope in enumerate(slopes):
        state["v"][i] = momentum * state["v"][i] - lr * slope / len(points)
        state["w"][i] += state["v"][i]
    return sum(e * e for _, e in errors) / len(points)


def save(data, path):
    """Write beside, then rename: whoever is killed here leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(data))
    beside.replace(path)


if __name__ == "__main__":
    main()
