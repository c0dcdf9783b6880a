"""A small neural network in numpy: layers with ReLU, softmax at the end, trained by gradient descent."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Arrays = dict[str, np.ndarray]


class Network:
    """`state` holds all that training changes: weights, biases, and what the optimizer remembers."""

    def __init__(self, sizes: list[int], opt: str, seed: int) -> None:
        if opt not in ("sgd", "momentum", "adam"):
            raise SystemExit(f"train.py: --opt must be sgd, momentum or adam, not {opt!r}")
        rng = np.random.default_rng(seed)
        self.opt = opt
        self.layers = range(len(sizes) - 1)
        self.state: Arrays = {"steps": np.zeros(())}
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            he = np.sqrt(2 / inputs)  # He et al. 2015: keeps the signal's size through ReLU layers
            self.state[f"w{layer}"] = rng.normal(0, he, (inputs, outputs)).astype(np.float32)
            self.state[f"b{layer}"] = np.zeros(outputs, np.float32)
        for name in [name for name in self.state if name != "steps"]:
            self.state[f"{name}.first"] = np.zeros_like(self.state[name])
            self.state[f"{name}.second"] = np.zeros_like(self.state[name])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Each image's probabilities, a row of ten."""
        return self._forward(images)[-1]

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Mean cross-entropy and the share of right answers."""
        found = self.predict(images)
        chosen = found[np.arange(len(labels)), labels]
        return float(-np.log(chosen + 1e-12).mean()), float((found.argmax(axis=1) == labels).mean())

    def step(self, images: np.ndarray, labels: np.ndarray, lr: float) -> None:
        """One batch: forward, backward, and a step of the optimizer."""
        activations = self._forward(images)
        self.state["steps"] += 1
        slope = activations[-1].copy()
        slope[np.arange(len(labels)), labels] -= 1
        slope /= len(labels)
        for layer in reversed(self.layers):
            inputs, weights = activations[layer], self.state[f"w{layer}"]
            below = (slope @ weights.T) * (inputs > 0)
            self._update(f"w{layer}", inputs.T @ slope, lr)
            self._update(f"b{layer}", slope.sum(axis=0), lr)
            slope = below

    def _forward(self, images: np.ndarray) -> list[np.ndarray]:
        values = [images]
        for layer in self.layers:
            sums = values[-1] @ self.state[f"w{layer}"] + self.state[f"b{layer}"]
            if layer == self.layers[-1]:
                sums = np.exp(sums - sums.max(axis=1, keepdims=True))
                values.append(sums / sums.sum(axis=1, keepdims=True))
            else:
                values.append(np.maximum(sums, 0))
        return values

    def _update(self, name: str, slope: np.ndarray, lr: float) -> None:
        first, second = self.state[f"{name}.first"], self.state[f"{name}.second"]
        if self.opt == "sgd":
            self.state[name] -= lr * slope
        elif self.opt == "momentum":
            first *= 0.9
            first += slope
            self.state[name] -= lr * first
        else:  # Kingma and Ba 2015
            steps = float(self.state["steps"])
            first += 0.1 * (slope - first)
            second += 0.001 * (slope * slope - second)
            scale = lr * np.sqrt(1 - 0.999**steps) / (1 - 0.9**steps)
            self.state[name] -= (scale * first / (np.sqrt(second) + 1e-8)).astype(np.float32)
