"""What a model from outside the catalogue offers: a Python package with an entry point in the group `cohortium.models`.

A steward installs the package at the agent and names it, with the hash of its wheel, in agent.toml; a job only names
it. The entry point is a callable (inputs, outputs) that returns a `PackageModel`; so any framework can be used, and
`analytics_client.models.pytorch`, `.jax` and `.sklearn` are adapters for three.

    # pyproject.toml of the package
    [project.entry-points."cohortium.models"]
    tiny-net = "tiny_net:model"

    # tiny_net.py
    def model(inputs, outputs):
        return TorchModel(nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs)))

An agent asks for the gradient of one person at a time, so that none can depend on another's row whatever the package
does; it clips and rounds each gradient itself. What fails, or is no number, adds nothing. Must not know: jobs, agents.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

GROUP = "cohortium.models"
Singles: TypeAlias = NDArray[np.float32]
Block: TypeAlias = tuple[int, float]
"""So many numbers, which begin evenly drawn between minus and plus so much: by a public seed, so that all agree."""


class PackageModel(Protocol):
    """A model with numbers `theta` in one vector; `inputs` are columns scaled to -1..1 and indicators of categories.

    `y` is the code of a category, from 0, where `outputs` is above 1; else a number scaled to -1..1.
    """

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the vector holds, in order."""

    def gradient(self, theta: Singles, x: Singles, y: float) -> Singles:
        """Return the gradient of one row's loss, shape as theta. `theta` and `x`, shape (inputs,), are not writable."""

    def loss(self, theta: Singles, x: Singles, y: float) -> float:
        """Return one row's loss."""


def width_of(model: PackageModel) -> int:
    """Return how many numbers a model has."""
    return sum(count for count, _ in model.blocks)


def check_gradient(model: PackageModel, theta: Singles, x: Singles, y: float, *, step: float = 1e-2) -> float:
    """Return how far the gradient is from differences of the loss, relative to its length: for a package's own tests.

    Compared along eight fixed directions, in single precision; well below 0.05 for a gradient of a smooth loss.
    """
    found = np.asarray(model.gradient(theta, x, y), dtype=np.float64)
    worst = 0.0
    for number in range(8):
        way = np.random.default_rng(number).normal(size=len(theta))
        way /= np.linalg.norm(way)
        ahead, back = (theta + step * way).astype(np.float32), (theta - step * way).astype(np.float32)
        slope = (model.loss(ahead, x, y) - model.loss(back, x, y)) / (2 * step)
        worst = max(worst, abs(float(found @ way) - slope))
    return worst / max(float(np.linalg.norm(found)), 1e-6)
