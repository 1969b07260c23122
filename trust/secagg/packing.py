"""Several small counters in one ring element, where that makes a vector shorter on the wire.

A lane is a range of bits. An element of k lanes of b bits holds v_0 + v_1 2^b + ... + v_(k-1) 2^(b(k-1)), modulo the
ring. Masking and adding are homomorphic, so the sum of packed vectors is the packed vector of the sums s_j, whatever
the addends were; and if every sum lies in [-2^(b-1), 2^(b-1)), the s_j are its unique digits in that range and `unpack`
returns them exactly. One sum outside shifts its neighbour by one: lanes are therefore as wide as what can occur.

**What can occur.** An institution's exact entries are at most `largest` in absolute value, which it checks before it
packs; so those of all `addends` are at most `addends * largest`. The noise on top is a sum of independent discrete
Gaussians. Each is subgaussian with its variance parameter (Canonne, Kamath and Steinke, NeurIPS 2020), so the sum is
with their total V, and P(|noise| > x) <= 2 exp(-x^2 / 2V). For parts of discrete Laplace of scale t that add up to r
(trust/noise/laplace.py), E exp(X / 2t) = (1 - 1 / (4 cosh(1/4t)^2))^-r <= (4/3)^r, so P(|noise| > x) <=
2 (4/3)^r exp(-x / 2t). `largest_noise` is an x that all entries of a vector together stay within but for a probability
of 2^-128. Lanes hold both, so that is also the probability that any lane of a round leaks. An institution that lies
about its entries can spoil neighbouring counters as well as its own.

Must not know: queries, rounds, masks. Both sides compute the same lanes from public values; nothing is negotiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isqrt

import numpy as np
import numpy.typing as npt

from trust.secagg.masks import Ring

SHORTEST = 1 << 13
"""Entries below which nothing is packed: such a vector is one message of at most 64 KiB either way."""
FAILURE_BITS = 128
_LN2 = Fraction(6932, 10000)  # a little more than the natural logarithm of 2
_LN_4_3 = Fraction(2877, 10000)  # and of 4/3


@dataclass(frozen=True, slots=True)
class Lanes:
    """How a vector of counters lies in ring elements. Entry i is in lane i div m of element i mod m, of m elements."""

    ring_bits: int  # 32 or 64
    per_element: int

    @property
    def bits(self) -> int:
        """Width of a lane. A sum s is safe if -2^(bits-1) <= s < 2^(bits-1)."""
        return self.ring_bits // self.per_element

    def elements(self, count: int) -> int:
        """Ring elements that `count` entries take."""
        return -(-count // self.per_element)


PLAIN = Lanes(ring_bits=64, per_element=1)


def lanes_for(
    count: int, *, largest: int, addends: int, share_variance: Fraction, scale: Fraction | None = None
) -> Lanes:
    """Return the lanes that make a sum of `count` entries shortest on the wire, `PLAIN` where nothing is saved.

    `largest` bounds the absolute value of every exact entry of one of the `addends` vectors; each vector also carries
    discrete Gaussian noise of `share_variance` on every entry, or with a `scale` the part that `share_variance` is of
    2 scale^2 of discrete Laplace noise of this scale. Deterministic.
    """
    if count < SHORTEST:
        return PLAIN
    need = (addends * largest + largest_noise(addends * share_variance, count, scale)).bit_length() + 1
    choices = [Lanes(ring, ring // width) for ring in (32, 64) for width in range(need, ring + 1)]
    return min([PLAIN, *choices], key=lambda lanes: (lanes.elements(count) * lanes.ring_bits, lanes.per_element))


def largest_noise(variance: Fraction, count: int, scale: Fraction | None = None) -> int:
    """Return x such that `count` sums of noise of total `variance` are all within it, but for 2^-128."""
    exponent = (FAILURE_BITS + 1 + count.bit_length()) * _LN2  # 2 count exp(-exponent) <= 2^-128
    if scale is not None:
        parts = variance / (2 * scale**2)
        return ceil(2 * scale * (exponent + parts * _LN_4_3))
    square = 2 * variance * exponent
    return isqrt(-(-square.numerator // square.denominator)) + 1


def pack(entries: npt.NDArray[np.int64], lanes: Lanes) -> Ring:
    """Return the ring elements that hold `entries`, noise included."""
    size = lanes.elements(len(entries))
    packed = np.zeros(size, dtype=np.uint64)
    shift = np.uint64(lanes.bits if lanes.per_element > 1 else 0)
    for start in reversed(range(0, len(entries), size)):
        packed <<= shift
        part = entries[start : start + size]
        packed[: len(part)] += part.view(np.uint64)
    return packed if lanes.ring_bits == 64 else packed.astype(np.uint32)


def unpack(total: Ring, lanes: Lanes, count: int) -> npt.NDArray[np.int64]:
    """Return the `count` sums that the sum of packed vectors holds. Raise ValueError for another number of elements."""
    if len(total) != lanes.elements(count):
        raise ValueError(f"{count} entries take {lanes.elements(count)} elements, not {len(total)}")
    rest = total.astype(np.uint64)
    unused = np.uint64(64 - lanes.bits)
    parts = []
    for _ in range(-(-count // len(rest))):
        low = (rest << unused).view(np.int64) >> unused.view(np.int64)  # the lowest lane, its sign extended
        parts.append(low)
        rest -= low.view(np.uint64)
        rest >>= np.uint64(lanes.bits % 64)
    return np.concatenate(parts)[:count]
