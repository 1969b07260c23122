"""The one place that draws noise: this institution's share of it, on an integer vector.

Short vectors are drawn by OpenDP, exactly; long ones by the project's own sampler (`trust.noise.gaussian`), a thousand
times as fast and exact up to 2^-104. Data without a delta have `trust.noise.laplace`. Argument: docs/noise.md.
Must not know: queries, data, budgets. It keeps no state between calls but built samplers, which hold no randomness.
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
from trust.noise import gaussian, laplace
from trust.noise.stream import Stream

__all__ = ["LONGEST_OPENDP", "TAIL_SIGMAS", "scale_for", "share"]

# The Gaussian mechanism over integers is in OpenDP's "contrib" group: vetted by its authors, not yet formally proven.
dp.enable_features("contrib")

TAIL_SIGMAS = 40
"""A draw beyond 40 sigma has probability below 2^-1154: what is refused beyond it is never met."""
LONGEST_OPENDP = 50_000
"""Coordinates of the longest vector that OpenDP draws: it takes two thirds of a second for them."""
_LIMIT = 1 << 63


def share(length: int, variance: Fraction, scale: Fraction | None = None) -> NDArray[np.int64]:
    """Draw `length` independent discrete Gaussians of at least `variance` (lattice units squared), mean 0.

    Fresh randomness of the operating system on every call and in every process. The variance is met exactly, or by
    OpenDP exceeded by less than one part in 2^51; never undercut. Raise ProtocolViolation where 40 sigma would not fit
    64 bits: a saturated draw is not the promised distribution.

    With a `scale`, draw that part of discrete Laplace of this scale which `variance` is of 2 scale^2. A value beyond 64
    bits (probability e^-128) is reduced modulo 2^64, as the noisy sum is: that only transforms the sum.
    """
    if length < 0:
        raise ValueError("length must not be negative")
    if scale is not None:
        return _laplace(length, scale, variance / (2 * scale**2))
    width = scale_for(variance)
    if length <= LONGEST_OPENDP:
        return np.array(_opendp(width)([0] * length), dtype=np.int64)
    return gaussian.draw(length, variance, Stream.fresh())


def _laplace(length: int, scale: Fraction, part: Fraction) -> NDArray[np.int64]:
    try:
        return laplace.draw(length, scale, part, Stream.fresh())
    except OverflowError:
        raise ProtocolViolation(
            "the noise this cost asks for cannot be drawn in 64 bits",
            party="coordinator",
            hint="choose an epsilon that suits the sum's sensitivity",
        ) from None


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
def _opendp(scale: float) -> Callable[[list[int]], list[int]]:
    """Build the vector mechanism once per scale: building costs more than drawing a typical query's noise."""
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
    mechanism: Callable[[list[int]], list[int]] = dp.m.make_gaussian(*space, scale=scale)
    return mechanism
