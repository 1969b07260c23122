"""A discrete Gaussian of moderate width as a table of integers, and draws from exactly that table.

Probabilities are integers in units of 2^-256 that sum to 2^256. A draw is the place of a 256-bit uniform number among
their cumulative sums, of which only as many bits are made as decide it: 16 nearly always, 80 otherwise, 256 in a tie.
How far the table is from the distribution: docs/noise.md. Must not know: variances that need more than one table.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from trust.noise.exponential import exp_minus
from trust.noise.stream import Stream

PRECISION = 256
"""Bits of a probability."""
TAIL_BITS = 132
"""The two tails that are cut together hold less than 2^-132 of the distribution."""
MAX_VARIANCE = 160_000
"""Widest table, sigma 400: beyond it too many draws are left undecided by 16 bits (4% there)."""
_WORK = 320  # fractional bits of the weights
_CELLS = 1 << 16
_CELL_BITS = PRECISION - 16
_REST_BITS = PRECISION - 80
UNDECIDED = -(1 << 15)
"""Stands in a guide for no value: no table reaches so far."""


@dataclass(frozen=True)
class Table:
    """Cumulative probabilities of -reach..reach, and what finds a draw among them.

    `bounds[i]` is P(X <= i - reach) in units of 2^-256, for all values but the last; `keys` are their first 64 bits.
    `guide[u]` is the value of every draw whose first 16 bits are u, or UNDECIDED where a bound lies inside that cell.
    """

    reach: int
    bounds: tuple[int, ...]
    keys: NDArray[np.uint64]
    guide: NDArray[np.int16]

    def draw(self, count: int, stream: Stream) -> NDArray[np.int16]:
        """Draw `count` independent values. Takes 16 bits for each, then 64 for each undecided, then those of ties."""
        cells = stream.words16(count)
        values = self.guide.take(cells)
        undecided = np.flatnonzero(values == UNDECIDED)
        if undecided.size:
            values[undecided] = self._decide(cells[undecided], stream)
        return values

    def _decide(self, cells: NDArray[np.uint16], stream: Stream) -> NDArray[np.int64]:
        more = stream.words64(len(cells))
        first64 = (cells.astype(np.uint64) << np.uint64(48)) | (more >> np.uint64(16))
        below = self.keys.searchsorted(first64)
        for tie in np.flatnonzero(self.keys.take(below, mode="clip") == first64):
            rest = int.from_bytes(stream.take(_REST_BITS // 8), "little")
            uniform = int(cells[tie]) << _CELL_BITS | int(more[tie]) << _REST_BITS | rest
            below[tie] = bisect_right(self.bounds, uniform)
        return below - self.reach


@lru_cache(maxsize=16)
def table(variance: Fraction) -> Table:
    """Return the table of the discrete Gaussian of this variance parameter, at most MAX_VARIANCE; kept, being costly.

    It holds no randomness, and at most a megabyte. Raise ValueError where the variance is out of range.
    """
    if not 0 < variance <= MAX_VARIANCE:
        raise ValueError(f"a table needs a variance above 0 and at most {MAX_VARIANCE}")
    mass = _normalised(_weights(variance))
    reach = len(mass) - 1
    bounds = tuple(accumulate((*reversed(mass[1:]), *mass[:-1])))
    keys = np.array([bound >> PRECISION - 64 for bound in bounds], dtype=np.uint64)
    guide = _guide(bounds, reach)
    keys.flags.writeable = guide.flags.writeable = False
    return Table(reach, bounds, keys, guide)


def _weights(variance: Fraction) -> list[int]:
    """Return e^(-x^2/2v) 2^320 for x = 0.., each within (x + 1)^2 units, up to the tail that is cut.

    w(x+1) = w(x) g(x) and g(x+1) = g(x) h, from g(0) = e^(-1/2v) and h = e^(-1/v); all are at most 1, so every product
    adds the errors of its factors and less than one unit. What follows x is less than a geometric series of ratio g(x).
    """
    one = 1 << _WORK
    weight, ratio, step = one, exp_minus(1 / (2 * variance), _WORK), exp_minus(1 / variance, _WORK)
    weights = [weight]
    while True:
        weight, ratio = weight * ratio >> _WORK, ratio * step >> _WORK
        # One-sided tail: at most weight / (1 - ratio), and the whole distribution weighs more than w(0) = 1.
        if weight << TAIL_BITS + 1 < one - ratio:
            return weights
        weights.append(weight)


def _normalised(weights: list[int]) -> tuple[int, ...]:
    """Return probabilities in proportion to the weights, rounded down; what is left over goes to 0."""
    total = weights[0] + 2 * sum(weights[1:])
    sides = [(weight << PRECISION) // total for weight in weights[1:]]
    return ((1 << PRECISION) - 2 * sum(sides), *sides)


def _guide(bounds: tuple[int, ...], reach: int) -> NDArray[np.int16]:
    """Return the value that each of the 2^16 equal cells of [0, 1) decides, or UNDECIDED where a bound lies inside.

    A bound counts for the cells from its own on: where it is not at the very start of its own, that one is undecided.
    """
    cells = np.array([bound >> _CELL_BITS for bound in bounds], dtype=np.int64)
    guide = (np.bincount(cells, minlength=_CELLS).cumsum() - reach).astype(np.int16)
    guide[[bound >> _CELL_BITS for bound in bounds if bound & ((1 << _CELL_BITS) - 1)]] = UNDECIDED
    return guide
