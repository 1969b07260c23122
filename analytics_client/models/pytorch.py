"""A PyTorch module as a model of a package: gradients by `torch.func`. Must not know: jobs, agents."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.nn import functional

from analytics_client.models import Block, Singles


class TorchModel:
    """A module from (1, inputs) to (1, outputs): cross entropy where `outputs` is above 1, else half the squared error.

    Numbers lie in the order of `module.named_parameters()`. Matrices and kernels begin within 1 / sqrt(fan-in), as
    PyTorch's own do, everything else at 0. A module with state besides its parameters (batch norms) is refused.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        if any(True for _ in module.buffers()):
            raise ValueError("a module with buffers mixes persons: use layers without running statistics")
        self._module = module.eval()
        self._shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self._gradient = grad(self._loss)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """See `PackageModel`."""
        return tuple(
            (shape.numel(), 1 / sqrt(shape[1:].numel()) if len(shape) > 1 else 0.0) for shape in self._shapes.values()
        )

    def gradient(self, theta: Singles, x: Singles, y: float) -> Singles:
        """See `PackageModel`."""
        out: Singles = self._gradient(_tensor(theta), _tensor(x), torch.tensor(y)).numpy()
        return out

    def loss(self, theta: Singles, x: Singles, y: float) -> float:
        """See `PackageModel`."""
        with torch.no_grad():
            return float(self._loss(_tensor(theta), _tensor(x), torch.tensor(y)))

    def predict(self, theta: Singles, x: Singles) -> Singles:
        """Return scores of rows, shape (rows, outputs)."""
        with torch.no_grad():
            out: Singles = functional_call(self._module, self._parts(_tensor(theta)), (_tensor(x),)).numpy()
        return out

    def _parts(self, theta: Tensor) -> dict[str, Tensor]:
        parts = torch.split(theta, [shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        scores = functional_call(self._module, self._parts(theta), (x.unsqueeze(0),))
        if scores.shape[1] > 1:
            loss: Tensor = functional.cross_entropy(scores, y.long().unsqueeze(0))
        else:
            loss = (scores[0, 0] - y) ** 2 / 2
        return loss


def _tensor(values: Singles) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))
