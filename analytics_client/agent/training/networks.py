"""Gradients of a network, by PyTorch: of single rows, and of means. Imported only where PyTorch is installed.

Forward and backward run over the whole block; a row's gradient of a layer's weights is then the product of what came
into the layer and what came back to it, written straight to its place (for convolutions summed over patches).
`torch.func.vmap` gives the same, more slowly, and is what the tests hold this to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.layers import Convolution, Layer


class NetworkGradients:
    """`descent.LocalGradients` of a network: cross entropy for categories, half the squared error for numbers."""

    def __init__(self, statistic: Gradients) -> None:
        self._statistic = statistic

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.float32]:
        """Return one gradient a row, divided by the clip. A label that is none gives NaN."""
        statistic = self._statistic
        weights, (x, y) = _tensor(theta), self._inputs(values)
        incoming, scores = _forward(statistic, x, weights, keep=True)
        sound = _sound(y, statistic.classes)
        backs = torch.autograd.grad(self._losses(scores[-1], y).sum() / statistic.how.clip, scores)
        out = torch.empty(len(y), statistic.width)
        start = 0
        for layer, into, back in zip(statistic.layers, incoming, backs, strict=True):
            middle, end = start + layer.inputs * layer.outputs, start + layer.width
            place = out[:, start:middle].view(len(y), layer.inputs, layer.outputs)
            if isinstance(layer, Convolution):
                flat = back.flatten(2)
                torch.bmm(_patches(layer, into), flat.transpose(1, 2), out=place)
                out[:, middle:end] = flat.sum(2)
            else:
                torch.mul(into.unsqueeze(2), back.unsqueeze(1), out=place)
                out[:, middle:end] = back
            start = end
        out[~sound] = torch.nan
        found: NDArray[np.float32] = out.numpy()
        return found

    def mean(self, values: Mapping[str, Floats], theta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the gradient of the mean loss over the rows that hold numbers only, and a label that is one."""
        statistic = self._statistic
        weights, (x, y) = _tensor(theta).requires_grad_(), self._inputs(values)
        sound = _sound(y, statistic.classes) & torch.isfinite(x.flatten(1)).all(1)
        if not sound.all():
            x, y = x[sound], y[sound]
        if not len(y):
            return np.zeros(statistic.width, dtype=np.float32)
        _, scores = _forward(statistic, x, weights, keep=False)
        (gradient,) = torch.autograd.grad(self._losses(scores[-1], y).mean(), weights)
        found: NDArray[np.float32] = gradient.numpy()
        return found

    def _inputs(self, values: Mapping[str, Floats]) -> tuple[Tensor, Tensor]:
        x = self._statistic.arrange(self._statistic.design.matrix(values))
        return _tensor(x), _tensor(self._statistic.label(values))

    def _losses(self, scores: Tensor, y: Tensor) -> Tensor:
        if not self._statistic.classes:
            return (scores[:, 0] - y) ** 2 / 2
        known = torch.where(_sound(y, self._statistic.classes), y, 0).long()
        return functional.cross_entropy(scores, known, reduction="none")


def _forward(statistic: Gradients, x: Tensor, weights: Tensor, *, keep: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return what comes into every layer, and its outputs before they are rectified.

    With `keep`, gradients of the outputs can be taken; else of the weights, and nothing is kept of the layers between.
    """
    incoming: list[Tensor] = []
    outputs: list[Tensor] = []
    for layer, (matrix, biases) in zip(statistic.layers, _parts(statistic.layers, weights), strict=True):
        if isinstance(layer, Convolution):
            shape = (layer.outputs, layer.channels, layer.kernel, layer.kernel)
            score = functional.conv2d(x, matrix.T.reshape(shape), biases, padding=layer.kernel // 2)
        else:
            x = x.flatten(1)
            score = torch.addmm(biases, x, matrix)
        if keep and not outputs:
            score.requires_grad_()
        incoming.append(x.detach())
        outputs.append(score)
        if layer is not statistic.layers[-1]:
            x = torch.relu(score)
            if isinstance(layer, Convolution) and layer.pool > 1:
                x = functional.max_pool2d(x, layer.pool)
    return incoming, outputs


def _parts(layers: tuple[Layer, ...], weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    start = 0
    for layer in layers:
        middle, end = start + layer.inputs * layer.outputs, start + layer.width
        yield weights[start:middle].view(layer.inputs, layer.outputs), weights[middle:end]
        start = end


def _patches(layer: Convolution, x: Tensor) -> Tensor:
    """Return the patches that a convolution sees, shape (rows, inputs, places)."""
    return functional.unfold(x, layer.kernel, padding=layer.kernel // 2)


def _sound(y: Tensor, classes: int) -> Tensor:
    return (y >= 0) & (y < classes) if classes else torch.isfinite(y)


def _tensor(values: Floats | NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
