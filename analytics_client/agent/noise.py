"""The one place that draws noise: this institution's share of discrete Gaussian noise.

Exact sampling (no floating-point arithmetic decides an outcome) is OpenDP's; this module only rounds the wanted
variance up to a scale OpenDP can hold, refuses what could saturate, and returns a vector. Argument: docs/noise.md.
Must not know: queries, data, budgets. It keeps no state between calls but the built samplers, which hold no randomness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import opendp.prelude as dp
from numpy.typing import NDArray

from queries.errors import ProtocolViolation

# The Gaussian mechanism over integers is in OpenDP's "contrib" group: vetted by its authors, not yet formally proven.
dp.enable_features("contrib")

TAIL_SIGMAS = 40
"""A draw beyond 40 sigma has probability below 2^-1154: what is refused beyond it is never met."""
_LIMIT = 1 << 63
_BLOCK = 50_000


def share(length: int, variance: Fraction) -> NDArray[np.int64]:
    """Draw `length` independent discrete Gaussians of at least `variance` (lattice units squared), mean 0.

    Fresh randomness of the operating system on every call and in every process. The variance is met or exceeded by less
    than one part in 2^51, never undercut. Raise ProtocolViolation where 40 sigma would not fit 64 bits: OpenDP would
    saturate there, and a saturated draw is not the promised distribution.
    """
    if length < 0:
        raise ValueError("length must not be negative")
    draw = _sampler(scale_for(variance))
    out = np.empty(length, dtype=np.int64)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        out[start:stop] = draw([0] * (stop - start))
    return out


def scale_for(variance: Fraction) -> float:
    """Return the smallest float whose exact square is at least `variance`. Raise ProtocolViolation out of range."""
    if variance <= 0:
        raise ProtocolViolation("a noise share needs a positive variance", party="coordinator")
    if variance * TAIL_SIGMAS**2 >= _LIMIT**2:
        raise ProtocolViolation(
            "the noise this cost asks for does not fit 64 bits",
            party="coordinator",
            hint="spend more privacy budget, or ask for fewer cells",
        )
    scale = math.sqrt(variance)
    while Fraction(scale) ** 2 < variance:
        scale = math.nextafter(scale, math.inf)
    while Fraction(lower := math.nextafter(scale, 0.0)) ** 2 >= variance:
        scale = lower
    return scale


@lru_cache(maxsize=256)
def _sampler(scale: float) -> Callable[[list[int]], list[int]]:
    """Build the vector mechanism once per scale: building costs more than drawing a typical query's noise."""
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
    mechanism: Callable[[list[int]], list[int]] = dp.m.make_gaussian(*space, scale=scale)
    return mechanism
