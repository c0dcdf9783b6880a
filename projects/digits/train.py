"""Train a small network on scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels.

Runs under sweepfw and without it: `python train.py --lr=0.01 --epochs=5`. Under sweepfw it reports its
metrics, keeps a checkpoint after every epoch, goes on from one that it finds, and keeps its model.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np
from network import Arrays, Network
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

try:
    from sweepfw import report
except ImportError:  # without sweepfw, numbers are only printed

    def report(step: object = None, **metrics: object) -> None: ...


def main() -> None:
    options = read_options()
    stop = StopSignal()
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    train, check, train_labels, check_labels = train_test_split(
        images, digits.target, test_size=0.25, random_state=options.seed, stratify=digits.target
    )
    network = Network([64, options.hidden, options.hidden, 10], options.opt, options.seed)
    checkpoint = Checkpoint(os.environ.get("SWEEPFW_CHECKPOINT"))
    done = checkpoint.restore(network.state)
    if done:
        print(f"going on after epoch {done}, from the checkpoint")
        tell(done, network, train, train_labels, check, check_labels, aloud=True)
    for epoch in range(done + 1, options.epochs + 1):
        # Each epoch has its own order and shifts: a run from a checkpoint sees what an unbroken one sees.
        rng = np.random.default_rng([options.seed, epoch])
        shuffled = rng.permutation(len(train))
        for start in range(0, len(train), options.batch):
            chosen = shuffled[start : start + options.batch]
            network.step(shifted(train[chosen], rng), train_labels[chosen], options.lr)
        checkpoint.save(network.state, epoch)
        aloud = epoch % 10 == 0 or epoch == options.epochs
        tell(epoch, network, train, train_labels, check, check_labels, aloud=aloud)
        if stop.asked and epoch < options.epochs:
            print(f"asked to stop: the checkpoint holds epoch {epoch}")
            sys.exit(128 + signal.SIGTERM)
    model = Path(os.environ.get("SWEEPFW_OUTPUT", ".")) / "model.npz"
    np.savez(model, **{name: array for name, array in network.state.items() if "." not in name})
    print(f"saved {model.name}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--hidden", type=int, default=128, help="width of the two hidden layers")
    parser.add_argument("--opt", choices=["sgd", "momentum", "adam"], default="adam")
    parser.add_argument("--lr", type=float, default=0.003, help="learning rate")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The images, each moved by up to one pixel in both directions: a digit is the same digit there."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(1, 2))
    down, right = rng.integers(0, 3, (2, len(images)))
    return windows[np.arange(len(images)), down, right].reshape(-1, 64)


def tell(epoch: int, network: Network, *data: np.ndarray, aloud: bool) -> None:
    """Report how well the network does on both halves of `data`: images, labels, to train on and to check."""
    loss, _ = network.evaluate(*data[:2])
    val_loss, val_accuracy = network.evaluate(*data[2:])
    report(loss=loss, val_loss=val_loss, val_accuracy=val_accuracy, step=epoch)
    if aloud:
        print(f"epoch {epoch:3}  loss {loss:.4f}  val_loss {val_loss:.4f}  val_accuracy {val_accuracy:.4f}")


class Checkpoint:
    """The training's state in one file of `folder`; without a folder it keeps nothing."""

    def __init__(self, folder: str | None) -> None:
        self.path = Path(folder, "checkpoint.npz") if folder else None

    def restore(self, state: Arrays) -> int:
        """Fill `state` with what was saved last; the epoch after which that was, 0 where there is nothing."""
        if self.path is None or not self.path.exists():
            return 0
        with np.load(self.path) as saved:
            for name in state:
                state[name] = saved[name]
            return int(saved["epoch"])

    def save(self, state: Arrays, epoch: int) -> None:
        """Replace the file as a whole: whoever is killed here leaves the old one or the new one."""
        if self.path is None:
            return
        draft = self.path.with_suffix(".tmp")
        with draft.open("wb") as file:
            np.savez(file, epoch=epoch, **state)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


class StopSignal:
    """Remembers SIGTERM, so that the epoch can end and be saved."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, *_: object) -> None:
        self.asked = True


if __name__ == "__main__":
    main()
