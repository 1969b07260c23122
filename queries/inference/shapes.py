"""Skewness and kurtosis from noisy sums of the first four powers.

Both are the sample's, as in pandas, SAS and DuckDB (Joanes and Gill 1998, G1 and G2). Their intervals come from the
delta method: the derivative by each sum, times that sum's noise. Must not know: units, schemas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from queries.inference.forms import Z95, Floats

_CERTAIN = 7.0
"""The variance must be this many of its own standard deviations above 0: below, the delta method says too little."""


def skewness(sums: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (value, low, high), (cells,) each, from sums of 1, u, u^2, u^3 as (cells, 4); `noise` (4,) their variance.

    Where the noise leaves no information the interval is all that so many rows allow.
    """

    def g1(n: Floats, powers: Floats) -> Floats:
        _mean, m2, m3, _m4 = _central(n, powers)
        return np.asarray(np.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5)

    return _inferred(g1, sums, noise, least=3)


def kurtosis(sums: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the excess kurtosis as (value, low, high) from sums of 1, u, ..., u^4 as (cells, 5); see `skewness`."""

    def g2(n: Floats, powers: Floats) -> Floats:
        _mean, m2, _m3, m4 = _central(n, powers)
        return np.asarray((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6))

    return _inferred(g2, sums, noise, least=4)


def _central(n: Floats, powers: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the mean and the central moments of order 2 to 4; the last is 0 where there are but three powers."""
    a, b, c = (powers[:, place] / n for place in range(3))
    m3 = c - 3 * a * b + 2 * a**3
    if powers.shape[1] == 3:
        return a, b - a * a, m3, np.zeros_like(a)
    return a, b - a * a, m3, powers[:, 3] / n - 4 * a * c + 6 * a * a * b - 3 * a**4


def _inferred(
    statistic: Callable[[Floats, Floats], Floats], sums: Floats, noise: Floats, *, least: int
) -> tuple[Floats, Floats, Floats]:
    deviation = np.sqrt(noise[0])
    count = sums[:, 0]
    safe_count = np.maximum(count, least + 1.0)
    a, variance = sums[:, 1] / safe_count, sums[:, 2] / safe_count - (sums[:, 1] / safe_count) ** 2
    by_count = 2 * a * a - sums[:, 2] / safe_count
    uncertain = np.sqrt(noise[2] + 4 * a * a * noise[1] + by_count**2 * noise[0]) / safe_count
    known = (count > least + 6 * deviation) & (variance > _CERTAIN * uncertain) & (variance > 1e-12)
    reach = np.maximum(count + 6 * deviation, least + 1.0)  # |G1| <= sqrt n and |G2| <= n for n rows
    most = np.sqrt(reach) * reach / (reach - 2) if least == 3 else reach * reach / (reach - 3)
    usual = np.zeros_like(sums)
    usual[:, 0], usual[:, 2] = 1000.0, 250.0
    usual[:, 4:] = 187.5
    used = np.where(known[:, None], sums, usual)
    value = statistic(used[:, 0], used[:, 1:])
    squared = np.zeros_like(value)
    for place in range(sums.shape[1]):
        step = np.zeros(sums.shape[1])
        step[place] = 1.0
        size = 1e-5 * used[:, :1]
        up, down = used + size * step, used - size * step
        slope = (statistic(up[:, 0], up[:, 1:]) - statistic(down[:, 0], down[:, 1:])) / (2 * size[:, 0])
        squared += slope * slope * noise[place]
    half = Z95 * np.sqrt(squared)
    low, high = np.where(known, value - half, -most), np.where(known, value + half, most)
    return np.where(known, value, 0.0), np.maximum(low, -most), np.minimum(high, most)
