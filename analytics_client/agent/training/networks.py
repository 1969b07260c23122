"""Gradients of single rows of a network, by PyTorch. Imported only where PyTorch is installed.

Forward and backward run over the whole block; a row's gradient of a layer's weights is then the outer product of what
came into the layer and what came back to it, written straight to its place. `torch.func.vmap` gives the same, more
slowly, and is what the tests hold this to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from queries.training.design import Floats
from queries.training.gradients import Gradients


def network_gradients(statistic: Gradients) -> Any:
    """Return `descent.RowGradients` of a network: cross entropy for categories, half the squared error for numbers."""
    layers = statistic.layers

    def gradients(values: Mapping[str, Floats], theta: Floats) -> NDArray[np.float32]:
        with torch.no_grad():
            x = torch.from_numpy(statistic.design.matrix(values).astype(np.float32))
            y = torch.from_numpy(statistic.label(values).astype(np.float32))
            weights = torch.from_numpy(theta.astype(np.float32))
            incoming, places = [x], []
            start = 0
            for inputs, outputs in layers:
                middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
                places.append((start, middle, end))
                start = end
            for number, (place, (inputs, outputs)) in enumerate(zip(places, layers, strict=True)):
                x = torch.addmm(weights[place[1] : place[2]], x, weights[place[0] : place[1]].view(inputs, outputs))
                if number < len(layers) - 1:
                    x = torch.relu_(x)
                    incoming.append(x)
            back = _back(x, y, statistic.classes) / statistic.how.clip
            out = torch.empty(len(y), statistic.width)
            for number in reversed(range(len(layers))):
                (inputs, outputs), (first, middle, end) = layers[number], places[number]
                into = out[:, first:middle].view(len(y), inputs, outputs)
                torch.mul(incoming[number].unsqueeze(2), back.unsqueeze(1), out=into)
                out[:, middle:end] = back
                if number:
                    back = back @ weights[first:middle].view(inputs, outputs).T
                    back *= incoming[number] > 0
        found: NDArray[np.float32] = out.numpy()
        return found

    return gradients


def _back(scores: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return the derivative of each row's loss by the last layer's outputs. A label that is none gives NaN."""
    if not classes:
        return scores - y.unsqueeze(1)
    chances = torch.softmax(scores, dim=1)
    sound = (y >= 0) & (y < classes)
    chances -= torch.nn.functional.one_hot(torch.where(sound, y, 0).long(), classes)
    return torch.where(sound.unsqueeze(1), chances, torch.nan)
