"""What two columns have to do with each other: covariance, correlation, slope and intercept.

All in units of u, in which public bounds are -1 and 1; whoever knows the bounds scales. Must not know: the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queries.inference.forms import Floats, Form, Ratio, product, ratio, single, solve


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the moments of a pair stand among `size` slots: rows that have both, and sums of x, y, x x, y y, x y.

    A moment that a query does not release is -1: a covariance needs no squares, a slope none of y.
    """

    size: int
    count: int
    x: int
    y: int
    xx: int
    yy: int
    xy: int

    @property
    def spread(self) -> Form:
        """n sum(xy) - sum(x) sum(y): the covariance times n^2."""
        return product(self.size, self.count, self.xy) - product(self.size, self.x, self.y)

    @property
    def spread_x(self) -> Form:
        """The variance of x times n^2."""
        return product(self.size, self.count, self.xx) - product(self.size, self.x, self.x)

    @property
    def spread_y(self) -> Form:
        """The variance of y times n^2."""
        return product(self.size, self.count, self.yy) - product(self.size, self.y, self.y)


def covariance(pair: Pair, moments: Floats, noise: Floats, *, ddof: int) -> Ratio:
    """Return the covariance; `ddof` as in a variance."""
    below = product(pair.size, pair.count, pair.count) - float(ddof) * single(pair.size, pair.count)
    return ratio(pair.spread, below, moments, noise)


def slope(pair: Pair, moments: Floats, noise: Floats) -> Ratio:
    """Return the slope of the least squares line of y on x."""
    return ratio(pair.spread, pair.spread_x, moments, noise)


def intercept(pair: Pair, moments: Floats, noise: Floats, *, at: float) -> Ratio:
    """Return the least squares line of y on x where x is `at`."""
    above = product(pair.size, pair.y, pair.xx) - product(pair.size, pair.x, pair.xy) + at * pair.spread
    return ratio(above, pair.spread_x, moments, noise)


def correlation(pair: Pair, moments: Floats, noise: Floats) -> Ratio:
    """Return Pearson's correlation: the r for which spread - r sqrt(spread_x spread_y) cannot be told from 0."""
    above, left, right = pair.spread, pair.spread_x, pair.spread_y
    a, bx, by = (form.at(moments, noise) for form in (above, left, right))
    ga, gx, gy = (form.gradient(moments) for form in (above, left, right))
    informed = (bx > 0) & (by > 0)
    bx, by = np.where(informed, bx, 1.0), np.where(informed, by, 1.0)
    b = np.sqrt(bx * by)
    gb = (by[:, None] * gx + bx[:, None] * gy) / (2 * b[:, None])
    quadratic = above.quadratic * noise
    flat = (ga * ga) @ noise - 2 * np.sum(quadratic * quadratic.T)
    found = solve(a, np.where(informed, b, 0.0), flat, (ga * gb) @ noise, (gb * gb) @ noise)
    value = np.where(informed, a / b, 0.0)
    return Ratio(value, found.low, found.high, found.known)
