"""Gradients of single rows of a network, by PyTorch's `torch.func`. Imported only where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from queries.training.design import Floats
from queries.training.gradients import Gradients


def network_gradients(statistic: Gradients) -> Any:
    """Return `descent.RowGradients` of a network: cross entropy for categories, half the squared error for numbers."""

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        start = 0
        for number, (inputs, outputs) in enumerate(statistic.layers):
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            x = x @ theta[start:middle].reshape(inputs, outputs) + theta[middle:end]
            start = end
            if number < len(statistic.layers) - 1:
                x = torch.relu(x)
        if statistic.classes:
            return torch.nn.functional.cross_entropy(x, y.long())
        return (x[0] - y) ** 2 / 2

    each = vmap(grad(loss), in_dims=(None, 0, 0))

    def gradients(values: Mapping[str, Floats], theta: Floats) -> NDArray[np.float32]:
        x = torch.from_numpy(statistic.design.matrix(values).astype(np.float32))
        y = torch.from_numpy(statistic.label(values).astype(np.float32))
        with torch.no_grad():
            found: Tensor = each(torch.from_numpy(theta.astype(np.float32)), x, y)
        out: NDArray[np.float32] = (found / statistic.how.clip).numpy()
        return out

    return gradients
