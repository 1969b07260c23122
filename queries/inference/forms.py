"""Ratios of quadratic forms of noisy moments, with intervals by a generalisation of Fieller's theorem.

A covariance, a slope and an intercept are all t = A / B, with A and B quadratic in exact sums that each carry Gaussian
noise of a known variance. A - t B has mean 0 at the true t once the forms are corrected for the noise in their squares,
and its variance is quadratic in t with coefficients that have unbiased estimates. The interval holds every t for which
the first is within 1.96 of the root of the second (Fieller 1954 is the case of linear forms).
Must not know: what the forms are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Form:
    """`z' quadratic z + linear' z` for moments z; `quadratic` is symmetric, (slots, slots), `linear` is (slots,)."""

    quadratic: Floats
    linear: Floats

    def __add__(self, other: Form) -> Form:
        return Form(self.quadratic + other.quadratic, self.linear + other.linear)

    def __rmul__(self, factor: float) -> Form:
        return Form(factor * self.quadratic, factor * self.linear)

    def __sub__(self, other: Form) -> Form:
        return self + -1.0 * other

    def at(self, moments: Floats, noise: Floats) -> Floats:
        """Return the form's value without the bias that the noise gives its squares, (cells,)."""
        plain = np.einsum("gi,ij,gj->g", moments, self.quadratic, moments) + moments @ self.linear
        return np.asarray(plain - np.diag(self.quadratic) @ noise)

    def gradient(self, moments: Floats) -> Floats:
        """Return the derivative by each moment, (cells, slots)."""
        return np.asarray(2 * moments @ self.quadratic + self.linear)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Values t = A / B with their 95% intervals, each of shape (cells,).

    Where `known` is false the noise leaves no bounded interval: `low` and `high` are infinite there, `value` is what
    the moments say all the same.
    """

    value: Floats
    low: Floats
    high: Floats
    known: NDArray[np.bool_]


def product(size: int, i: int, j: int) -> Form:
    """Return the form z_i z_j."""
    quadratic = np.zeros((size, size))
    quadratic[i, j] += 0.5
    quadratic[j, i] += 0.5
    return Form(quadratic, np.zeros(size))


def single(size: int, i: int) -> Form:
    """Return the form z_i."""
    linear = np.zeros(size)
    linear[i] = 1.0
    return Form(np.zeros((size, size)), linear)


def ratio(above: Form, below: Form, moments: Floats, noise: Floats, *, floor: float = 0.0) -> Ratio:
    """Return above / below at the exact moments. `below` counts as positive: where it cannot be told from 0 is unknown.

    `floor` is the least that a positive `below` can be.
    """
    ga, gb = above.gradient(moments), below.gradient(moments)
    qa, qb = above.quadratic * noise, below.quadratic * noise  # Q V, so that tr(Q V Q V) is a sum of products
    flat = (ga * ga) @ noise - 2 * np.sum(qa * qa.T)
    tilt = (ga * gb) @ noise - 2 * np.sum(qa * qb.T)
    steep = (gb * gb) @ noise - 2 * np.sum(qb * qb.T)
    return solve(above.at(moments, noise), below.at(moments, noise), flat, tilt, steep, floor=floor)


def solve(a: Floats, b: Floats, flat: Floats, tilt: Floats, steep: Floats, *, floor: float = 0.0) -> Ratio:
    """Return a / b and every t with (a - t b)^2 <= 1.96^2 (flat - 2 t tilt + t^2 steep), each array (cells,)."""
    spread = Z95 * Z95
    lead = b * b - spread * steep
    middle = a * b - spread * tilt
    # (middle^2 - lead (a^2 - spread flat)) / spread, without the terms that cancel
    inner = b * b * flat + a * a * steep - 2 * a * b * tilt + spread * (tilt * tilt - steep * flat)
    known = (b > floor) & (lead > 0) & (inner >= 0)
    root = np.sqrt(np.where(known, spread * inner, 0.0))
    lead = np.where(known, lead, 1.0)
    value = a / np.where(b > floor, b, np.maximum(np.abs(b), 1.0))
    low = np.where(known, (middle - root) / lead, -np.inf)
    high = np.where(known, (middle + root) / lead, np.inf)
    return Ratio(np.clip(value, low, high), low, high, known)
