"""The layers of a network as data: how many numbers each has, where they begin, and what it predicts without PyTorch.

A layer's weights are a matrix (inputs, outputs), row by row, before its biases; a convolution's inputs are the numbers
of one patch, channel by channel, each row by row. Must not know: jobs, PyTorch, rows of a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layer:
    """An affine map of vectors, `inputs` to `outputs` numbers."""

    inputs: int
    outputs: int

    @property
    def width(self) -> int:
        """How many numbers it has."""
        return (self.inputs + 1) * self.outputs

    @property
    def work(self) -> int:
        """How many numbers a row takes while it passes."""
        return self.inputs + self.outputs

    def forward(self, x: Floats, weights: Floats, biases: Floats) -> Floats:
        """Return outputs, shape (rows, outputs), of x, shape (rows, inputs)."""
        out: Floats = x @ weights + biases
        return out


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """The same affine map of every patch of an image (channels, height, width), padded with zeros to keep its size.

    What comes out is rectified, and the largest of every `pool` x `pool` square is kept; an incomplete square is not.
    """

    channels: int
    high: int
    wide: int
    kernel: int
    pool: int

    @property
    def work(self) -> int:
        """How many numbers a row takes while it passes: its patches."""
        return (self.inputs + 2 * self.outputs) * self.high * self.wide

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what comes out."""
        return self.outputs, self.high // self.pool, self.wide // self.pool

    def forward(self, x: Floats, weights: Floats, biases: Floats) -> Floats:
        """Return outputs after the pooling, shape (rows, *out_shape), of x, shape (rows, channels, height, width)."""
        margin = self.kernel // 2
        padded = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        windows = sliding_window_view(padded, (self.kernel, self.kernel), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(x), self.high, self.wide, self.inputs)
        scores = np.maximum(patches @ weights + biases, 0.0)
        _, high, wide = self.out_shape
        squares = scores[:, : high * self.pool, : wide * self.pool]
        squares = squares.reshape(len(x), high, self.pool, wide, self.pool, self.outputs)
        out: Floats = squares.max(axis=(2, 4)).transpose(0, 3, 1, 2)
        return out


def dense(widths: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return layers from each width to the next."""
    return tuple(Layer(inputs, outputs) for inputs, outputs in pairwise(widths))


def convolutions(
    image: tuple[int, int, int], filters: tuple[int, ...], kernel: int, pool: int
) -> tuple[tuple[Convolution, ...], int]:
    """Return convolutions over an image of (height, width, channels), and how many numbers come out of the last."""
    high, wide, channels = image
    out = []
    for outputs in filters:
        out.append(Convolution(channels * kernel**2, outputs, channels, high, wide, kernel, pool))
        channels, high, wide = out[-1].out_shape
    return tuple(out), channels * high * wide
