"""Whether integers were drawn from a discrete Gaussian: chi-square against its probabilities, in classes of values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FALSE_ALARM = 1e-9
"""Limit on p-values. With >= 50 expected in every class their error leaves a right sampler's rate below 1e-6 a run."""
_SUMMED = 20_000  # beyond this sigma classes are integrated: the error, 1/(24 sigma^2), is far below what n can show


@dataclass
class Fit:
    """Counts of draws in classes of neighbouring values, and what is expected of them."""

    edges: NDArray[np.int64]  # class i holds edges[i] <= x < edges[i + 1]; the first and last also all beyond
    shares: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, sigma: float, draws: int) -> Fit:
        """Return empty classes for so many draws: single values where they are expected 50 times, else runs of them."""
        reach = math.ceil(9 * sigma) + 2
        width = max(1, 2 * reach // min(20_000, draws // 200))
        starts = np.arange(-reach, reach + 1, width, dtype=np.int64)
        shares = class_shares(starts, sigma)
        keep = np.flatnonzero(shares * draws >= 50)
        low, high = keep[0], keep[-1]
        pooled = np.concatenate([[shares[: low + 1].sum()], shares[low + 1 : high], [shares[high:].sum()]])
        return cls(starts[low : high + 2], pooled, np.zeros(len(pooled), dtype=np.int64))

    def add(self, draws: NDArray[np.int64]) -> None:
        """Count draws."""
        width = int(self.edges[1] - self.edges[0])
        classes = np.clip((draws - self.edges[0]) // width, 0, len(self.counts) - 1)
        self.counts += np.bincount(classes, minlength=len(self.counts))

    def p_value(self) -> float:
        """Return the probability of a fit at least as bad of draws from the right distribution.

        The worse of two fits counts: single classes see what is wrong at one value, runs of them what is wrong in all.
        """
        expected = self.shares / self.shares.sum() * self.counts.sum()
        runs = np.arange(0, len(expected), math.ceil(len(expected) / 100))
        both = [(self.counts, expected), (np.add.reduceat(self.counts, runs), np.add.reduceat(expected, runs))]
        return min(1.0, 2 * min(float(stats.chisquare(*fit).pvalue) for fit in both))


def class_shares(starts: NDArray[np.int64], sigma: float) -> NDArray[np.float64]:
    """Return the probabilities of the classes that begin at `starts` (Canonne, Kamath, Steinke 2020, definition 1)."""
    width = int(starts[1] - starts[0])
    if sigma <= _SUMMED:
        values = np.arange(starts[0], starts[-1] + width)
        weights = np.exp(-((values / sigma) ** 2) / 2)
        return np.add.reduceat(weights, np.arange(0, len(values), width)) / weights.sum()
    ends = np.append(starts, starts[-1] + width) - 0.5
    return np.diff(stats.norm.cdf(ends / sigma))


def p_value(draw: Callable[[int], NDArray[np.int64]], sigma: float, draws: int) -> float:
    """Return the p-value of so many draws against the discrete Gaussian."""
    fit = Fit.of(sigma, draws)
    fit.add(draw(draws))
    return fit.p_value()


def tail_share(beyond: int, sigma: float) -> float:
    """Return the probability of an absolute value of at least `beyond`."""
    if sigma > _SUMMED:
        return float(2 * stats.norm.sf((beyond - 0.5) / sigma))
    values = np.arange(math.ceil(12 * sigma) + 2)
    weights = np.exp(-((values / sigma) ** 2) / 2)
    return float(2 * weights[beyond:].sum() / (2 * weights.sum() - 1))


def residues_p_value(draws: NDArray[np.int64], modulus: int) -> float:
    """Return the p-value of draws modulo a small number being uniform, as wide Gaussians are to within 2^-100."""
    counts = np.bincount(draws % modulus, minlength=modulus)
    return float(stats.chisquare(counts).pvalue)
