"""A JAX function as a model of a package. Must not know: jobs, agents."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from analytics_client.models import Block, Singles


class JaxModel:
    """`apply(parameters, x)` returns scores, shape (outputs,), of one row: cross entropy above one, else squared error.

    `template` is a tree of arrays in the shapes of the parameters; matrices begin within 1 / sqrt(rows), all else at 0.
    """

    def __init__(self, apply: Callable[[Any, jax.Array], jax.Array], template: Any) -> None:
        self._apply = apply
        _, self._tree = ravel_pytree(template)
        self._shapes = [np.shape(leaf) for leaf in jax.tree_util.tree_leaves(template)]
        self._loss = jax.jit(self._loss_of)
        self._gradient = jax.jit(jax.grad(self._loss_of))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """See `PackageModel`."""
        return tuple((prod(shape), 1 / sqrt(prod(shape[:-1])) if len(shape) > 1 else 0.0) for shape in self._shapes)

    def gradient(self, theta: Singles, x: Singles, y: float) -> Singles:
        """See `PackageModel`."""
        return np.asarray(self._gradient(theta, x, y), dtype=np.float32)

    def loss(self, theta: Singles, x: Singles, y: float) -> float:
        """See `PackageModel`."""
        return float(self._loss(theta, x, y))

    def predict(self, theta: Singles, x: Singles) -> Singles:
        """Return scores of rows, shape (rows, outputs)."""
        scores = jax.vmap(self._apply, in_axes=(None, 0))(self._tree(jnp.asarray(theta)), jnp.asarray(x))
        return np.asarray(scores, dtype=np.float32)

    def _loss_of(self, theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        scores = self._apply(self._tree(theta), x)
        if scores.shape[0] > 1:
            return jax.nn.logsumexp(scores) - scores[jnp.int32(y)]
        return (scores[0] - y) ** 2 / 2
