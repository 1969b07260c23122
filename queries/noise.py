"""How much noise a release carries, in which shares and layers: exact fractions, from public values alone.

The argument is docs/privacy.md. Must not know: what is released, how noise is drawn, how shares travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import isqrt, log, pi

from queries.accounting import NANO, pure_epsilon_nano
from queries.errors import QueryError

MAX_RHO_NANO = 100 * NANO
"""Largest cost of one query: rho = 100 is no privacy at all, so more is a slip of the keyboard."""
MIN_SHARE_VARIANCE = 16
"""The sigma of every part of a share is at least 4 lattice steps, where a sum of discrete Gaussians is one."""
MOST_LAYERS = 8
LARGEST_LAYERED = 500
"""Institutions above whom noise has no layers: they draw their neighbours, and the argument is for a full graph."""
MOST_LAYER_SHARES = 1600
"""That a member deals for its layers: beyond, rosters would grow faster than what they save."""
MOST_DRAWS = 1 << 22
"""Of layers, by all institutions together: about a tenth of a second for whoever takes them off."""
LOG_TAU = -60 * log(10)
"""Largest tolerated natural logarithm of tau, what a sum of discrete Gaussians costs beyond a continuous one."""
LEAST_SCALE = 64
"""Lattice steps of the narrowest discrete Laplace: its variance is 2 scale^2 less 1/6, so 2 scale^2 to five digits."""
_RING = 1 << 62  # signed 64-bit sums, with one bit to spare


@dataclass(frozen=True, slots=True)
class NoiseShape:
    """How much noise a release carries, in squared steps of the refined lattice: integers multiplied by 2^refine_bits.

    Each institution draws discrete Gaussians of `share_variance` in all for every coordinate, enough for the fewest
    that a round needs. Part of it is in layers: layer i of variance `layers[i]` is taken off again where at least
    `rungs[i]` institutions survive, which is a rising sequence. `central_variance` is what a trusted curator would add.

    With a `scale`, for a dataset without a delta, the curator's noise is discrete Laplace of this scale, of variance
    2 scale^2, and what institutions draw are parts of it that add up (docs/noise.md), in proportion to the variances.
    """

    refine_bits: int
    share_variance: Fraction
    central_variance: Fraction
    rungs: tuple[int, ...] = ()
    layers: tuple[Fraction, ...] = ()
    scale: Fraction | None = None

    @property
    def pure(self) -> bool:
        """Whether this is noise of a dataset without a delta."""
        return self.scale is not None

    def part(self, variance: Fraction) -> Fraction:
        """Return which part of a trusted curator's noise this variance is."""
        return variance / self.central_variance

    @property
    def base_variance(self) -> Fraction:
        """What no round takes off an institution's noise."""
        return self.share_variance - sum(self.layers)

    def kept_variance(self, survivors: int) -> Fraction:
        """Variance of what is left of each institution's noise in a sum over `survivors` of them."""
        opened = (layer for rung, layer in zip(self.rungs, self.layers, strict=True) if survivors >= rung)
        return self.share_variance - sum(opened, Fraction(0))

    def total_variance(self, survivors: int) -> Fraction:
        """Variance of the noise in each coordinate of a sum over `survivors` institutions."""
        return survivors * self.kept_variance(survivors)


def noise_shape(
    delta_squared: int,
    largest_sum: int,
    rho_nano: int,
    *,
    threshold: int,
    colluders: int,
    invited: int,
    length: int,
) -> NoiseShape:
    """Return the smallest refinement and the noise that give rho = rho_nano / 10^9 of zero-concentrated privacy.

    `delta_squared` is the squared L2 sensitivity, `largest_sum` a bound on every exact sum, in unrefined steps,
    `length` the number of coordinates. Whatever a round of u survivors takes off, any `u - colluders` of them alone
    carry sigma^2 = delta^2 / (2 rho). Raise QueryError where the cost or the cohort is impossible, or where sum and
    noise could leave the 64-bit ring.
    """
    _check_request(rho_nano, threshold, colluders, invited)
    unrefined = Fraction(delta_squared * NANO, 2 * rho_nano)
    rungs = rungs_of(threshold, invited, length)
    whole, parts = _shares(threshold, rungs, colluders)
    smallest = min(whole - sum(parts), *parts) if parts else whole
    bits = 0
    while unrefined * smallest * 4**bits < MIN_SHARE_VARIANCE:
        bits += 1
    sigma_squared = unrefined * 4**bits
    layers = tuple(sigma_squared * part for part in parts)
    shape = NoiseShape(bits, sigma_squared * whole, sigma_squared, rungs, layers)
    if log_tau(sigma_squared * smallest, invited * (1 + len(layers))) > LOG_TAU:
        raise QueryError(
            f"{invited} institutions are more than noise in shares is proved for", hint="ask fewer institutions"
        )
    deviation = isqrt(int(shape.total_variance(invited))) + 1
    _check_ring((largest_sum << bits) + 40 * deviation)
    return shape


def pure_shape(
    delta_one: int,
    largest_sum: int,
    rho_nano: int,
    *,
    threshold: int,
    colluders: int,
    invited: int,
    length: int,
) -> NoiseShape:
    """Return the noise that gives pure epsilon = sqrt(2 rho), without a delta; otherwise as `noise_shape`.

    `delta_one` is the L1 sensitivity in unrefined steps. Whatever a round of u survivors takes off, the parts of any
    `u - colluders` of them add up to a whole discrete Laplace of scale delta_one / epsilon, exactly.
    """
    _check_request(rho_nano, threshold, colluders, invited)
    scale = Fraction(delta_one * NANO, pure_epsilon_nano(rho_nano))
    rungs = rungs_of(threshold, invited, length)
    whole, parts = _shares(threshold, rungs, colluders)
    bits = 0
    while scale < LEAST_SCALE:
        bits, scale = bits + 1, 2 * scale
    variance = 2 * scale**2
    # (4/3)^r e^(-x / 2t) bounds the tail of r parts: beyond (300 + r) t it is below e^-150
    _check_ring((largest_sum << bits) + int((300 + invited * whole) * scale))
    layers = tuple(variance * part for part in parts)
    return NoiseShape(bits, variance * whole, variance, rungs, layers, scale)


def _check_request(rho_nano: int, threshold: int, colluders: int, invited: int) -> None:
    if not 1 <= rho_nano <= MAX_RHO_NANO:
        raise QueryError(
            f"a query costs rho between {1 / NANO:g} and {MAX_RHO_NANO // NANO}",
            hint="choose epsilon between 0.01 and 10",
        )
    if colluders < 0 or not colluders < threshold <= invited or 2 * threshold <= invited + colluders:
        raise QueryError(
            f"threshold {threshold} is impossible for {invited} institutions of which {colluders} may collude",
            hint="2 threshold must exceed institutions + colluders",
        )


def _shares(threshold: int, rungs: tuple[int, ...], colluders: int) -> tuple[Fraction, list[Fraction]]:
    """Return an institution's share of the curator's noise, and which parts of it are layers."""
    steps = [Fraction(1, survivors - colluders) for survivors in (threshold, *rungs)]
    return steps[0], [above - below for above, below in pairwise(steps)]


def _check_ring(largest: int) -> None:
    if largest >= _RING:
        raise QueryError(
            "sum and noise of this query do not fit into 62 bits",
            hint="spend a larger epsilon, or limit the rows per person",
        )


def rungs_of(threshold: int, invited: int, length: int) -> tuple[int, ...]:
    """Return at which numbers of survivors a layer of noise can be taken off, rising to all who are invited.

    Every number above the threshold, unless that makes more than MOST_LAYERS: then fewer, closer together near full
    attendance. Fewer also among more than 200, and where the vector is long, since whoever takes layers off draws them
    again; none in rounds whose members draw their neighbours.
    """
    spare = invited - threshold
    count = min(MOST_LAYERS, MOST_LAYER_SHARES // invited, spare, MOST_DRAWS // (invited * length))
    if invited > LARGEST_LAYERED or count < 1:
        return ()
    if count == spare:
        return tuple(range(threshold + 1, invited + 1))
    return tuple(sorted({invited + -spare * step**2 // count**2 for step in range(count)}))


def log_tau(share_variance: Fraction, shares: int) -> float:
    """Upper bound on the natural logarithm of tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k/(k+1)).

    Kairouz, Liu and Steinke 2021, Proposition 14, for n shares of variance s^2. Every term is at most the first.
    """
    if shares < 2:
        return float("-inf")
    return log(10 * (shares - 1)) - pi * pi * float(share_variance)
