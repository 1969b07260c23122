"""Discrete Gaussians of any width, a hundred million a second: tables up to sigma 400, sums of scaled draws beyond.

X1 + k X2 of two discrete Gaussians is again one, up to an error that falls exponentially with the smoothness checked
here (Micciancio and Walter 2017, section 4). The argument with its constants: docs/noise.md.
Must not know: who asks, and why; where the key comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from trust.noise.stream import Stream
from trust.noise.table import MAX_VARIANCE, Table, table

SMOOTHNESS = Fraction(471, 100)
"""Least s1^2 s2^2 / (s1^2 + k^2 s2^2): 2 exp(-2 pi^2 4.71) < 2^-133 bounds the error of a sum."""
BASE_VARIANCE = Fraction(1 << 16)
"""Variance of every summand but the most significant one: all widths share its table."""
BLOCK = 1 << 16
"""Coordinates drawn at a time, within a core's cache. Fixes the order of the stream, so part of the definition."""


@dataclass(frozen=True)
class Level:
    """One summand: its variance, and the factor of all more significant ones after it (0 for the last)."""

    variance: Fraction
    factor: int


def split(variance: Fraction) -> tuple[Level, ...]:
    """Return the summands of a discrete Gaussian, least significant first.

    variance = v1 + k1^2 (v2 + k2^2 (v3 + ...)), exactly. Raise ArithmeticError where a sum would not be smooth.
    """
    levels = []
    while variance > MAX_VARIANCE:
        rest = variance - BASE_VARIANCE
        factor = isqrt(int(BASE_VARIANCE * rest / (SMOOTHNESS * variance)))
        above = rest / factor**2
        if smoothness(BASE_VARIANCE, above, factor) < SMOOTHNESS:
            raise ArithmeticError("a sum of discrete Gaussians is not smooth enough to be one")
        levels.append(Level(BASE_VARIANCE, factor))
        variance = above
    return (*levels, Level(variance, 0))


def smoothness(low: Fraction, high: Fraction, factor: int) -> Fraction:
    """Return r = s1^2 s2^2 / (s1^2 + k^2 s2^2), which bounds the error of X1 + k X2.

    Every probability is that of the one discrete Gaussian within a factor (1 + e)/(1 - e), where
    e = 2 exp(-2 pi^2 r) + 2 exp(-8 pi^2 r) + ...
    """
    return low * high / (low + factor**2 * high)


@lru_cache(maxsize=32)
def tables(variance: Fraction) -> tuple[tuple[Table, int], ...]:
    """Return the tables and factors of a variance, least significant first. Holds no randomness."""
    return tuple((table(level.variance), level.factor) for level in split(variance))


def reach(variance: Fraction) -> int:
    """Return the largest absolute value that can be drawn."""
    largest = 0
    for part, factor in reversed(tables(variance)):
        largest = largest * factor + part.reach
    return largest


def draw(length: int, variance: Fraction, stream: Stream) -> NDArray[np.int64]:
    """Draw independent discrete Gaussians of exactly this variance parameter, mean 0; a function of the stream alone.

    Raise OverflowError where a draw might not fit 64 bits.
    """
    if reach(variance) >= 1 << 63:
        raise OverflowError("discrete Gaussians of this variance do not fit 64 bits")
    (most, _), *others = reversed(tables(variance))
    out = np.empty(length, dtype=np.int64)
    for start in range(0, length, BLOCK):
        block = out[start : start + BLOCK]
        block[:] = most.draw(len(block), stream)
        for part, factor in others:
            block *= factor
            block += part.draw(len(block), stream)
    return out
